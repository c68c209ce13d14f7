"""Weights of a smaller or larger model made fit, as bert4keras does it.

Source: `autoresize_weights` of bert4keras 0.11.5, https://kexue.fm/archives/8444.
"""

import numpy as np

from tiedbert.bert._keras3.attention import MultiHeadAttention
from tiedbert.bert._keras3.feed_forward import FeedForward
from tiedbert.errors import InputError

_WINDOW = 2  # numbers that are repeated together, as the pairs of rotary positions


def resized(value: np.ndarray, shape: tuple, layer: object, index: int) -> np.ndarray:
    """`value` repeated or cut to a shape, and scaled for the layer.

    Args:
        value: the weight in the checkpoint.
        shape: that of the weight of the layer.
        layer: the layer of the model.
        index: which of the layer's weights it is.

    Raises:
        InputError: an axis of odd length is to grow.
    """
    made = _repeated_or_cut(value, shape)
    with np.errstate(invalid="ignore"):
        made = made / np.linalg.norm(made) * np.linalg.norm(value)
    if isinstance(layer, MultiHeadAttention) and index < (4 if layer.use_bias else 2):
        return made * (shape[-1] / value.shape[-1]) ** 0.25  # queries and keys
    if isinstance(layer, FeedForward):
        # bert4keras leaves the inner layers of relu out.
        is_relu = layer.activation[0].__name__ in ("relu", "leaky_relu")
        if index < (2 if layer.use_bias else 1) and not is_relu:
            return made * np.sqrt(shape[-1] / value.shape[-1])
        return made * np.sqrt(value.shape[0] / shape[0])
    return made


def _repeated_or_cut(value, shape):
    for axis, (old, new) in enumerate(zip(value.shape, shape, strict=True)):
        times = -(-new // old)
        if times > 1:
            if old % _WINDOW:
                raise InputError(
                    f"autoresize_weights: an axis of {old} cannot grow to {new}: "
                    f"expected a multiple of {_WINDOW}"
                )
            pairs = value.reshape(
                *value.shape[:axis], old // _WINDOW, _WINDOW, *value.shape[axis + 1 :]
            )
            value = np.repeat(pairs, times, axis=axis)
            value = value.reshape(
                *value.shape[:axis], old * times, *value.shape[axis + 2 :]
            )
    return value[tuple(slice(size) for size in shape)]
