"""Gather the hidden states at some positions, such as those of masked tokens."""

from typing import Any

import tensorflow as tf
from tensorflow import keras


@keras.utils.register_keras_serializable("tiedbert")
class GatherPositions(keras.layers.Layer):
    """``[hidden, positions]`` -> the hidden states at these positions.

    Call: float ``[batch, time, width]`` and int ``[batch, n]`` -> float
    ``[batch, n, width]``. The output has no mask, because every position exists.

    Example:
        >>> import tensorflow as tf
        >>> hidden = tf.constant([[[1.0], [2.0], [3.0]]])
        >>> GatherPositions()([hidden, tf.constant([[2, 0]])]).numpy().tolist()
        [[[3.0], [1.0]]]
    """

    def __init__(self, **kwargs: Any):
        # Positions given as floats would be rounded by a half-precision policy.
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True

    def call(self, inputs: list) -> tf.Tensor:
        """Gather along time, row by row."""
        hidden, positions = inputs
        return tf.gather(hidden, tf.cast(positions, tf.int32), batch_dims=1)

    def compute_mask(self, inputs: list, mask: Any = None) -> None:
        """None: the output has no mask."""
        return None

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """``[batch, time, width], [batch, n]`` -> ``[batch, n, width]``."""
        hidden, positions = input_shape
        return (*positions, hidden[-1])
