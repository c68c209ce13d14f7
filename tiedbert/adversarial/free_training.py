"""Methods whose steps of ascent are steps of training too: FreeAT and FreeLB."""

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
from tiedbert.adversarial.attacks import step_length
from tiedbert.adversarial.method import Method, Passes
from tiedbert.adversarial.step import Trained


@dataclass(frozen=True)
class FreeAT(Method):
    """Free adversarial training: one backward pass moves the weights and the delta.

    Each batch is replayed: in a replay the weights take an optimizer step at the
    present ``delta``, and ``delta <- project(delta + epsilon * g / ||g||)`` with the
    gradient of the same pass. A batch starts from zero: the texts of two batches differ
    in length, so the delta of one is not carried over to the next as it is for images.

    Args:
        epsilon: radius and step per example, in units of the hidden state: a number,
            or a function of the step like :class:`tiedbert.adversarial.WarmUp`.
        replays: optimizer steps per batch. Take as many epochs fewer.
        norm: ``"l2"``, ``"linf"`` or ``"l2_per_token"``, of each example.
        relative: whether lengths are in units of the root mean square of the hidden
            state of the example.

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

    def passes(self, first_block=1.0) -> Passes:
        """What a step costs."""
        return Passes(self.replays)

    def train(self, step) -> Trained:
        """One training step per replay."""
        delta, losses, failed = None, [], 0.0
        for replay in range(self.replays):
            if replay:
                step.update()
            learned = step.learn_at(delta)
            losses.append(learned.loss)
            ball = step.ball(self)
            used = ball.zeros() if delta is None else delta
            if replay < self.replays - 1:
                moved = ball.step(delta, learned.gradient, failed=failed)
                delta = [tf.stop_gradient(d) for d in moved.delta]
                failed = moved.failed
        mean = tf.add_n(losses) / len(losses)
        return Trained(mean, losses[-1], ball.size(used), failed)


@dataclass(frozen=True)
class FreeLB(Method):
    """Free large-batch training: the weights learn from every step of the ascent.

    ``delta`` starts at random; in each of `steps` passes the gradient of the weights
    counts ``1 / steps``, and ``delta <- project(delta + step_size * g / ||g||)`` with
    the gradient of the same pass. The dropout is that of the first pass in all of them.

    Args:
        epsilon: radius per example, in units of the hidden state: a number, or a
            function of the step like :class:`tiedbert.adversarial.WarmUp`.
        steps: passes with a perturbation.
        step_size: length of a step, in the same norm and unit; None: 2.5 epsilon /
            steps.
        random_start: whether to start at random, else at zero.
        clean: whether one more pass, unperturbed, counts with the others.
        norm: ``"l2"``, ``"linf"`` or ``"l2_per_token"``, of each example.
        relative: whether lengths are in units of the root mean square of the hidden
            state of the example.

    Source: Zhu et al., "FreeLB: Enhanced adversarial training for natural language
    understanding", 2020, algorithm 1.

    Cost: `steps` training steps, one more with `clean`.

    Example:
        >>> FreeLB(epsilon=0.5, steps=2).replays_dropout
        True
    """

    epsilon: float | Callable = argument(RADIUS, 1.0)
    steps: int = argument(COUNT, 3)
    step_size: float | None = argument(STEP_SIZE, None)
    random_start: bool = argument(SWITCH, True)
    clean: bool = argument(SWITCH, False)
    norm: str = argument(NORM, "l2")
    relative: bool = argument(SWITCH, False)

    replays_dropout = True

    def passes(self, first_block=1.0) -> Passes:
        """What a step costs."""
        return Passes(self.steps + self.clean)

    def train(self, step) -> Trained:
        """One training step."""
        ball = step.ball(self)
        length = step_length(self, ball, self.steps)
        share = 1.0 / (self.steps + self.clean)
        losses = [step.learn_at(None, share).loss] if self.clean else []
        delta, failed = (ball.random() if self.random_start else None), 0.0
        for i in range(self.steps):
            learned = step.learn_at(delta, share)
            losses.append(learned.loss)
            used = ball.zeros() if delta is None else delta
            if i < self.steps - 1:
                moved = ball.step(delta, learned.gradient, length, failed)
                delta = [tf.stop_gradient(d) for d in moved.delta]
                failed = moved.failed
        loss = tf.add_n(losses) * share
        return Trained(loss, losses[-1], ball.size(used), failed)
