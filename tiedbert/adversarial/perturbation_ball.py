"""Where the perturbations of one batch may be, and how they move there."""

import copy
from typing import Any, NamedTuple

import tensorflow as tf

from tiedbert.adversarial.norms import NORMS, finite, per_example, restrict, rms
from tiedbert.errors import InputError


class Moved(NamedTuple):
    """Perturbations after a step of ascent.

    Attributes:
        delta: list of float32 tensors, one per point.
        failed: float32 ``[batch]``, 1.0 for an example of which a gradient was not
            finite: it is not perturbed.
    """

    delta: list
    failed: Any


class Ball:
    """The perturbations that a method allows: one ball per example and point.

    Args:
        norm: ``"l2"``, ``"linf"`` or ``"l2_per_token"``, of each example.
        epsilon: the radius, float or scalar tensor.
        relative: whether lengths are in units of the root mean square of the hidden
            state of the example.
        hidden: list of the tensors to perturb, ``[batch, ...]``, one per point.
        perturbation_mask: for each point bool ``[batch, time]`` or None.
        chosen: for each point float scalar, 1.0 where it is perturbed in this step and
            0.0 where it is not; None: all are.
    """

    def __init__(self, norm, epsilon, relative, hidden, perturbation_mask, chosen=None):
        self._norm = NORMS[norm]
        self._hidden, self._positions = hidden, perturbation_mask
        places = zip(hidden, perturbation_mask, strict=True)
        self._units = [
            rms(h, p) if relative else tf.ones(tf.shape(h)[:1]) for h, p in places
        ]
        if chosen is not None:
            pairs = zip(self._units, chosen, strict=True)
            self._units = [unit * share for unit, share in pairs]
        self._set_radius(epsilon)

    def resized(self, epsilon):
        """The same ball with another radius."""
        other = copy.copy(self)
        other._set_radius(epsilon)
        return other

    def zeros(self) -> list:
        """No perturbation."""
        return [tf.zeros(tf.shape(hidden)) for hidden in self._hidden]

    def random(self) -> list:
        """Draws within the ball."""
        places = zip(self._hidden, self._positions, self._radii, strict=True)
        return [
            restrict(per_example(r, h) * self._norm.random(h, p), p)
            for h, p, r in places
        ]

    def normal(self, length=None) -> list:
        """Normal draws of standard deviation `length` (epsilon), not cut off."""
        return [
            restrict(per_example(r, h) * tf.random.normal(tf.shape(h)), p)
            for h, p, r in zip(
                self._hidden, self._positions, self._lengths(length), strict=True
            )
        ]

    def step(self, delta, gradient, length=None, failed=0.0) -> Moved:
        """`delta` (None: none yet) moved up `gradient` by `length`, into the ball.

        An example whose gradient is not finite is not perturbed, and no more in a later
        step that is told so: `failed` of the one before.
        """
        delta = [None] * len(self._hidden) if delta is None else delta
        pairs = zip(map(checked, gradient), self._positions, strict=True)
        gradient = [restrict(tf.cast(g, tf.float32), p) for g, p in pairs]
        ok = tf.reduce_all([finite(g) for g in gradient], axis=0)
        ok &= tf.equal(failed, 0.0)
        moved = []
        for i, (start, g) in enumerate(zip(delta, gradient, strict=True)):
            keep, zeros = per_example(ok, g), tf.zeros_like(g)
            way = self._norm.direction(tf.where(keep, g, zeros))
            way *= per_example(self._lengths(length)[i], g)
            if start is None:
                # A step of the radius is in the ball: projected, it might round.
                end = way if length is None else self._project(way, i)
            else:
                end = self._project(start + way, i)
            moved.append(tf.where(keep, end, zeros))
        return Moved(moved, tf.cast(~ok, tf.float32))

    def size(self, delta):
        """The norm of each example, float32 ``[batch]``; of several points the largest.

        In units of the hidden state where the radius is.
        """
        sizes = [
            tf.math.divide_no_nan(self._norm.size(d), unit)
            for d, unit in zip(delta, self._units, strict=True)
        ]
        return tf.reduce_max(tf.stack(sizes), axis=0)

    def _set_radius(self, epsilon):
        self.epsilon = tf.cast(epsilon, tf.float32)
        self._radii = [self.epsilon * unit for unit in self._units]

    def _project(self, delta, i):
        return self._norm.project(delta, self._radii[i])

    def _lengths(self, length) -> list:
        if length is None:
            return self._radii
        return [tf.cast(length, tf.float32) * unit for unit in self._units]


def checked(gradient):
    """The gradient; InputError when there is none."""
    if gradient is None:
        raise InputError(
            "the loss does not depend on the cut point, or not differentiably: choose "
            "another one"
        )
    return gradient


def repeat(times, function, moved):
    """`function` applied `times` times to a :class:`Moved`, traced once at most."""
    if times <= 1:
        return function(moved) if times else moved
    flat = [*moved.delta, moved.failed]

    def body(i, *state):
        new = function(Moved(list(state[:-1]), state[-1]))
        return (i + 1, *new.delta, new.failed)

    shapes = [tf.TensorShape([]), *(tensor.shape for tensor in flat)]
    _, *flat = tf.while_loop(
        lambda i, *_: i < times, body, (0, *flat), shape_invariants=tuple(shapes)
    )
    return Moved(flat[:-1], flat[-1])
