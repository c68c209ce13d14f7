"""Whether a layer, or a tensor, can stand where another is: by shape and dtype."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError
from tiedbert.surgery.graph import Graph


def describe(tensor: Any) -> str:
    """``"(?, 4) float32"``; what is no tensor as Python writes it."""
    if not _is_tensor(tensor):
        return "None" if _keras.is_symbolic(tensor) else f"{tensor!r:.60}"
    shape = ", ".join("?" if size is None else str(size) for size in tensor.shape)
    return f"({shape}) {_keras.dtype_name(tensor)}"


def alike(tensor: tf.Tensor, expected: tf.Tensor) -> bool:
    """Whether `tensor` can stand where `expected` is, as far as shapes are known."""
    return (
        _is_tensor(tensor)
        and _keras.dtype_name(tensor) == _keras.dtype_name(expected)
        and len(tensor.shape) == len(expected.shape)
        and all(
            size is None or wanted is None or size == wanted
            for size, wanted in zip(tensor.shape, expected.shape, strict=True)
        )
    )


def _is_tensor(value) -> bool:
    """Whether a layer gave a tensor; for None, Keras 2 has one without a dtype."""
    return _keras.is_symbolic(value) and hasattr(value, "dtype")


def free_to_change(graph: Graph, tensor: tf.Tensor) -> bool:
    """Whether no call uses `tensor`, so that nothing depends on its shape."""
    return not any(t is tensor for call in graph.calls for t in call.inputs)


def check_layer(layer: Any) -> None:
    """InputError unless `layer` is a Keras layer or model."""
    if not isinstance(layer, keras.layers.Layer):
        raise InputError(
            f"expected a Keras layer or model, received {type(layer).__name__}"
        )


def check_fits(
    layer: keras.layers.Layer, args: Sequence, kwargs: Mapping, expected: tf.Tensor
) -> None:
    """InputError unless `layer` gives a tensor of the shape and dtype of `expected`.

    A layer that is not built yet is tried as a copy: a refused layer stays untouched.
    """
    maker = _keras.maker(expected).name
    try:
        outputs = _keras.flatten(_trial(layer)(*args, **kwargs))
    except (ValueError, TypeError) as error:
        raise InputError(
            f'layer "{layer.name}" cannot be called where "{maker}" gives '
            f"{describe(expected)}: {_first_line(error)}"
        ) from error
    if len(outputs) != 1 or not alike(outputs[0], expected):
        raise other_output(layer, outputs, expected)


def other_output(
    layer: keras.layers.Layer, outputs: Sequence, expected: tf.Tensor
) -> InputError:
    """The error for a layer whose outputs cannot stand where `expected` is."""
    return InputError(
        f'layer "{layer.name}" gives {", ".join(map(describe, outputs))} where what '
        f'follows "{_keras.maker(expected).name}" expects {describe(expected)}: shape '
        "and dtype must stay"
    )


def only_tensor(layer: keras.layers.Layer, outputs: Any) -> tf.Tensor:
    """The tensor that a layer gave; InputError unless it is one."""
    tensors = _keras.flatten(outputs)
    if len(tensors) != 1 or not _is_tensor(tensors[0]):
        raise InputError(
            f'layer "{layer.name}" gives {", ".join(map(describe, tensors)) or None}: '
            "expected a layer of one output"
        )
    return tensors[0]


def _first_line(error) -> str:
    """The first line of Keras' message that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useful = [line for line in lines if not line.startswith("Exception encountered")]
    return (useful or lines or [type(error).__name__])[0]


def _trial(layer) -> keras.layers.Layer:
    if layer.built:
        return layer
    try:
        return type(layer).from_config(layer.get_config())
    except (NotImplementedError, TypeError, ValueError):
        return layer  # Not every layer can be copied: a Lambda, one without a config.
