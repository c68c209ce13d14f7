"""Reach into a model inside a model: features, noise, a cut.

    python examples/10_inside_a_nested_model.py        (about 8 seconds)

`keras.Model(model.input, inner_layer.output)` fails with "graph disconnected"
(github.com/keras-team/keras/issues/16123): the inner tensors belong to another graph.
Expected: a path names the inner layer, and cut, features and noise are exact.
"""

import tensorflow as tf
from tensorflow import keras

from tiedbert.surgery import features, inject, split

keras.utils.set_random_seed(0)

backbone = keras.applications.MobileNetV2(
    weights=None, include_top=False, input_shape=(64, 64, 3), alpha=0.35
)
images = keras.Input((64, 64, 3))
pooled = keras.layers.GlobalAveragePooling2D()(backbone(images))
model = keras.Model(images, keras.layers.Dense(10)(pooled))

batch = tf.random.uniform([2, 64, 64, 3])
expected = model(batch)
at = f"{backbone.name}/block_6_expand"

front, rest = split(model, at)
hidden, *context = front(batch)
assert tf.reduce_all(rest([hidden, *context]) == expected)
assert tf.reduce_all(features(model, at)(batch) == hidden)

noise = 0.1 * tf.random.normal(hidden.shape)
noisy = inject(model, at)([batch, noise])
assert tf.reduce_all(noisy == rest([hidden + noise, *context]))
assert tf.reduce_any(noisy != expected)

print(f"cut inside the backbone: {1 + len(context)} crossing, difference 0.0")
