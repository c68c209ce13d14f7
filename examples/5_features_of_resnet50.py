"""Features from the middle of ResNet50, from a model that stops there.

    python examples/5_features_of_resnet50.py        (about 6 seconds)

Expected: the features equal those inside the whole network, bit for bit, and need a
small part of its weights. The weights here are random; use `weights="imagenet"` for
useful features.
"""

import tensorflow as tf
from tensorflow import keras

from tiedbert.surgery import split

keras.utils.set_random_seed(0)

resnet = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3))
front, _ = split(resnet, "conv3_block4_out")
images = tf.random.uniform([2, 64, 64, 3], maxval=255.0)
(features,) = front(images)
assert features.shape == (2, 8, 8, 512)

# The usual way gives the same numbers; split also gives what comes after.
usual = keras.Model(resnet.input, resnet.get_layer("conv3_block4_out").output)
assert tf.reduce_all(features == usual(images))

share = front.count_params() / resnet.count_params()
print(
    f"{tuple(features.shape[1:])} features, bit for bit, from {share:.1%} of ResNet50"
)
