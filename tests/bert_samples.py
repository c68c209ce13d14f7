"""Tiny BERTs for the tests: a width of 16, one block, 30 token ids."""

import json
import warnings

import numpy as np
import pytest
from generation import IS_LEGACY

CONFIG = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "hidden_act": "gelu",
    "max_position_embeddings": 32,
    "type_vocab_size": 2,
}

# Two texts: one is padded, one has two segments.
TOKENS = np.array([[2, 7, 8, 9, 3, 0, 0], [2, 5, 3, 11, 12, 13, 3]], np.int32)
SEGMENTS = np.array([[0] * 7, [0, 0, 0, 1, 1, 1, 1]], np.int32)
BATCH = [TOKENS, SEGMENTS]


def write_config(folder, **changes):
    """The path of a ``bert_config.json``; a change to None takes the setting out."""
    config = {**CONFIG, **changes}
    path = folder / "bert_config.json"
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return path


def scramble(model, seed=0):
    """Give every weight values of its own: zeros and ones hide mistakes."""
    draw = np.random.default_rng(seed)
    model.set_weights([draw.normal(0.1, 0.3, w.shape) for w in model.get_weights()])
    return model


def build_theirs(config_path, checkpoint_path=None, **options):
    """The same model, built by bert4keras; under Keras 3 the test is skipped."""
    if not IS_LEGACY:
        pytest.skip("compares with bert4keras, which needs Keras 2")
    from bert4keras.models import build_transformer_model  # tiedbert.bert comes first

    with warnings.catch_warnings():
        # It leaves the file open, and Keras warns of its one initializer.
        warnings.simplefilter("ignore", ResourceWarning)
        warnings.filterwarnings("ignore", "The initializer .* is unseeded")
        return build_transformer_model(
            str(config_path), checkpoint_path and str(checkpoint_path), **options
        )


def names_of(tensors):
    """The names of the inputs of a model."""
    return [tensor.name for tensor in tensors]
