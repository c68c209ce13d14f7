"""A model in inference mode, under an attack of its activations."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.adversarial.cut_model import CutModel
from tiedbert.adversarial.norms import finite
from tiedbert.adversarial.perturbation_ball import Ball
from tiedbert.errors import InputError


class Outcome(NamedTuple):
    """What an attack did to a batch.

    Attributes:
        right: bool ``[batch]``, whether the answer is right under the attack.
        stuck: bool ``[batch]``, whether the first gradient of the attack is exactly 0
            or not finite, so that it cannot move the example.
    """

    right: tf.Tensor
    stuck: tf.Tensor


class AttackedModel:
    """A model in inference mode whose activations at a cut are attacked.

    Args:
        model: a functional classifier, compiled with a loss.
        cut: the model cut at the points that are attacked.
        method: an attack.

    Raises:
        InputError: a model without a loss.
    """

    def __init__(self, model: keras.Model, cut: CutModel, method: Any):
        self._cut, self._method, self._loss = cut, method, _loss_of(model)

    def right(self, inputs: Any, labels: tf.Tensor) -> tf.Tensor:
        """Which answers are right unperturbed, bool ``[batch]``."""
        return self._batch(inputs, labels).right()

    def attack(self, inputs: Any, labels: tf.Tensor, epsilon: tf.Tensor) -> Outcome:
        """Attack every example of a batch once.

        Args:
            inputs: those of the model.
            labels: int ``[batch]``.
            epsilon: the radius, float32 scalar.
        """
        batch, method = self._batch(inputs, labels), self._method
        hidden, masks, at_zero = batch.at_zero()

        def gradient(delta):
            return at_zero if delta is None else batch.gradient(delta)

        ball = Ball(method.norm, epsilon, method.relative, hidden, masks)
        delta, first_gradient = _attack(method, gradient, ball)
        right = batch.right(delta)
        return Outcome(right, _no_direction(first_gradient, right))

    def _batch(self, inputs, labels):
        return _Batch(self._cut, self._loss, inputs, labels)


class _Batch:
    """Examples with their labels, in a model that runs in inference mode."""

    def __init__(self, cut, loss, inputs, labels):
        self._cut, self._loss, self._labels = cut, loss, labels
        self._inputs = cut.shaped(inputs)
        self._crossing = _keras.call(cut.front, self._inputs, training=False)

    def right(self, delta=None):
        """Which answers are right at a perturbation, bool ``[batch]``."""
        return _is_right(self._run(delta)[0], self._labels)

    def at_zero(self) -> tuple:
        """The tensors at the cut points, their masks, and the gradient of the loss."""
        # TensorFlow drops the gradient from the graph if the attack does not use it.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([x for x in self._crossing if x.dtype.is_floating])
            outputs, hidden, masks = self._run(None)
            loss = self._loss(self._inputs, self._labels, outputs)
        return hidden, masks, tape.gradient(loss, hidden)

    def gradient(self, delta) -> list:
        """The gradient of the loss at a perturbation."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(delta)
            loss = self._loss(self._inputs, self._labels, self._run(delta)[0])
        return tape.gradient(loss, delta)

    def _run(self, delta) -> tuple:
        return self._cut.run(self._inputs, self._crossing, delta, self._call)

    def _call(self, i, tensors):
        return _keras.call(self._cut.behind[i], tensors, training=False)


def _attack(method: Any, gradient: Callable, ball: Ball) -> tuple[list, list]:
    """The perturbation that an attack finds, and the first gradient that it asked for.

    The gradient is an empty list if the attack asked for none, or only in loops: what
    is computed inside a loop is not available outside it.
    """
    graph, first_gradient = tf.compat.v1.get_default_graph(), []

    def recorded(delta):
        found = gradient(delta)
        if not first_gradient and tf.compat.v1.get_default_graph() is graph:
            first_gradient.extend(found)
        return found

    return method.attack(recorded, ball).delta, first_gradient


def _no_direction(gradients, like):
    """Of which examples all gradients are 0, or one is not finite, bool ``[batch]``."""
    given = [g for g in gradients if g is not None]
    if not given:
        return tf.zeros_like(like)
    zero = [tf.reduce_all(tf.equal(g, 0), range(1, g.shape.rank)) for g in given]
    broken = [~finite(g) for g in given]
    return tf.reduce_all(zero, axis=0) | tf.reduce_any(broken, axis=0)


def _is_right(outputs, labels):
    """Where the largest output is that of the label, bool ``[batch]``."""
    answers = tf.argmax(outputs, axis=-1, output_type=tf.int64)
    # Outputs that are not finite are no answer, though argmax would name a class.
    ok = tf.reduce_all(tf.math.is_finite(outputs), axis=-1)
    return ok & (answers == tf.cast(labels, tf.int64))


def _loss_of(model):
    """The loss that a model was compiled with, a function of a batch and outputs."""
    compiled = _keras.is_compiled(model)
    if not compiled or _keras.given_losses(model)[0] is None:
        raise InputError(
            "robustness.curve needs a compiled model: the attack raises the loss given "
            "to model.compile(loss=...)"
        )

    def loss(inputs, labels, outputs):
        return model.compute_loss(x=inputs, y=labels, y_pred=outputs)

    return loss
