"""The hidden state of the first token, for a pooler."""

from typing import Any

import tensorflow as tf
from tensorflow import keras


@keras.utils.register_keras_serializable("tiedbert")
class FirstToken(keras.layers.Layer):
    """float ``[batch, time, width]`` -> ``[batch, width]``, the state of ``[CLS]``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True  # it ends here

    def compute_mask(self, inputs: tf.Tensor, mask: Any = None) -> None:
        """No token is left to be masked."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Take the first position."""
        return inputs[:, 0]

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """``[batch, width]``."""
        return (input_shape[0], *input_shape[2:])
