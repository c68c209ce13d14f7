"""The feed-forward layer of bert4keras, plain or gated, for Keras 3."""

from collections.abc import Sequence
from typing import Any

from tensorflow import keras

from tiedbert.bert._keras3.normalization import in_single_precision

ops = keras.ops


@keras.utils.register_keras_serializable("tiedbert")
class FeedForward(keras.layers.Layer):
    """Two dense layers; of several activations the first layers are multiplied.

    Half precision is activated in float32.

    Args:
        units: width of the inner layer.
        activation: name or function, or a list of them for a gated layer.
        use_bias: whether all layers have biases.
        dropout: rate of dropout between the inner layers and the output.
        kernel_initializer: of all kernels.
        **kwargs: of `keras.layers.Layer`.

    Source: Shazeer, "GLU variants improve Transformer", 2020; bert4keras 0.11.5.
    """

    def __init__(
        self,
        units: int,
        activation: Any = "relu",
        use_bias: bool = True,
        dropout: float = 0.0,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        activations = activation if isinstance(activation, list) else [activation]
        self.units, self.use_bias = units, use_bias
        self.activation = [keras.activations.get(each) for each in activations]
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True
        self.inner = [
            self._dense(units, name=f"inner_{i}") for i in range(len(self.activation))
        ]
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy)
        self.o_dense: Any = None

    def _dense(self, units, **options):
        return keras.layers.Dense(
            units,
            use_bias=self.use_bias,
            kernel_initializer=self.kernel_initializer,
            dtype=self.dtype_policy,
            **options,
        )

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make the layers: the output is as wide as the input."""
        for dense in self.inner:
            dense.build(input_shape)
        self.o_dense = self._dense(input_shape[-1], name="output")
        self.o_dense.build((*input_shape[:-1], self.units))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """float ``[batch, time, width]`` -> the same shape."""
        made = [
            self._activated(function, dense(inputs))
            for function, dense in zip(self.activation, self.inner, strict=True)
        ]
        hidden = made[0]
        for gate in made[1:]:
            hidden = hidden * gate
        return self.o_dense(self.dropout(hidden, training=training))

    def _activated(self, function, x):
        """In float32: TensorFlow's erf of bfloat16 takes five times as long."""
        return ops.cast(function(in_single_precision(x)), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """That of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """All arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "activation": [keras.activations.serialize(a) for a in self.activation],
            "use_bias": self.use_bias,
            "dropout": self.dropout.rate,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
