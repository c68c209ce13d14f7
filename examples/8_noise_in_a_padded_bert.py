"""Add noise at Embedding-Norm of a BERT whose batch has padding.

    python examples/8_noise_in_a_padded_bert.py        (about 6 seconds)

Expected: a model made with `keras.Model(hidden, output)` loses the padding mask at
`hidden + noise`, and the outputs of real tokens change by more than 0.1. The rest that
`split` returns has the mask as an input: its outputs for real tokens are those without
padding, up to rounding.
"""

import json
import sys
import tempfile
from pathlib import Path

try:
    from tiedbert.bert import build_bert
except ImportError as error:
    sys.exit(str(error))

import tensorflow as tf
from tensorflow import keras

from tiedbert.surgery import split

CONFIG = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "hidden_act": "gelu",
    "max_position_embeddings": 16,
    "initializer_range": 0.02,
}
LENGTH, PADDING = 5, 7

keras.utils.set_random_seed(0)

with tempfile.TemporaryDirectory() as folder:
    config_path = Path(folder) / "bert_config.json"
    config_path.write_text(json.dumps(CONFIG))
    bert = build_bert(config_path)
# Larger random weights: with BERT's initial ones attention hardly differs by token.
bert.set_weights([30 * w if w.std() > 0 else w for w in bert.get_weights()])


def largest_difference(left, right):
    return float(tf.reduce_max(tf.abs(left - right)))


def padded(tensor, after):
    return tf.pad(tensor, [[0, 0], [0, after]] + [[0, 0]] * (len(tensor.shape) - 2))


token_ids = tf.random.uniform([4, LENGTH], 1, CONFIG["vocab_size"], tf.int32)
short = [token_ids, tf.zeros_like(token_ids)]
long = [padded(tensor, PADDING) for tensor in short]
noise = tf.random.normal([4, LENGTH, CONFIG["hidden_size"]])

front, rest = split(bert, "Embedding-Norm")
hidden, *context = front(short)
expected = rest([hidden + noise, *context])

hidden, *context = front(long)
assert largest_difference(rest([hidden, *context]), bert(long)) == 0.0
noisy = hidden + padded(noise, PADDING)
error = largest_difference(rest([noisy, *context])[:, :LENGTH], expected)
assert error < 1e-5

partial = keras.Model(bert.get_layer("Embedding-Norm").output, bert.output)
error_of_partial = largest_difference(partial(noisy)[:, :LENGTH], expected)
assert error_of_partial > 0.1

print("padding disturbs real tokens: keras.Model yes, split no")
print(f"(largest change: {error_of_partial:.2f} and {error:.0e})")
