"""FreeAT and FreeLB: each backward pass serves the weights and the perturbation."""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from tiedbert.adversarial.argument_rules import (
    COUNT,
    NORM,
    RADIUS,
    STEP_SIZE,
    SWITCH,
    argument,
)
from tiedbert.adversarial.attacks import step_size_of
from tiedbert.adversarial.method import Method, Passes
from tiedbert.adversarial.results import StepResult
from tiedbert.adversarial.step import Step


@dataclass(frozen=True)
class FreeAT(Method):
    """Free adversarial training: one backward pass for the weights and the delta.

    Each batch is replayed `replays` times: in a replay the weights take an optimizer
    step at the present ``delta``, and ``delta <- project(delta + epsilon * g / ||g||)``
    with the gradient of the same pass. Each batch starts at zero: texts of two batches
    have different numbers of tokens, so ``delta`` is not carried over as it is for
    images.

    Args:
        epsilon: radius and step size per example, in units of the hidden state: a
            number >= 0, or a function of the step like
            :class:`tiedbert.adversarial.WarmUp`; 1.0 by default.
        replays: optimizer steps per batch, >= 1; 3 by default. Divide the number of
            epochs by it for equal compute.
        norm: ``"l2"`` (the default), ``"linf"`` or ``"l2_per_token"``, of each example.
        relative: whether radius and step size are in units of the root mean square of
            the hidden state of the example; False by default.

    Source: Shafahi et al., "Adversarial training for free!", 2019, algorithm 1.

    Cost: `replays` training steps, for as many optimizer steps.

    Example:
        >>> FreeAT(epsilon=0.5).replays
        3
    """

    epsilon: float | Callable = argument(RADIUS, 1.0)
    replays: int = argument(COUNT, 3)
    norm: str = argument(NORM, "l2")
    relative: bool = argument(SWITCH, False)

    def passes(self, first_block: float = 1.0) -> Passes:
        """The cost of one training step."""
        return Passes(self.replays)

    def train(self, step: Step) -> StepResult:
        """Make one optimizer step per replay."""
        delta, losses, failed = None, [], 0.0
        for replay in range(self.replays):
            if replay:
                step.update()
            learned = step.learn_at(delta)
            losses.append(learned.loss)
            ball = step.ball(self)
            used = ball.zeros() if delta is None else delta
            if replay < self.replays - 1:
                found = ball.step(delta, learned.gradient, failed=failed)
                delta = [tf.stop_gradient(d) for d in found.delta]
                failed = found.failed
        mean = tf.add_n(losses) / len(losses)
        return StepResult(mean, losses[-1], ball.size(used), failed)


@dataclass(frozen=True)
class FreeLB(Method):
    """Free large-batch training: the weights learn from every step of the ascent.

    ``delta`` starts at random; in each of `steps` passes the gradient of the weights
    counts ``1 / steps``, and ``delta <- project(delta + step_size * g / ||g||)`` with
    the gradient of the same pass. All passes of a step have the same dropout.

    Args:
        epsilon: radius per example, in units of the hidden state: a number >= 0, or a
            function of the step like :class:`tiedbert.adversarial.WarmUp`; 1.0 by
            default.
        steps: passes with a perturbation, >= 1; 3 by default.
        step_size: of each step, in the norm and unit of `epsilon`; None (the default):
            2.5 epsilon / steps.
        random_start: True (the default): start at random. False: start at zero.
        clean: whether one more pass, unperturbed, counts with the others; False by
            default.
        norm: ``"l2"`` (the default), ``"linf"`` or ``"l2_per_token"``, of each example.
        relative: whether radius and step size are in units of the root mean square of
            the hidden state of the example; False by default.

    Source: Zhu et al., "FreeLB: Enhanced adversarial training for natural language
    understanding", 2020, algorithm 1.

    Cost: `steps` training steps, one more with `clean`.

    Example:
        >>> FreeLB(epsilon=0.5, steps=2).same_dropout
        True
    """

    epsilon: float | Callable = argument(RADIUS, 1.0)
    steps: int = argument(COUNT, 3)
    step_size: float | None = argument(STEP_SIZE, None)
    random_start: bool = argument(SWITCH, True)
    clean: bool = argument(SWITCH, False)
    norm: str = argument(NORM, "l2")
    relative: bool = argument(SWITCH, False)

    same_dropout = True

    def passes(self, first_block: float = 1.0) -> Passes:
        """The cost of one training step."""
        return Passes(self.steps + self.clean)

    def train(self, step: Step) -> StepResult:
        """Make one training step."""
        ball = step.ball(self)
        step_size = step_size_of(self, ball, self.steps)
        scale = 1.0 / (self.steps + self.clean)
        losses = [step.learn_at(None, scale).loss] if self.clean else []
        delta, failed = (ball.random() if self.random_start else None), 0.0
        for i in range(self.steps):
            learned = step.learn_at(delta, scale)
            losses.append(learned.loss)
            used = ball.zeros() if delta is None else delta
            if i < self.steps - 1:
                found = ball.step(delta, learned.gradient, step_size, failed)
                delta = [tf.stop_gradient(d) for d in found.delta]
                failed = found.failed
        loss = tf.add_n(losses) * scale
        return StepResult(loss, losses[-1], ball.size(used), failed)
