"""The choice of positions: hidden states of the masked tokens alone."""

import tensorflow as tf
from tensorflow import keras


@keras.utils.register_keras_serializable("tiedbert")
class GatherPositions(keras.layers.Layer):
    """``[hidden, positions]`` -> the hidden states at these positions.

    Call: float ``[batch, time, width]`` and int ``[batch, n]`` -> float
    ``[batch, n, width]``. The mask of the input ends here: every position that was
    asked for is there.

    Example:
        >>> import tensorflow as tf
        >>> hidden = tf.constant([[[1.0], [2.0], [3.0]]])
        >>> GatherPositions()([hidden, tf.constant([[2, 0]])]).numpy().tolist()
        [[[3.0], [1.0]]]
    """

    def __init__(self, **kwargs):
        # Positions given as floats would be rounded by a half-precision policy.
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True

    def call(self, inputs):
        """Gather along time, row by row."""
        hidden, positions = inputs
        return tf.gather(hidden, tf.cast(positions, tf.int32), batch_dims=1)

    def compute_mask(self, inputs, mask=None):
        """Nothing of the padding is left."""
        return None

    def compute_output_shape(self, input_shape):
        """``[batch, time, width], [batch, n]`` -> ``[batch, n, width]``."""
        hidden, positions = input_shape
        return (*positions, hidden[-1])
