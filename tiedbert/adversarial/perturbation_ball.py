"""The perturbations that a method allows in a batch, and steps of ascent in them."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tiedbert.adversarial.norms import NORMS, finite, per_example, restrict, rms
from tiedbert.errors import InputError


class Perturbation(NamedTuple):
    """What is added to the activations of a batch.

    Attributes:
        delta: list of float32 tensors ``[batch, ...]``, one per cut point.
        failed: float32 ``[batch]``, or 0.0: 1.0 for an example of which a gradient was
            not finite; it is not perturbed.
    """

    delta: list[tf.Tensor]
    failed: tf.Tensor | float


class Ball:
    """One ball per example and cut point, in which the perturbation must lie.

    Args:
        norm: ``"l2"``, ``"linf"``, ``"linf_scaled"`` or ``"l2_per_token"``, of each
            example.
        epsilon: the radius, float or float scalar tensor.
        relative: whether radius and step size are in units of the root mean square of
            the hidden state of the example.
        hidden: list of the tensors to perturb, ``[batch, ...]``, one per cut point.
        perturbation_mask: for each of them bool ``[batch, time]``, True where it may be
            perturbed; None: everywhere.
        chosen: for each of them a float scalar, 1.0 where it is perturbed in this step
            and 0.0 where it is not; None (the default): all are.

    Attributes:
        epsilon: the radius, float32 scalar.
    """

    def __init__(
        self,
        norm: str,
        epsilon: float | tf.Tensor,
        relative: bool,
        hidden: list[tf.Tensor],
        perturbation_mask: list[tf.Tensor | None],
        chosen: list | None = None,
    ):
        self._arguments = norm, relative, hidden, perturbation_mask, chosen
        self._norm = NORMS[norm]
        self._hidden, self._masks = hidden, perturbation_mask
        pairs = zip(hidden, perturbation_mask, strict=True)
        self._units = [
            rms(h, mask) if relative else tf.ones(tf.shape(h)[:1]) for h, mask in pairs
        ]
        if chosen is not None:
            pairs = zip(self._units, chosen, strict=True)
            self._units = [unit * factor for unit, factor in pairs]
        self.epsilon = tf.cast(epsilon, tf.float32)
        self._radii = [self.epsilon * unit for unit in self._units]

    def resized(self, epsilon: float | tf.Tensor) -> "Ball":
        """A ball that differs from this one in the radius alone."""
        norm, relative, hidden, perturbation_mask, chosen = self._arguments
        return Ball(norm, epsilon, relative, hidden, perturbation_mask, chosen)

    def zeros(self) -> list[tf.Tensor]:
        """The perturbation 0: list of float32 tensors like the hidden states."""
        return [tf.zeros(tf.shape(hidden)) for hidden in self._hidden]

    def random(self) -> list[tf.Tensor]:
        """A draw within the ball, as the norm defines it: list of float32 tensors."""
        triples = zip(self._hidden, self._masks, self._radii, strict=True)
        return [
            restrict(per_example(radius, h) * self._norm.random(h, mask), mask)
            for h, mask, radius in triples
        ]

    def normal(
        self, standard_deviation: float | tf.Tensor | None = None
    ) -> list[tf.Tensor]:
        """A normal draw, not projected into the ball: list of float32 tensors.

        Args:
            standard_deviation: float or scalar; None (the default): epsilon.
        """
        scales = self._in_units(standard_deviation)
        return [
            restrict(per_example(scale, h) * tf.random.normal(tf.shape(h)), mask)
            for h, mask, scale in zip(self._hidden, self._masks, scales, strict=True)
        ]

    def step(
        self,
        delta: list[tf.Tensor] | None,
        gradient: list[tf.Tensor],
        step_size: float | tf.Tensor | None = None,
        failed: tf.Tensor | float = 0.0,
    ) -> Perturbation:
        """Move `delta` up `gradient` by `step_size`, and project it into the ball.

        An example whose gradient is not finite is not perturbed now; pass `failed` on
        to keep it unperturbed.

        Args:
            delta: list of float32 tensors; None: zero.
            gradient: list of tensors like `delta`.
            step_size: in the norm and unit of the radius; None (the default): epsilon.
            failed: that of the step before, float32 ``[batch]``; 0.0 (the default):
                no example has failed yet.

        Raises:
            InputError: a gradient that is None.
        """
        deltas = [None] * len(self._hidden) if delta is None else delta
        pairs = zip(map(require_gradient, gradient), self._masks, strict=True)
        gradient = [restrict(tf.cast(g, tf.float32), mask) for g, mask in pairs]
        ok = tf.reduce_all([finite(g) for g in gradient], axis=0)
        ok &= tf.equal(failed, 0.0)
        ends = [
            self._end_of_step(i, start, g, step_size, ok)
            for i, (start, g) in enumerate(zip(deltas, gradient, strict=True))
        ]
        return Perturbation(ends, tf.cast(~ok, tf.float32))

    def _end_of_step(self, i, start, gradient, step_size, ok):
        """Where a step at point `i` ends; zero for examples that are not `ok`."""
        ok, zeros = per_example(ok, gradient), tf.zeros_like(gradient)
        direction = self._norm.direction(tf.where(ok, gradient, zeros))
        step = direction * per_example(self._in_units(step_size)[i], gradient)
        if start is not None:
            end = self._project(start + step, i)
        elif step_size is not None:
            end = self._project(step, i)
        else:
            # A step of the radius is in the ball: projected, it might round.
            end = step
        return tf.where(ok, end, zeros)

    def size(self, delta: list[tf.Tensor]) -> tf.Tensor:
        """The norm of each example, float32 ``[batch]``; of several points the largest.

        In units of the hidden state where the radius is.
        """
        sizes = [
            tf.math.divide_no_nan(self._norm.size(d), unit)
            for d, unit in zip(delta, self._units, strict=True)
        ]
        return tf.reduce_max(tf.stack(sizes), axis=0)

    def _project(self, delta, i):
        return self._norm.project(delta, self._radii[i])

    def _in_units(self, size) -> list:
        """A size (None: epsilon) for each point and example, float32 ``[batch]``."""
        if size is None:
            return self._radii
        return [tf.cast(size, tf.float32) * unit for unit in self._units]


def require_gradient(gradient: tf.Tensor | None) -> tf.Tensor:
    """The gradient; InputError when there is none."""
    if gradient is None:
        raise InputError(
            "a gradient of the loss with respect to the cut point was expected, and "
            "there is none: the loss does not depend on the cut point, or only "
            "through operations without a gradient; choose another one"
        )
    return gradient


def repeat(
    times: int,
    function: Callable[[Perturbation], Perturbation],
    perturbation: Perturbation,
) -> Perturbation:
    """Apply `function` `times` times, one after another; it is traced once at most."""
    if times <= 1:
        return function(perturbation) if times else perturbation
    flat = [*perturbation.delta, perturbation.failed]

    def body(i, *state):
        new = function(Perturbation(list(state[:-1]), state[-1]))
        return (i + 1, *new.delta, new.failed)

    shapes = [tf.TensorShape([]), *(tensor.shape for tensor in flat)]
    _, *flat = tf.while_loop(
        lambda i, *_: i < times, body, (0, *flat), shape_invariants=tuple(shapes)
    )
    return Perturbation(flat[:-1], flat[-1])
