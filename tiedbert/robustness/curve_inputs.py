"""Checks of what a curve of accuracy under attack is given."""

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.adversarial.argument_rules import is_count
from tiedbert.adversarial.cut_model import OneOf
from tiedbert.errors import InputError


def radii(epsilons: Any) -> list[float]:
    """The radii as floats; InputError unless they are numbers >= 0."""
    try:
        given = np.asarray(list(epsilons))
    except (TypeError, ValueError):
        given = np.asarray(None)
    if given.dtype.kind not in "iuf" or given.ndim != 1 or not given.size:
        raise InputError(
            "robustness.curve expected epsilons: a list of one number >= 0 or more; "
            f"received {epsilons!r}"
        )
    for epsilon in given:
        if not 0 <= epsilon < np.inf:
            raise InputError(
                "robustness.curve expected epsilons: numbers >= 0, the radii of a "
                f"ball; received {epsilon}"
            )
    return [float(epsilon) for epsilon in given]


def check(dataset: Any, at: Any, method: Any, restarts: Any) -> None:
    """InputError for an argument of `curve` of another kind."""
    if not hasattr(method, "attack"):
        raise InputError(
            f"robustness.curve expected an attack such as FGM() or PGD(), received "
            f"{method!r}"
        )
    if not is_count(restarts):
        raise InputError(
            f"robustness.curve expected restarts >= 1, received {restarts!r}"
        )
    if isinstance(at, OneOf):
        raise InputError(
            f"robustness.curve attacks every point given, received {at}: give a list"
        )
    if not isinstance(dataset, tf.data.Dataset):
        raise InputError(
            "robustness.curve expected a tf.data.Dataset of batches, received a "
            f"{type(dataset).__name__}: make one of arrays by tf.data.Dataset."
            "from_tensor_slices((inputs, labels)).batch(32)"
        )
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise InputError(
            "robustness.curve expected a dataset of (inputs, labels), received one of "
            f"{spec}: without labels there is no accuracy"
        )


def unpack_batch(
    batch: tuple, model: keras.Model
) -> tuple[Any, np.ndarray, np.ndarray]:
    """A batch as its inputs, labels ``[batch]`` and weights ``[batch]``, NumPy.

    Args:
        batch: ``(inputs, labels)`` or ``(inputs, labels, sample_weight)``, NumPy.
        model: the classifier.

    Raises:
        InputError: labels or weights that do not fit the output of the model.
    """
    inputs, labels, *rest = batch
    labels = _column(labels, "int labels [batch]")
    classes = _classes(model)
    whole = labels.dtype.kind in "iu" or np.all(labels == np.floor(labels))
    if not whole or (labels < 0).any() or (labels >= classes).any():
        raise InputError(
            f"robustness.curve expected int labels from 0 to {classes - 1}, received "
            f"from {labels.min()} to {labels.max()}: leave out examples without a label"
        )
    _check_batched(inputs, model)
    weights = np.ones(len(labels))
    if rest:
        weights = _column(rest[0], "sample weights [batch]")
    fits = weights.shape == labels.shape and (weights >= 0).all()
    if not fits or np.isinf(weights).any():
        raise InputError(
            "robustness.curve expected sample weights [batch], finite and >= 0, one "
            f"for each example; received {weights.shape} for labels {labels.shape}"
        )
    return inputs, labels, weights


def _column(values, what):
    """Values ``[batch]`` or ``[batch, 1]`` as ``[batch]``; InputError for others."""
    values = np.asarray(values)
    if values.ndim == 0 and values.dtype.kind in "iuf":
        raise InputError(
            "robustness.curve expected batches, received examples without a batch "
            "axis: give it dataset.batch(32)"
        )
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iufb":
        raise InputError(
            f"robustness.curve expected {what} and one output [batch, classes], "
            f"received {values.dtype} {values.shape}"
        )
    return values


def _classes(model) -> float:
    """The number of classes of a model; infinite where its output does not tell."""
    outputs = _keras.functional(model).outputs
    shape = outputs[0].shape
    if len(outputs) != 1 or len(shape) != 2 or shape[-1] == 1:
        raise InputError(
            "robustness.curve expected a model with one output [batch, classes], "
            f"received {', '.join(str(tuple(x.shape)) for x in outputs)}"
        )
    return np.inf if shape[-1] is None else shape[-1]


def _check_batched(inputs, model):
    """InputError for inputs with an axis less than the model declares."""
    for value, declared in zip(tf.nest.flatten(inputs), model.inputs, strict=False):
        short = value.ndim < len(declared.shape) and declared.shape[-1] != 1
        if short and not isinstance(inputs, dict):
            raise InputError(
                f"robustness.curve expected batches of {tuple(declared.shape)}, "
                f"received {value.shape}: give it dataset.batch(32)"
            )
