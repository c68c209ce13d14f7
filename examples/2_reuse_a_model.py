"""Call a model twice, as a layer: both calls share every weight.

    python examples/2_reuse_a_model.py        (about 6 seconds)

Expected: a siamese network has the weights of one encoder. Swapping its two inputs
changes no bit of the output, before training and after.
"""

import tensorflow as tf
from tensorflow import keras

keras.utils.set_random_seed(0)


def build_encoder():
    image = keras.Input((8, 8, 1))
    hidden = keras.layers.Conv2D(4, 3, activation="relu")(image)
    hidden = keras.layers.Flatten()(hidden)
    return keras.Model(image, keras.layers.Dense(5)(hidden))


def build_siamese(encoder):
    left, right = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    cosine = keras.layers.Dot(axes=1, normalize=True)([encoder(left), encoder(right)])
    return keras.Model([left, right], cosine)


def swapping_changes_nothing(siamese, left, right):
    return bool(tf.reduce_all(siamese([left, right]) == siamese([right, left])))


encoder = build_encoder()
siamese = build_siamese(encoder)
left, right = tf.random.normal([16, 8, 8, 1]), tf.random.normal([16, 8, 8, 1])
assert {id(w) for w in siamese.weights} == {id(w) for w in encoder.weights}
assert swapping_changes_nothing(siamese, left, right)

before = encoder(left)
siamese.compile("adam", "mse")
siamese.fit([left, right], tf.ones([16, 1]), epochs=3, verbose=0)
assert tf.reduce_any(encoder(left) != before), "training reaches the encoder"
assert swapping_changes_nothing(siamese, left, right)

print(f"2 calls of one encoder, {len(siamese.weights)} weights in all; still symmetric")
