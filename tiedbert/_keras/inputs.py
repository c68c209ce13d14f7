"""Inputs and specs like the tensors of a graph."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert._keras.choice import generation


def dtype_name(tensor: Any) -> str:
    """``"float32"``, whether the dtype of a tensor is an object or a name."""
    return tf.as_dtype(tensor.dtype).name


def input_like(tensor: Any, name: str) -> Any:
    """A new Input with the shape, batch size and dtype of a symbolic tensor.

    It is sparse or ragged where the tensor is. Where that is an Input that may be None,
    so may the new one.
    """
    shape = tuple(tensor.shape)
    if not shape:
        return generation.scalar_input(tensor.dtype, name)
    return keras.Input(
        shape=shape[1:],
        batch_size=shape[0],
        dtype=tensor.dtype,
        name=name,
        **generation.input_options(tensor),
    )


def type_spec(tensor: Any, shape: Sequence[int | None]) -> tf.TypeSpec:
    """The spec of a value of `shape` for a symbolic tensor."""
    specs = {"sparse": tf.SparseTensorSpec, "ragged": tf.RaggedTensorSpec}
    names = generation.sparse_or_ragged(tensor)
    spec = next((specs[name] for name in names), tf.TensorSpec)
    return spec(shape, tensor.dtype)
