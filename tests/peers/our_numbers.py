"""Our masked language model of random weights on two texts, and what comes of it.

tests/peers/test_keras_hub.py, in Keras 3, runs this file as a process in Keras 2.
"""

import json
import sys
from pathlib import Path

import numpy as np

CONFIG = {
    "vocab_size": 101,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
}

# Three texts: without padding, with some, with much; each of two segments.
LENGTHS = (20, 14, 7)
_RANDOM = np.random.default_rng(1)
_TIME = np.arange(20)
PADDING_MASK = np.stack([length > _TIME for length in LENGTHS]).astype(np.int32)
TOKENS = _RANDOM.integers(1, 101, [3, 20], np.int32) * PADDING_MASK
SEGMENTS = np.stack([length // 2 <= _TIME for length in LENGTHS]) * PADDING_MASK
SEGMENTS = SEGMENTS.astype(np.int32)
POSITIONS = np.array([[1, 6, 12, 19], [0, 5, 9, 13], [2, 3, 4, 6]], np.int32)
LABELS = _RANDOM.integers(1, 101, POSITIONS.shape, np.int32)
INPUTS = [TOKENS, SEGMENTS, POSITIONS]


def write(folder, like_keras_hub=False):
    """Write ``weights`` and ``gradients``, both as folders of Hugging Face's kind.

    Of keras-hub's constants two are not those of BERT: all activations but the head's
    are approximate, and the head's epsilon is 1e-5. `like_keras_hub` takes them over.

    Returns:
        The logits ``[text, position, vocab]`` and the loss.
    """
    from tiedbert.bert import save_safetensors

    act = "gelu_tanh" if like_keras_hub else "gelu"
    config = folder / "bert_config.json"
    config.write_text(json.dumps({**CONFIG, "hidden_act": act}))
    model, second = build(config), build(config)
    model.set_weights([_draw(weight) for weight in model.weights])
    save_safetensors(model, folder / "weights")
    if like_keras_hub:
        from bert4keras.backend import gelu_erf

        model.get_layer("MLM-Norm").epsilon = 1e-5
        model.get_layer("MLM-Dense").activation = gelu_erf
    logits, loss, gradients = step(model)
    second.set_weights(gradients)  # for their names
    save_safetensors(second, folder / "gradients")
    return logits, loss


def build(config):
    from tiedbert.bert import build_bert, masked_lm

    return masked_lm(build_bert(config))


def step(model):
    """(logits, loss, gradients in the order of the weights), without dropout."""
    import tensorflow as tf
    from tensorflow import keras

    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:
        logits = model(INPUTS, training=False)
        loss = loss_of(LABELS, logits)
    gradients = tape.gradient(loss, model.weights)
    return logits.numpy(), loss.numpy(), [tf.convert_to_tensor(g) for g in gradients]


def _draw(weight):
    """Weights that show mistakes and keep the hidden states in range."""
    centre = 1.0 if "gamma" in weight.name else 0.0
    return _RANDOM.normal(centre, 0.15, weight.shape)


def assert_gradients_agree(found, expected):
    """To 1e-4 of the largest entry of each; `found` and `expected` by name.

    The biases of the keys have no gradient, as softmax forgets what is added to all its
    inputs; what is left is rounding, and is compared with all other gradients.
    """
    assert sorted(found) == sorted(expected)
    largest = max(float(np.abs(value).max()) for value in expected.values())
    worst = 0.0
    for name, value in expected.items():
        is_key_bias = name.endswith(("key.bias", "key/bias", "k_lin.bias"))
        scale = largest if is_key_bias else float(np.abs(value).max())
        assert scale > 0, name
        difference = float(np.abs(found[name] - value).max()) / scale
        assert difference < 1e-4, (name, difference)
        worst = max(worst, difference)
    print(f"gradients of {len(expected)} weights: largest relative error {worst:.1e}")


if __name__ == "__main__":
    where = Path(sys.argv[1])
    our_logits, our_loss = write(where, like_keras_hub=True)
    np.savez(where / "numbers.npz", logits=our_logits, loss=our_loss)
