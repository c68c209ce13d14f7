"""YOPO: steps of ascent through the first block alone."""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from tiedbert.adversarial.argument_rules import (
    COUNT,
    NORM,
    RADIUS,
    STEP_SIZE,
    SWITCH,
    Rule,
    argument,
)
from tiedbert.adversarial.attacks import ascend, step_length
from tiedbert.adversarial.method import Method, Passes
from tiedbert.adversarial.step import Trained
from tiedbert.errors import InputError

FIRST_BLOCK = "Transformer-0-FeedForward-Norm"
_CUT = Rule(
    "the name of a cut point or None",
    lambda value: value is None or isinstance(value, str),
)


@dataclass(frozen=True)
class YOPO(Method):
    """You only propagate once: YOPO-m-n, with m = `outer` and n = `inner`.

    The model after the cut point is a first block ``f`` and the rest ``g``. In each of
    `outer` passes, all of it runs once, at ``delta``: ``g`` learns, and the gradient
    ``p`` of the loss with respect to what ``f`` gives is kept. Then `inner` steps climb
    ``<p, f(h + delta)>``, which needs the block alone, and the block and what is
    before it learn from that same product at the ``delta`` reached.

    With ``inner=1`` each step follows the true gradient, as ``p`` is exact where it
    was found: ``delta`` goes the way of FreeLB, and ``g`` learns what it learns there.

    Args:
        epsilon: radius per example, in units of the hidden state: a number, or a
            function of the step like :class:`tiedbert.adversarial.WarmUp`.
        outer: passes through the whole.
        inner: steps of ascent after each of them.
        step_size: length of a step, in the same norm and unit; None: 2.5 epsilon /
            (outer * inner).
        random_start: whether to start at random, else at zero.
        until: the cut point that ends the first block; None: that of a bert4keras
            model, ``"Transformer-0-FeedForward-Norm"``.
        norm: ``"l2"``, ``"linf"`` or ``"l2_per_token"``, of each example.
        relative: whether lengths are in units of the root mean square of the hidden
            state of the example.

    Source: Zhang et al., "You only propagate once: accelerating adversarial training
    via maximal principle", 2019, algorithm 1, and the authors' code for when the
    weights of the first block learn.

    Cost: `outer` training steps, and for each of them ``(2 inner + 1) / 3`` of the
    share that the first block has in one.

    Example:
        >>> YOPO(outer=1, inner=3).until is None
        True
    """

    epsilon: float | Callable = argument(RADIUS, 1.0)
    outer: int = argument(COUNT, 1)
    inner: int = argument(COUNT, 3)
    step_size: float | None = argument(STEP_SIZE, None)
    random_start: bool = argument(SWITCH, True)
    until: str | None = argument(_CUT, None)
    norm: str = argument(NORM, "l2")
    relative: bool = argument(SWITCH, False)

    def second_cut(self):
        """The cut point behind the first block."""
        return FIRST_BLOCK if self.until is None else self.until

    def passes(self, first_block=1.0) -> Passes:
        """What a step costs: the steps of ascent run the first block alone."""
        block = self.outer * first_block
        return Passes(self.outer, ascending=block * self.inner, forward=block)

    def train(self, step) -> Trained:
        """One training step."""
        if any(step.cut.widths[1:]):
            raise InputError(
                "YOPO climbs through one block: the cut points must be at its "
                f"beginning, received {sum(step.cut.widths)} of which one depends on "
                "another"
            )
        ball = step.ball(self)
        delta = ball.random() if self.random_start else None
        losses, failed = [], 0.0
        for _ in range(self.outer):
            used = ball.zeros() if delta is None else delta
            loss, slack = self._whole(step, delta)
            moved = self._ascent(step, ball, delta, slack, failed)
            delta = [tf.stop_gradient(d) for d in moved.delta]
            step.learn_scaled(lambda: _product(step, delta, slack))  # noqa: B023
            losses.append(loss)
            failed = moved.failed
        loss = tf.add_n(losses) / self.outer
        return Trained(loss, losses[-1], ball.size(used), failed)

    def _whole(self, step, delta):
        """Let the rest learn at `delta`: its loss, and the gradient that leaves it."""
        block = step.run_first(delta)
        kept = []

        def loss():
            kept.append(step.run_rest(block))
            value = step.loss(kept[0])
            if delta is None and step.clean is None:
                step.clean = value
            return value

        crossing = _differentiable(block)
        learned = step.learn(loss, 1.0 / self.outer, lambda: crossing, watch=crossing)
        return learned.loss, learned.gradient

    def _ascent(self, step, ball, delta, slack, failed):
        def gradient(delta):
            points = step.crossing[: step.cut.widths[0]]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(points)
                value = _product(step, delta, slack)
            return tape.gradient(value, points)

        length = step_length(self, ball, self.outer * self.inner)
        return ascend(gradient, ball, delta, self.inner, length, failed)


def _product(step, delta, slack):
    """``<p, f(h + delta)>``, float32 scalar; `slack` is scaled as the loss is."""
    block = step.run_first(delta)
    pairs = zip(slack, _differentiable(block), strict=True)
    terms = [
        tf.reduce_sum(tf.cast(p, tf.float32) * tf.cast(f, tf.float32))
        for p, f in pairs
        if p is not None
    ]
    return tf.add_n(terms)


def _differentiable(block) -> list:
    """What the loss depends on: what crosses to the rest, and the block's penalties."""
    return [t for t in block.outputs if t.dtype.is_floating] + block.losses
