"""A slice of `model.layers` cannot be used as a part of a residual network.

    python examples/7_cut_where_slicing_fails.py        (about 6 seconds)

Expected: `Sequential(layers[k:])` fails at the addition, which needs two tensors.
Without the addition it runs and gives wrong outputs. `split` passes both tensors on
and is exact.
"""

import tensorflow as tf
from tensorflow import keras

from tiedbert.surgery import split

keras.utils.set_random_seed(0)


def build_residual_network():
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(6, activation="tanh", name="stem")(inputs)
    branch = keras.layers.Dense(6, activation="tanh", name="branch_1")(hidden)
    branch = keras.layers.Dense(6, name="branch_2")(branch)
    hidden = keras.layers.Add(name="add")([hidden, branch])
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(hidden))


model = build_residual_network()
batch = tf.random.normal([16, 4])
expected = model(batch)

front, rest = split(model, "branch_1")
crossing = front(batch)
names = [layer.name for layer in model.layers]
after_the_cut = model.layers[names.index("branch_1") + 1 :]

try:
    keras.Sequential(after_the_cut)(crossing[0])
except ValueError as error:
    print(f"Sequential slice: ValueError: {str(error).splitlines()[0][:60]}")
else:
    raise AssertionError("expected the addition to refuse a single tensor")

without_add = [layer for layer in after_the_cut if layer.name != "add"]
wrong = tf.reduce_max(tf.abs(keras.Sequential(without_add)(crossing[0]) - expected))
assert wrong > 0.1

difference = float(tf.reduce_max(tf.abs(rest(crossing) - expected)))
assert difference == 0.0
print(f"a slice fails or is wrong; split: difference {difference}")
