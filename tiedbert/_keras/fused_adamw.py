"""Keras 3's AdamW with one fused kernel a variable."""

from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert._keras.internals import internal


@keras.utils.register_keras_serializable("tiedbert")
class FusedAdamW(keras.optimizers.AdamW):
    """AdamW whose update of a variable is one kernel of TensorFlow.

    Keras' own update makes about ten passes over each weight and its moments, each one
    read from memory and written back. The arguments and the numbers are those of
    `keras.optimizers.AdamW`, an update up to 5e-5 of its size: the kernel rounds
    ``1 - beta_2`` to float32.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", 2019.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update a variable and its moments."""
        index = internal(self, "_get_variable_index")(variable)
        moments = internal(self, "_momentums"), internal(self, "_velocities")
        m, v = (of_all[index].value for of_all in moments)
        if self.amsgrad or not all(map(_is_plain, (variable, m, v))):
            super().update_step(gradient, variable, learning_rate)
            return
        dtype = variable.dtype
        beta_1, beta_2 = tf.cast(self.beta_1, dtype), tf.cast(self.beta_2, dtype)
        step = tf.cast(self.iterations + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=m.handle,
            v=v.handle,
            beta1_power=beta_1**step,
            beta2_power=beta_2**step,
            lr=tf.cast(learning_rate, dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, dtype),
            grad=tf.cast(tf.convert_to_tensor(gradient), dtype),
        )


def _is_plain(variable) -> bool:
    """Whether it lies on one device and has one handle."""
    return isinstance(variable, tf.Variable) and not hasattr(variable, "values")
