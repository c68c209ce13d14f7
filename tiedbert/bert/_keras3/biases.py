"""Which keys a query may see, in language models, for Keras 3."""

from typing import Any

from tensorflow import keras

ops = keras.ops


@keras.utils.register_keras_serializable("tiedbert")
class CausalBias(keras.layers.Layer):
    """Each token sees itself and those before it: bool ``[batch, time, time]``."""

    def call(self, inputs: Any) -> Any:
        """The token ids, ``[batch, time]``, give the shape."""
        order = ops.cumsum(ops.ones_like(inputs, "int32"), axis=1)
        return order[:, None, :] <= order[:, :, None]

    def compute_output_spec(self, inputs: Any) -> Any:
        """bool ``[batch, time, time]``."""
        return _square(inputs)


@keras.utils.register_keras_serializable("tiedbert")
class PrefixBias(keras.layers.Layer):
    """Segment 0 sees itself, segment 1 what is before it: bool ``[batch, time, time]``.

    Source: Dong et al., "Unified language model pre-training for natural language
    understanding and generation", 2019 (UniLM); bert4keras 0.11.5.
    """

    def call(self, inputs: Any) -> Any:
        """From the segment ids, ``[batch, time]``."""
        order = ops.cumsum(inputs, axis=1)
        return order[:, None, :] <= order[:, :, None]

    def compute_output_spec(self, inputs: Any) -> Any:
        """bool ``[batch, time, time]``."""
        return _square(inputs)


def _square(inputs):
    batch, time = inputs.shape
    return keras.KerasTensor((batch, time, time), dtype="bool")
