"""Training on the perturbation of an attack: FGM, PGD, and random noise."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tiedbert.adversarial.argument_rules import (
    COUNT,
    NORM,
    RADIUS,
    STEP_SIZE,
    SWITCH,
    argument,
)
from tiedbert.adversarial.method import Method, Passes
from tiedbert.adversarial.perturbation_ball import Ball, Perturbation, repeat
from tiedbert.adversarial.results import StepResult
from tiedbert.adversarial.step import Step


@dataclass(frozen=True)
class FGM(Method):
    """Fast gradient method: one step of size `epsilon` up the gradient.

    ``delta = epsilon * g / ||g||``, where ``g`` is the gradient of the loss with
    respect to the hidden state; with ``norm="linf"`` that is ``epsilon * sign(g)``, the
    fast gradient sign method.

    Args:
        epsilon: radius per example, in units of the hidden state: a number >= 0, or a
            function of the step like :class:`tiedbert.adversarial.WarmUp`; 1.0 by
            default.
        clean: True (the default): train on the mean of the clean and the adversarial
            loss; the clean pass gives the gradient ``g`` as well. False: on the
            adversarial loss alone.
        norm: ``"l2"`` (the default), ``"linf"`` or ``"l2_per_token"``, of each example.
        relative: whether radius and step size are in units of the root mean square of
            the hidden state of the example; False by default.

    Source: Miyato, Dai and Goodfellow, "Adversarial training methods for
    semi-supervised text classification", 2017, section 3.

    Cost: 2 training steps with `clean`; else 5/3, because the first backward pass stops
    at the activations. The part before the cut runs once.

    Example:
        >>> import tensorflow as tf
        >>> from tiedbert.adversarial.perturbation_ball import Ball
        >>> ball = Ball("l2", 10.0, False, [tf.zeros([1, 2])], [None])
        >>> gradient = [tf.constant([[3.0, 4.0]])]
        >>> (delta,) = FGM(10.0).attack(lambda delta: gradient, ball).delta
        >>> delta.numpy().round(3).tolist()
        [[6.0, 8.0]]
    """

    epsilon: float | Callable = argument(RADIUS, 1.0)
    clean: bool = argument(SWITCH, True)
    norm: str = argument(NORM, "l2")
    relative: bool = argument(SWITCH, False)

    def attack(self, gradient: Callable[..., list], ball: Ball) -> Perturbation:
        """Find a perturbation within `ball`.

        Args:
            gradient: function of a perturbation (list of float32 tensors, one per cut
                point; None: zero) -> the gradient of the loss there, times a positive
                number: one tensor per cut point.
            ball: :class:`tiedbert.adversarial.perturbation_ball.Ball`.

        Returns:
            :class:`tiedbert.adversarial.perturbation_ball.Perturbation`.
        """
        return ball.step(None, gradient(None))

    def passes(self, first_block: float = 1.0) -> Passes:
        """The cost of one training step."""
        return Passes(1 + self.clean, ascending=1 - self.clean)

    def train(self, step: Step) -> StepResult:
        """Make one training step."""
        return train_on_attack(step, self)


@dataclass(frozen=True)
class PGD(Method):
    """Projected gradient descent: several steps, each projected into the ball.

    ``delta <- project(delta + step_size * g / ||g||)``, where ``g`` is the gradient of
    the loss at the present ``delta``.

    Args:
        epsilon: radius per example, in units of the hidden state: a number >= 0, or a
            function of the step like :class:`tiedbert.adversarial.WarmUp`; 1.0 by
            default.
        steps: number of steps, >= 1; 3 by default.
        step_size: of each step, in the norm and unit of `epsilon`; None (the default):
            2.5 epsilon / steps, as Madry et al. advise.
        random_start: True: start at random, in ``"l2"`` uniformly in the largest cube
            in the ball. False (the default): start at zero.
        clean: True: train on the mean of the clean and the adversarial loss. False (the
            default): on the adversarial loss alone.
        norm: ``"l2"`` (the default), ``"linf"`` or ``"l2_per_token"``, of each example.
        relative: whether radius and step size are in units of the root mean square of
            the hidden state of the example; False by default.

    Source: Madry et al., "Towards deep learning models resistant to adversarial
    attacks", 2018.

    Cost: ``(2 steps + 3) / 3`` training steps; with `clean` and no random start
    ``(2 steps + 4) / 3``, with both ``(2 steps + 6) / 3``.

    Example:
        >>> PGD(epsilon=1.0, steps=3).step_size is None
        True
    """

    epsilon: float | Callable = argument(RADIUS, 1.0)
    steps: int = argument(COUNT, 3)
    step_size: float | None = argument(STEP_SIZE, None)
    random_start: bool = argument(SWITCH, False)
    clean: bool = argument(SWITCH, False)
    norm: str = argument(NORM, "l2")
    relative: bool = argument(SWITCH, False)

    def attack(self, gradient: Callable[..., list], ball: Ball) -> Perturbation:
        """Find a perturbation within `ball`; arguments as in :meth:`FGM.attack`."""
        start = ball.random() if self.random_start else None
        step_size = step_size_of(self, ball, self.steps)
        return ascend(gradient, ball, start, self.steps, step_size)

    def passes(self, first_block: float = 1.0) -> Passes:
        """The cost of one training step."""
        # The clean pass gives the first gradient of an ascent from zero.
        first_known = self.clean and not self.random_start
        return Passes(1 + self.clean, ascending=self.steps - first_known)

    def train(self, step: Step) -> StepResult:
        """Make one training step."""
        return train_on_attack(step, self)


@dataclass(frozen=True)
class RandomNoise(Method):
    """A perturbation of norm `epsilon` in a random direction.

    The control of attacks: compare an attack with it at the same `epsilon`. A gain that
    noise also gives is not due to the gradient. In ``"linf"`` each number is changed by
    `epsilon` up or down.

    Args:
        epsilon: norm per example, in units of the hidden state: a number >= 0, or a
            function of the step like :class:`tiedbert.adversarial.WarmUp`; 1.0 by
            default.
        clean: True: train on the mean of the clean and the noisy loss. False (the
            default): on the noisy loss alone.
        norm: ``"l2"`` (the default), ``"linf"`` or ``"l2_per_token"``, of each example.
        relative: whether radius and step size are in units of the root mean square of
            the hidden state of the example; False by default.

    Cost: 1 training step; 2 with `clean`.

    Example:
        >>> import tensorflow as tf
        >>> from tiedbert.adversarial.perturbation_ball import Ball
        >>> ball = Ball("l2", 2.0, False, [tf.zeros([3, 5])], [None])
        >>> delta = RandomNoise(2.0).attack(None, ball).delta
        >>> ball.size(delta).numpy().round(5).tolist()
        [2.0, 2.0, 2.0]
    """

    epsilon: float | Callable = argument(RADIUS, 1.0)
    clean: bool = argument(SWITCH, False)
    norm: str = argument(NORM, "l2")
    relative: bool = argument(SWITCH, False)

    def attack(self, gradient: Callable | None, ball: Ball) -> Perturbation:
        """Draw a perturbation on the border of `ball`; `gradient` is not called."""
        return ball.step(None, ball.normal(1.0))

    def passes(self, first_block: float = 1.0) -> Passes:
        """The cost of one training step."""
        return Passes(1 + self.clean)

    def train(self, step: Step) -> StepResult:
        """Make one training step."""
        return train_on_attack(step, self)


def train_on_attack(step: Step, method: "FGM | PGD | RandomNoise") -> StepResult:
    """Let the weights learn at the perturbation that ``method.attack`` finds.

    With ``method.clean`` they learn from the unperturbed batch as well, each half.
    """
    scale = 0.5 if method.clean else 1.0
    clean = step.learn_at(None, scale) if method.clean else None
    # After the clean pass: it finds the hidden states of points behind the first.
    ball = step.ball(method)

    def gradient(delta):
        if delta is None and clean is not None:
            return clean.gradient
        return step.gradient(delta)

    found = method.attack(gradient, ball)
    delta = [tf.stop_gradient(d) for d in found.delta]
    learned = step.learn_at(delta, scale)
    loss = learned.loss if clean is None else (clean.loss + learned.loss) / 2.0
    return StepResult(loss, learned.loss, ball.size(delta), found.failed)


def ascend(
    gradient: Callable[..., list],
    ball: Ball,
    start: list | None,
    steps: int,
    step_size: tf.Tensor | float | None,
    failed: tf.Tensor | float = 0.0,
) -> Perturbation:
    """Make `steps` steps of ascent.

    Args:
        gradient: function of a perturbation, as in :meth:`FGM.attack`.
        ball: the ball that each step is projected into.
        start: the perturbation to start at; None: zero.
        steps: number of steps, >= 1.
        step_size: of each step; None: the radius of the ball.
        failed: float32 ``[batch]``, 1.0 for examples that are not perturbed; 0.0 (the
            default): none.
    """
    # The first pass of a training step is never in a loop: metrics see its outputs.
    first = ball.step(start, gradient(start), step_size, failed)

    def again(found):
        return ball.step(found.delta, gradient(found.delta), step_size, found.failed)

    return repeat(steps - 1, again, first)


def step_size_of(method: Any, ball: Ball, steps: int) -> float | tf.Tensor:
    """``method.step_size``; where it is None 2.5 epsilon / steps."""
    if method.step_size is not None:
        return method.step_size
    return 2.5 * ball.epsilon / steps
