"""Whether the two parts of a cut do what the model does: run once, to the bit."""

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError, reason
from tiedbert.surgery.masks.run import SIZES, filled


def check_composes(model: keras.Model, front: keras.Model, rest: keras.Model) -> str:
    """Compare ``rest(front(x))`` with ``model(x)`` on made-up inputs.

    Args:
        model: a functional model.
        front: the part of it before a cut.
        rest: the part behind the cut.

    Returns:
        ``""``, or why they could not be compared: the model itself does not run on the
        inputs that were made up, or its outputs differ between two runs.

    Raises:
        InputError: the parts fail, or their outputs are not those of the model.
    """
    inputs, _ = _keras.structures(_keras.functional(model))
    why = ""
    for batch, size in SIZES[1:]:
        try:
            expected, again = (
                _keras.flatten(model(_made_up(inputs, batch, size))) for _ in range(2)
            )
        except Exception as error:  # whatever a user's layer raises
            why = why or f"it does not run on made-up inputs: {reason(error)}"
            continue
        if not all(map(_same, expected, again)):
            return "its outputs differ between two runs on the same inputs"
        try:
            found = _keras.flatten(rest(front(_made_up(inputs, batch, size))))
        except Exception as error:
            raise InputError(
                f"the parts of model {model.name!r} do not compose at this cut: "
                f"{reason(error)}"
            ) from error
        names = _keras.output_names(model)
        for name, a, b in zip(names, found, expected, strict=True):
            if not _same(a, b):
                raise InputError(
                    f"the parts of model {model.name!r} give another {name!r} than the "
                    "model at this cut, so nothing is written: cut elsewhere, and "
                    "please report it"
                )
        return ""
    return why


def _made_up(inputs: Any, batch: int, size: int) -> Any:
    """Values for symbolic inputs: numbers; for integers 1, and then padding (0)."""

    def value(tensor):
        shape = filled(tensor.shape, batch, size)
        return _as_stored(tensor, tf.cast(_numbers(tensor, shape), tensor.dtype))

    return _keras.map_structure(value, inputs)


def _numbers(tensor, shape) -> Any:
    dtype = tf.as_dtype(tensor.dtype)
    if dtype == tf.string:
        return tf.fill(shape, "a b")
    if dtype.is_floating:
        return np.random.default_rng(0).normal(size=shape)
    numbers = np.ones(shape, "int32")
    if shape:
        numbers[..., (shape[-1] + 1) // 2 :] = 0
    return numbers


def _as_stored(tensor, value) -> Any:
    """A value as a sparse or ragged tensor, where `tensor` is one."""
    storage = _keras.sparse_or_ragged(tensor)
    if "sparse" in storage:
        return tf.sparse.from_dense(value)
    return tf.RaggedTensor.from_tensor(value) if "ragged" in storage else value


def _same(found, expected) -> bool:
    """Whether two outputs are the same bits; tensors of Keras 3 may be None."""
    if found is None or expected is None:
        return found is expected
    return all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        for a, b in zip(_arrays(found), _arrays(expected), strict=True)
    )


def _arrays(value) -> list:
    parts = tf.nest.flatten(value, expand_composites=True)
    return [np.asarray(part) for part in parts]
