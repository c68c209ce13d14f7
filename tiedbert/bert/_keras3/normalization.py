"""The layer normalization of bert4keras, for Keras 3."""

from collections.abc import Sequence
from typing import Any

from tensorflow import keras

ops = keras.ops
_HALF = "float16", "bfloat16"


def in_single_precision(x: Any) -> Any:
    """A tensor in float32 if it is of half precision, else the tensor."""
    is_half = keras.backend.standardize_dtype(x.dtype) in _HALF
    return ops.cast(x, "float32") if is_half else x


@keras.utils.register_keras_serializable("tiedbert")
class LayerNormalization(keras.layers.Layer):
    """Subtract the mean, divide by the deviation, scale and shift.

    Half precision is computed in float32. The weights come in bert4keras' order, `beta`
    before `gamma`.

    Args:
        zero_mean: whether to subtract the mean.
        scale: whether there is a `gamma`.
        offset: whether there is a `beta`.
        epsilon: added to the variance.
        **kwargs: of `keras.layers.Layer`.

    Source: Ba et al., "Layer normalization", 2016; bert4keras 0.11.5.
    """

    def __init__(
        self,
        zero_mean: bool = True,
        scale: bool = True,
        offset: bool = True,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.zero_mean, self.scale, self.offset = zero_mean, scale, offset
        self.epsilon = epsilon
        self.supports_masking = True
        self.beta: Any = None
        self.gamma: Any = None

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make the weights."""
        for name, wanted, start in (
            ("beta", self.offset, "zeros"),
            ("gamma", self.scale, "ones"),
        ):
            if wanted:
                shape = (input_shape[-1],)
                weight = self.add_weight(
                    name=name, shape=shape, initializer=start, autocast=False
                )
                setattr(self, name, weight)

    def call(self, inputs: Any) -> Any:
        """float ``[..., width]`` -> the same shape."""
        x = in_single_precision(inputs)
        if self.zero_mean:
            x = x - ops.mean(x, axis=-1, keepdims=True)
        variance = ops.mean(ops.square(x), axis=-1, keepdims=True)
        x = x * ops.rsqrt(variance + self.epsilon)
        if self.gamma is not None:
            x = x * ops.cast(self.gamma, x.dtype)
        if self.beta is not None:
            x = x + ops.cast(self.beta, x.dtype)
        return ops.cast(x, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """That of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """All arguments."""
        return {
            **super().get_config(),
            "zero_mean": self.zero_mean,
            "scale": self.scale,
            "offset": self.offset,
            "epsilon": self.epsilon,
        }


@keras.utils.register_keras_serializable("tiedbert")
class ConfiguredNormalization(LayerNormalization):
    """A norm with the epsilon of the configuration; a head added later uses it too."""
