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
from tiedbert.adversarial.attacks import ascend, step_size_of
from tiedbert.adversarial.method import Method, Passes
from tiedbert.adversarial.perturbation_ball import Ball, Perturbation
from tiedbert.adversarial.results import StepResult
from tiedbert.adversarial.step import Step
from tiedbert.errors import InputError

FIRST_BLOCK = "Transformer-0-FeedForward-Norm"
_CUT = Rule(
    "the name of a cut point or None",
    lambda value: value is None or isinstance(value, str),
)


@dataclass(frozen=True)
class YOPO(Method):
    """You only propagate once: YOPO-m-n, with m = `outer` and n = `inner`.

    The model behind the cut point is a first block ``f`` and the rest ``g``. In each of
    `outer` passes both run once, at ``delta``: ``g`` learns, and the adjoint ``p``, the
    gradient of the loss with respect to the output of ``f``, is stored. Then `inner`
    steps of ascent climb ``<p, f(h + delta)>``, which needs the block alone. At the
    ``delta`` reached, the block and the part before it learn from the same product.

    With ``inner=1`` each step follows the true gradient, because ``p`` is exact where
    it was computed: ``delta`` takes the same steps as in FreeLB, and ``g`` learns the
    same.

    Args:
        epsilon: radius per example, in units of the hidden state: a number >= 0, or a
            function of the step like :class:`tiedbert.adversarial.WarmUp`; 1.0 by
            default.
        outer: passes through block and rest, >= 1; 1 by default.
        inner: steps of ascent after each of them, >= 1; 3 by default.
        step_size: of each step, in the norm and unit of `epsilon`; None (the default):
            2.5 epsilon / (outer * inner).
        random_start: True (the default): start at random. False: start at zero.
        until: name of the cut point that ends the first block; None (the default):
            that of a bert4keras model, ``"Transformer-0-FeedForward-Norm"``.
        norm: ``"l2"`` (the default), ``"linf"`` or ``"l2_per_token"``, of each example.
        relative: whether radius and step size are in units of the root mean square of
            the hidden state of the example; False by default.

    Source: Zhang et al., "You only propagate once: accelerating adversarial training
    via maximal principle", 2019, algorithm 1, and the authors' code for when the
    weights of the first block learn.

    Cost: `outer` training steps, and for each of them ``(2 inner + 1) / 3`` training
    steps of the first block alone.

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

    def second_cut(self) -> str:
        """The cut point at the end of the first block."""
        return FIRST_BLOCK if self.until is None else self.until

    def passes(self, first_block: float = 1.0) -> Passes:
        """The cost of one training step; steps of ascent run the first block alone."""
        block = self.outer * first_block
        return Passes(self.outer, ascending=block * self.inner, forward=block)

    def train(self, step: Step) -> StepResult:
        """Make one training step."""
        if step.later_points:
            raise InputError(
                "YOPO climbs through one block: the cut points must be at its "
                f"beginning, received {step.later_points} that depend on another"
            )
        ball = step.ball(self)
        delta = ball.random() if self.random_start else None
        losses, failed = [], 0.0
        for _ in range(self.outer):
            used = ball.zeros() if delta is None else delta
            block = step.run_first(delta)
            learned = step.learn_rest(block, delta, 1.0 / self.outer)
            losses.append(learned.loss)
            adjoint = learned.gradient
            found = self._ascend(step, ball, delta, adjoint, failed)
            delta, failed = [tf.stop_gradient(d) for d in found.delta], found.failed
            with step.record() as tape:
                product = _product(step, delta, adjoint)
            step.learn_scaled(tape, product)
        loss = tf.add_n(losses) / self.outer
        return StepResult(loss, losses[-1], ball.size(used), failed)

    def _ascend(
        self, step: Step, ball: Ball, delta: list | None, adjoint: list, failed
    ) -> Perturbation:
        """The `inner` steps of ascent from `delta`."""

        def gradient(delta):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(step.first_hidden)
                product = _product(step, delta, adjoint)
            return tape.gradient(product, step.first_hidden)

        step_size = step_size_of(self, ball, self.outer * self.inner)
        return ascend(gradient, ball, delta, self.inner, step_size, failed)


def _product(step, delta, adjoint):
    """``<p, f(h + delta)>``, float32 scalar; the adjoint has the scale of the loss."""
    pairs = zip(adjoint, step.run_first(delta).differentiable(), strict=True)
    terms = [
        tf.reduce_sum(tf.cast(p, tf.float32) * tf.cast(f, tf.float32))
        for p, f in pairs
        if p is not None
    ]
    return tf.add_n(terms)
