"""A layer that is called on two inputs trains one kernel from both.

    python examples/1_reuse_a_layer.py        (about 6 seconds)

Expected: one kernel, and its gradient is the sum of the gradients of both calls.
"""

import tensorflow as tf
from tensorflow import keras

keras.utils.set_random_seed(0)

left, right = keras.Input((4,)), keras.Input((4,))
shared = keras.layers.Dense(3, use_bias=False)
model = keras.Model([left, right], [shared(left), shared(right)])
assert len(model.weights) == 1

batch = [tf.random.normal([8, 4]), tf.random.normal([8, 4])]
with tf.GradientTape(persistent=True) as tape:
    losses = [tf.reduce_sum(output**2) for output in model(batch)]
    total = tf.add_n(losses)
(from_left,), (from_right,), (from_both,) = (
    tape.gradient(loss, model.trainable_weights) for loss in [*losses, total]
)
assert tf.reduce_any(from_left != 0)
assert tf.reduce_any(from_right != 0)
assert tf.reduce_all(from_both == from_left + from_right)

print("1 kernel for 2 inputs; its gradient is the sum of both sides")
