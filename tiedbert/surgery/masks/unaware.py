"""Arguments for inserted layers that do not support masks."""

from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.surgery.calls import Call
from tiedbert.surgery.masks.explicit import CopyMask, DropMask, without_mask


def without_its_mask(layer: keras.layers.Layer, value: Any) -> Any:
    """An argument for a layer that does not know masks; the tensor keeps its own.

    A model that Keras 3 says does not know masks passes them on to its layers, so the
    argument keeps its mask there.
    """
    if not _keras.is_symbolic(value):
        return value
    return CopyMask()([value, value]) if _keras.has_graph(layer) else DropMask()(value)


def symbolic_argument(layer: keras.layers.Layer, value: Any) -> Any:
    """An argument to try a layer with: no mask shows on it if the layer knows none."""
    if not _keras.is_symbolic(value) or _keras.supports_masking(layer):
        return value
    return without_mask(value)


def passes_mask_on(call: Call) -> bool:
    """Whether the layer of a call gives its output the mask of its first input.

    The symbolic output may not show it: a mask may enter a nested model from outside.
    """
    if _keras.implicit_mask(call.outputs[0]) is not None:
        return True
    first = call.args[0] if call.args else next(iter(call.kwargs.values()))
    tensors = [t for t in _keras.flatten(first) if _keras.is_symbolic(t)]
    # A mask is [batch, time]: what has no time has none.
    if not _keras.supports_masking(call.layer) or any(
        len(t.shape) < 3 for t in tensors
    ):
        return False
    masks = _keras.map_structure(_mask_input, first)
    return call.layer.compute_mask(first, masks) is not None


def _mask_input(tensor) -> tf.Tensor:
    return keras.Input(tensor.shape[1:2], dtype="bool")
