"""Copy a model with its weights; train the copy without changing the original.

    python examples/3_clone_with_weights.py        (about 6 seconds)

Expected: equal outputs, no shared variable, and training the clone does not change
the original. (`clone_model` of Keras copies the architecture only. It draws new
weights, and makes two layers of one that is used inside and outside of a nested
model.)
"""

import tensorflow as tf
from tensorflow import keras

from tiedbert import surgery

keras.utils.set_random_seed(0)

inputs = keras.Input((4,))
hidden = keras.layers.Dense(8, activation="relu")(inputs)
original = keras.Model(inputs, keras.layers.Dense(2)(hidden))

batch = tf.random.normal([16, 4])
before = original(batch)
assert tf.reduce_any(keras.models.clone_model(original)(batch) != before)

clone = surgery.clone(original)
assert tf.reduce_all(clone(batch) == before)
assert not {id(w) for w in clone.weights} & {id(w) for w in original.weights}

clone.compile("sgd", "mse")
clone.fit(batch, tf.zeros([16, 2]), verbose=0)
assert tf.reduce_any(clone(batch) != before)
assert tf.reduce_all(original(batch) == before)

print("same outputs, no shared weight; training the clone left the original alone")
