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
        return square(inputs)


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
        return square(inputs)


@keras.utils.register_keras_serializable("tiedbert")
class WindowBias(keras.layers.Layer):
    """A token sees those that are near in its row: bool ``[batch, time, time]``.

    It is called on hidden states, ``[batch, time, width]``, or on a list of them and
    another such tensor of pairs, which must allow a pair too. The attention still
    computes the scores of all pairs.

    Args:
        reach: how many positions a token sees to the left and to the right.
        **kwargs: of `keras.layers.Layer`.

    Source: Beltagy et al., "Longformer: the long-document transformer", 2020.
    """

    def __init__(self, reach: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reach = reach
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """The hidden states give the shape."""
        hidden, *bias = listed(inputs)
        order = ops.cumsum(ops.ones_like(hidden[..., 0], "int32"), axis=1)
        near = ops.abs(order[:, None, :] - order[:, :, None]) <= self.reach
        return ops.logical_and(near, bias[0]) if bias else near

    def compute_output_spec(self, inputs: Any) -> Any:
        """bool ``[batch, time, time]``."""
        return square(listed(inputs)[0])

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """Pairs of positions have no padding mask."""

    def get_config(self) -> dict[str, Any]:
        """All arguments."""
        return {**super().get_config(), "reach": self.reach}


def listed(inputs: Any) -> list:
    """The tensors that a layer is called on, one or a list of them."""
    return list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]


def square(inputs: Any) -> Any:
    """The pairs of positions of a tensor: symbolic bool ``[batch, time, time]``."""
    batch, time = inputs.shape[:2]
    return keras.KerasTensor((batch, time, time), dtype="bool")
