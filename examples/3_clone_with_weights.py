"""A clone starts with the same numbers and goes its own way.

    python examples/3_clone_with_weights.py        (about 6 seconds)

Expected: equal outputs, no shared variable, and training the clone leaves the
original as it was. (`clone_model` alone copies the architecture and draws new
weights.)
"""

import tensorflow as tf
from tensorflow import keras

keras.utils.set_random_seed(0)

inputs = keras.Input((4,))
hidden = keras.layers.Dense(8, activation="relu")(inputs)
original = keras.Model(inputs, keras.layers.Dense(2)(hidden))

clone = keras.models.clone_model(original)
batch = tf.random.normal([16, 4])
before = original(batch)
assert tf.reduce_any(clone(batch) != before), "new weights so far"

clone.set_weights(original.get_weights())
assert tf.reduce_all(clone(batch) == before)
assert not {id(w) for w in clone.weights} & {id(w) for w in original.weights}

clone.compile("sgd", "mse")
clone.fit(batch, tf.zeros([16, 2]), verbose=0)
assert tf.reduce_any(clone(batch) != before)
assert tf.reduce_all(original(batch) == before)

print("same outputs, no shared weight; training the clone left the original alone")
