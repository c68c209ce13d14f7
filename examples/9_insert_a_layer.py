"""Insert, replace and remove layers of a built model; the old model stays as it is.

    python examples/9_insert_a_layer.py        (about 6 seconds)

This is the question of stackoverflow.com/questions/49492255. The post answers it for a
chain of layers; here the model has a shortcut. Expected: a model that is built by hand
with the other layers gives the same numbers.
"""

import tensorflow as tf
from tensorflow import keras

from tiedbert.surgery import insert, remove, replace

keras.utils.set_random_seed(0)
layers = keras.layers


def build(first, second, activation, last):
    inputs = keras.Input((4,))
    hidden = first(inputs)
    branch = activation(second(hidden))
    return keras.Model(inputs, last(layers.Add(name="add")([hidden, branch])))


first, second, last = layers.Dense(6), layers.Dense(6), layers.Dense(2)
relu = layers.Activation("relu", name="activation")
model = build(first, second, relu, last)
batch = tf.random.normal([16, 4])
before = model(batch)

gelu = layers.Activation("gelu", name="activation")
replaced = replace(model, "activation", gelu)
assert tf.reduce_all(replaced(batch) == build(first, second, gelu, last)(batch))

norm = layers.LayerNormalization(name="norm")
inserted = insert(model, "activation", norm)
by_hand = build(first, second, keras.Sequential([relu, norm]), last)
assert tf.reduce_all(inserted(batch) == by_hand(batch))

removed = remove(inserted, "norm")
assert tf.reduce_all(removed(batch) == before)
assert tf.reduce_all(model(batch) == before)

print("replaced, inserted, removed: as built by hand, and the old model is as it was")
