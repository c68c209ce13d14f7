"""Training on the worst perturbation that an attack finds: FGM, PGD, and noise."""

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
from tiedbert.adversarial.method import Method, Passes
from tiedbert.adversarial.perturbation_ball import Moved, repeat
from tiedbert.adversarial.step import Trained


@dataclass(frozen=True)
class FGM(Method):
    """Fast gradient method: one step of length `epsilon` up the gradient.

    ``delta = epsilon * g / ||g||``, where ``g`` is the gradient of the loss with
    respect to the hidden state; with ``norm="linf"`` that is ``epsilon * sign(g)``, the
    fast gradient sign method.

    Args:
        epsilon: radius per example, in units of the hidden state: a number, or a
            function of the step like :class:`tiedbert.adversarial.WarmUp`.
        clean: whether to train on the mean of the clean and the adversarial loss (the
            gradient ``g`` then comes for free), or on the adversarial loss alone.
        norm: ``"l2"``, ``"linf"`` or ``"l2_per_token"``, of each example.
        relative: whether lengths are in units of the root mean square of the hidden
            state of the example.

    Source: Miyato, Dai and Goodfellow, "Adversarial training methods for
    semi-supervised text classification", 2017, section 3.

    Cost: 2 training steps with `clean`; else 5/3, as the first backward pass needs no
    gradients of weights. The part before the cut runs once.

    Example:
        >>> import tensorflow as tf
        >>> from tiedbert.adversarial.perturbation_ball import Ball
        >>> ball = Ball("l2", 10.0, False, [tf.zeros([1, 2])], [None])
        >>> moved = FGM(10.0).attack(lambda delta: [tf.constant([[3.0, 4.0]])], ball)
        >>> moved.delta[0].numpy().round(3).tolist()
        [[6.0, 8.0]]
    """

    epsilon: float | Callable = argument(RADIUS, 1.0)
    clean: bool = argument(SWITCH, True)
    norm: str = argument(NORM, "l2")
    relative: bool = argument(SWITCH, False)

    def attack(self, gradient, ball) -> Moved:
        """The perturbation within `ball`.

        Args:
            gradient: function of a perturbation (None: zero) that gives the gradient
                of the loss there, up to a positive factor: one tensor per point.
            ball: :class:`tiedbert.adversarial.perturbation_ball.Ball`.
        """
        return ball.step(None, gradient(None))

    def passes(self, first_block=1.0) -> Passes:
        """What a step costs."""
        return Passes(1 + self.clean, ascending=1 - self.clean)

    def train(self, step) -> Trained:
        """One training step."""
        return train_on_attack(step, self)


@dataclass(frozen=True)
class PGD(Method):
    """Projected gradient descent: several steps, each back into the ball.

    ``delta <- project(delta + step_size * g / ||g||)``, where ``g`` is the gradient of
    the loss at the present ``delta``.

    Args:
        epsilon: radius per example, in units of the hidden state: a number, or a
            function of the step like :class:`tiedbert.adversarial.WarmUp`.
        steps: how many.
        step_size: length of a step, in the same norm and unit; None: 2.5 epsilon /
            steps, as Madry et al. advise.
        random_start: whether to start at random, in ``"l2"`` uniformly in the largest
            cube in the ball; else at zero.
        clean: whether to train on the mean of the clean and the adversarial loss, or
            on the adversarial loss alone.
        norm: ``"l2"``, ``"linf"`` or ``"l2_per_token"``, of each example.
        relative: whether lengths are in units of the root mean square of the hidden
            state of the example.

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

    def attack(self, gradient, ball) -> Moved:
        """The perturbation within `ball`; as that of :meth:`FGM.attack`."""
        start = ball.random() if self.random_start else None
        return ascend(
            gradient, ball, start, self.steps, step_length(self, ball, self.steps)
        )

    def passes(self, first_block=1.0) -> Passes:
        """What a step costs."""
        # The clean pass gives the first gradient of an ascent from zero.
        free = self.clean and not self.random_start
        return Passes(1 + self.clean, ascending=self.steps - free)

    def train(self, step) -> Trained:
        """One training step."""
        return train_on_attack(step, self)


@dataclass(frozen=True)
class RandomNoise(Method):
    """A perturbation of length `epsilon` in a random direction.

    The control for every claim about an attack: the same length, without a gradient.
    In ``"linf"`` each number moves by `epsilon` up or down.

    Args:
        epsilon: length per example, in units of the hidden state: a number, or a
            function of the step like :class:`tiedbert.adversarial.WarmUp`.
        clean: whether to train on the mean of the clean and the noisy loss, or on the
            noisy loss alone.
        norm: ``"l2"``, ``"linf"`` or ``"l2_per_token"``, of each example.
        relative: whether lengths are in units of the root mean square of the hidden
            state of the example.

    Cost: 1 training step; 2 with `clean`.

    Example:
        >>> import tensorflow as tf
        >>> from tiedbert.adversarial.perturbation_ball import Ball
        >>> ball = Ball("l2", 2.0, False, [tf.zeros([3, 5])], [None])
        >>> moved = RandomNoise(2.0).attack(None, ball)
        >>> ball.size(moved.delta).numpy().round(5).tolist()
        [2.0, 2.0, 2.0]
    """

    epsilon: float | Callable = argument(RADIUS, 1.0)
    clean: bool = argument(SWITCH, False)
    norm: str = argument(NORM, "l2")
    relative: bool = argument(SWITCH, False)

    def attack(self, gradient, ball) -> Moved:
        """The perturbation within `ball`; `gradient` is not asked."""
        return ball.step(None, ball.normal(1.0))

    def passes(self, first_block=1.0) -> Passes:
        """What a step costs."""
        return Passes(1 + self.clean)

    def train(self, step) -> Trained:
        """One training step."""
        return train_on_attack(step, self)


def train_on_attack(step, method) -> Trained:
    """Let the weights learn at the perturbation that ``method.attack`` finds."""
    share = 0.5 if method.clean else 1.0
    clean = step.learn_at(None, share) if method.clean else None
    # After a pass: it tells what is at points one behind the other.
    ball = step.ball(method)

    def gradient(delta):
        if delta is None and clean is not None:
            return clean.gradient
        return step.gradient(delta)

    moved = method.attack(gradient, ball)
    moved = moved._replace(delta=[tf.stop_gradient(d) for d in moved.delta])
    learned = step.learn_at(moved.delta, share)
    loss = learned.loss if clean is None else (clean.loss + learned.loss) / 2.0
    return Trained(loss, learned.loss, ball.size(moved.delta), moved.failed)


def ascend(gradient, ball, start, steps, length, failed=0.0) -> Moved:
    """`steps` steps of `length` from `start`; None: from zero, or of the radius."""
    # The first pass of a training step is never in a loop: metrics see its outputs.
    moved = ball.step(start, gradient(start), length, failed)

    def again(moved):
        return ball.step(moved.delta, gradient(moved.delta), length, moved.failed)

    return repeat(steps - 1, again, moved)


def step_length(method, ball, steps):
    """The length of each of `steps` steps of a method."""
    if method.step_size is not None:
        return method.step_size
    return 2.5 * ball.epsilon / steps
