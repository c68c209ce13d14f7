"""Cuts everywhere: the whole model tells to the last bit what the halves must give."""

from functools import partial

import numpy as np
import tensorflow as tf

from tiedbert import _keras
from tiedbert.surgery import split
from tiedbert.surgery.graph import Graph


def cut_points(model):
    """Every tensor of `model` that can be perturbed, its inputs among them.

    Except those that nothing uses, as the attention scores of a last block.
    """
    graph = Graph(model)
    made = [tensor for call in graph.calls for tensor in call.outputs]
    used = {id(tensor) for call in graph.calls for tensor in call.inputs}
    used.update(id(tensor) for tensor in graph.output_tensors)
    return [
        tensor
        for tensor in graph.input_tensors + made
        if id(tensor) in used and "bool" not in str(tensor.dtype)
    ]


def cut_at_all(model, inputs, points):
    """Compare the two halves with the whole, for a cut at each of `points`.

    Returns ``(inexact, unused)``: the points at which the halves give something else,
    with the largest difference; and those whose values turn out not to matter, where
    being exact proves nothing.
    """
    expected = tf.nest.flatten(model(inputs))
    assert all(np.isfinite(value).all() for value in expected)
    inexact, unused = {}, []
    for at in points:
        front, rest = split(model, at)
        hidden, *context = front(inputs)
        # Arithmetic drops the masks that Keras keeps for itself.
        for value in (hidden, hidden + tf.zeros_like(hidden)):
            error = difference(rest([value, *context]), expected)
            if error != 0.0:
                inexact[name_of(at)] = error
        backwards = tf.reverse(hidden, range(hidden.shape.rank))
        if difference(rest([backwards, *context]), expected) == 0.0:
            unused.append(name_of(at))
    return inexact, unused


def cut_in_training(model, inputs, points):
    """The same in training, when dropout draws and normalization keeps statistics.

    Returns the points at which the halves, with the random numbers of the whole, give
    or leave behind something else.
    """
    state = [(variable, variable.numpy()) for variable in model.non_trainable_variables]

    def run(function):
        tf.random.set_seed(
            3
        )  # Keras 2 draws from here, Keras 3 from a state of its own
        for variable, value in state:
            variable.assign(value)
        outputs = tf.nest.flatten(function())
        return outputs + [variable.numpy() for variable, _ in state]

    expected = run(lambda: model(inputs, training=True))
    assert difference(run(lambda: model(inputs)), expected) != 0.0
    inexact = {}
    for at in points:
        front, rest = split(model, at)
        found = run(partial(_both, front, rest, inputs))
        error = difference(found, expected)
        if error != 0.0:
            inexact[name_of(at)] = error
    return inexact


def _both(front, rest, inputs):
    return rest(front(inputs, training=True), training=True)


def difference(found, expected):
    """The largest difference between two structures of arrays; NaN if one holds NaN."""
    pairs = zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True)
    errors = []
    for a, b in pairs:
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        errors.append(np.max(np.abs(a - b)))
    return float(np.max(errors))


def name_of(point):
    """A cut point as a reader of a failed test would name it."""
    if isinstance(point, str):
        return point
    return f"{_keras.maker(point).name} {point.name}"
