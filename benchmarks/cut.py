"""What a cut costs: rest(front(x)) against model(x), and cutting against building.

    TF_USE_LEGACY_KERAS=0 python benchmarks/cut.py    # Keras 3; or 1 for Keras 2

BERT-base (of our layers in Keras 3, of bert4keras' in Keras 2) with padded token ids,
and ResNet50, both with random weights, cut in the middle. About four minutes on two CPU
cores.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf
from _interleaved import measure, print_table
from tensorflow import keras

from tiedbert import bert
from tiedbert.surgery import split

LAYERS, WIDTH, HEADS, VOCABULARY = 12, 768, 12, 21128
BERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 4 * WIDTH,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}


def build_bert():
    """Twelve blocks: ours, under Keras 2 bert4keras'."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bert_config.json"
        path.write_text(json.dumps(BERT))
        return bert.build_bert(path)


def build_resnet():
    """Convolutions and shortcuts."""
    return keras.applications.ResNet50(weights=None, input_shape=(96, 96, 3))


def token_ids():
    """Eight rows of 128, half of them padded."""
    ids = np.random.default_rng(0).integers(1, VOCABULARY, (8, 128))
    ids[::2, 64:] = 0
    return tf.constant(ids)


def compare(name, build, at, inputs):
    """Time one model: making, cutting and running it."""
    model = build()
    inputs = tf.nest.map_structure(
        lambda x, t: tf.cast(x, t.dtype), inputs, model.input
    )
    front, rest = split(model, at)
    whole = tf.function(lambda: model(inputs))
    parts = tf.function(lambda: rest(front(inputs)))
    assert np.array_equal(rest(front(inputs)), model(inputs))
    running = {
        "model(x)": lambda: whole().numpy(),
        "rest(front(x))": lambda: parts().numpy(),
    }
    print_table(measure(running, 20), f"{name}, inference under tf.function")
    making = {"build": build, f"split at {at}": lambda: split(model, at)}
    print_table(measure(making, 8), f"{name}, making models")
    for _ in range(100):
        split(model, at)
    fresh = build()
    again = {
        "split a fresh model": lambda: split(fresh, at),
        "split one that was split 100 times": lambda: split(model, at),
    }
    print_table(measure(again, 8), f"{name}, after many cuts")


def main():
    """All comparisons."""
    ids = token_ids()
    at = "Transformer-5-FeedForward-Norm"
    compare("BERT-base", build_bert, at, [ids, tf.zeros_like(ids)])
    images = tf.constant(np.random.default_rng(0).random((4, 96, 96, 3)), tf.float32)
    compare("ResNet50", build_resnet, "conv4_block3_add", images)


if __name__ == "__main__":
    main()
