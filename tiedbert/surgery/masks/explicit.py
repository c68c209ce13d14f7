"""Implicit Keras masks as ordinary tensors, and back.

Keras carries the padding mask of a tensor as an attribute that any arithmetic
drops. :class:`ReadMask` and :class:`AttachMask` make it an edge of the graph, so
that it survives a cut; :class:`DropMask` ends the implicit one.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras


@keras.utils.register_keras_serializable("tiedbert")
class ReadMask(keras.layers.Layer):
    """The implicit mask of a tensor, as a bool tensor ``[batch, time]``.

    Args:
        shape: the shape of the mask, None for an unknown size, where Keras 3 cannot
            know it before the model runs. Default: the first two sizes of the tensor.
    """

    def __init__(self, shape: tuple | None = None, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True
        self.shape = None if shape is None else tuple(shape)

    def call(self, inputs: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
        """Return the mask that Keras passes beside `inputs`."""
        if mask is None:
            raise ValueError(f"{self.name}: its input carries no mask")
        return tf.identity(mask)

    def compute_output_spec(self, inputs: Any, mask: Any = None) -> Any:
        """Return the symbolic mask, which Keras 3 asks for before the model runs."""
        shape = inputs.shape[:2] if self.shape is None else self.shape
        return keras.KerasTensor(shape, "bool")

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Return None: a mask has no mask of its own."""
        return None

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        return {**super().get_config(), "shape": self.shape}


@keras.utils.register_keras_serializable("tiedbert")
class AttachMask(keras.layers.Layer):
    """``[tensor, mask]`` -> the tensor, unchanged, with `mask` as its implicit mask."""

    def __init__(self, **kwargs: Any) -> None:
        # Values pass as they are, whatever the precision policy.
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True

    def call(self, inputs: Sequence) -> tf.Tensor:
        """Return the tensor itself (the same bits in a new tensor)."""
        # A new tensor: the mask must not stick to the one the caller holds.
        return tf.identity(inputs[0])

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Return the second input, which is the mask of the first."""
        return inputs[1]


@keras.utils.register_keras_serializable("tiedbert")
class DropMask(keras.layers.Layer):
    """A tensor, unchanged, without its implicit mask."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True

    def call(self, inputs: tf.Tensor | None) -> tf.Tensor | None:
        """Return the tensor itself (the same bits in a new tensor)."""
        return None if inputs is None else tf.identity(inputs)  # an optional input

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Return None: the mask ends here."""
        return None


@keras.utils.register_keras_serializable("tiedbert")
class CopyMask(keras.layers.Layer):
    """``[tensor, other]`` -> the tensor, unchanged, with the implicit mask of `other`.

    What mask that is, or whether there is one, need not be known before the model runs.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True

    def call(self, inputs: Sequence) -> tf.Tensor:
        """Return the tensor itself (the same bits in a new tensor)."""
        return tf.identity(inputs[0])

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Return the mask that comes with the second input."""
        return None if mask is None else mask[1]


def attach(tensor: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """A symbolic tensor of the same values with `mask` as its implicit mask."""
    return AttachMask()([tensor, mask])


def mask_of(tensor: tf.Tensor, shape: tuple | None = None) -> tf.Tensor | None:
    """The implicit mask of a symbolic tensor as a symbolic bool tensor, or None.

    Args:
        tensor: a symbolic tensor.
        shape: the shape of the mask that the tensor is known to have when its model
            runs, although in Keras 3 it may not say so; None: trust what it says.
    """
    mask = _keras.implicit_mask(tensor)
    if _keras.is_symbolic(mask) or (mask is None and shape is None):
        return mask
    return ReadMask(shape or tuple(mask.shape))(tensor)


def without_mask(tensor: tf.Tensor) -> tf.Tensor:
    """A symbolic tensor of the same values that carries no implicit mask."""
    return tensor if _keras.implicit_mask(tensor) is None else DropMask()(tensor)
