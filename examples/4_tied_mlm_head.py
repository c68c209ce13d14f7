"""A masked-LM head that reads its kernel from the embedding, and stays tied.

    python examples/4_tied_mlm_head.py        (about 6 seconds)

Expected: one table in the model. The row of a token that is never an input is still
trained, by the head. The tie holds after saving, loading and more training.
"""

import tempfile
from pathlib import Path

import tensorflow as tf
from tensorflow import keras

from tiedbert.layers import EmbeddingDense

VOCABULARY, WIDTH, UNSEEN = 20, 4, 19

keras.utils.set_random_seed(0)


def build_model():
    token_ids = keras.Input((None,), dtype="int32")
    embedding = keras.layers.Embedding(VOCABULARY, WIDTH, name="tokens")
    hidden = keras.layers.Dense(WIDTH, activation="tanh", name="body")
    return keras.Model(
        token_ids, EmbeddingDense(embedding)(hidden(embedding(token_ids)))
    )


def is_tied(model, token_ids):
    """Does the output follow from the one table that the model holds?"""
    (table,) = [w for w in model.weights if tuple(w.shape) == (VOCABULARY, WIDTH)]
    (bias,) = [w for w in model.weights if tuple(w.shape) == (VOCABULARY,)]
    table = tf.convert_to_tensor(table)
    hidden = model.get_layer("body")(tf.gather(table, token_ids))
    expected = tf.nn.softmax(hidden @ tf.transpose(table) + bias)
    return float(tf.reduce_max(tf.abs(model(token_ids) - expected))) < 1e-6


token_ids = tf.random.uniform([8, 5], maxval=UNSEEN, dtype=tf.int32)
model = build_model()
model.compile("adam", "sparse_categorical_crossentropy")
table = model.get_layer("tokens").get_weights()[0]
model.fit(token_ids, token_ids, epochs=3, verbose=0)
moved = (model.get_layer("tokens").get_weights()[0] != table).any(axis=1)
assert moved[UNSEEN], "only the head can have trained this row"
assert is_tied(model, token_ids)

with tempfile.TemporaryDirectory() as folder:
    model.save(Path(folder) / "model.keras")
    loaded = keras.models.load_model(Path(folder) / "model.keras")
assert tf.reduce_all(loaded(token_ids) == model(token_ids))
loaded.fit(token_ids, token_ids, verbose=0)
assert is_tied(loaded, token_ids)

print("1 table for embedding and head, trained by both; still 1 after save and load")
