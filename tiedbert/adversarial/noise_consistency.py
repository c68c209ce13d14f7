"""R3F and R-Drop: a divergence between outputs under random noise or dropout."""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from tiedbert.adversarial.argument_rules import (
    DIVERGENCE,
    NON_NEGATIVE,
    RADIUS,
    SWITCH,
    argument,
    one_of,
)
from tiedbert.adversarial.consistency import ConsistencyMethod
from tiedbert.adversarial.method import Method, Passes
from tiedbert.adversarial.perturbation_ball import Ball, Perturbation
from tiedbert.adversarial.results import StepResult
from tiedbert.adversarial.step import Step


@dataclass(frozen=True)
class R3F(ConsistencyMethod):
    """Consistency under random noise: the control of the methods with an attack.

    ``loss + weight * (KL(f(h) || f(h + z)) + KL(f(h + z) || f(h)))``, where ``z`` is
    noise, independent for each number.

    Args:
        epsilon: the noise is uniform between -epsilon and epsilon, or normal with this
            standard deviation: a number >= 0, or a function of the step; 0.01 by
            default.
        noise: ``"uniform"`` (the default) or ``"normal"``.
        weight: of the divergence, >= 0; 1.0 by default.
        divergence: function of two outputs -> ``[batch, ...]``; None (the default): by
            the loss.
        relative: whether `epsilon` is in units of the root mean square of the hidden
            state of the example; False by default.

    Source: Aghajanyan et al., "Better fine-tuning by reducing representational
    collapse", 2021.

    Cost: 2 training steps.

    Example:
        >>> R3F(noise="normal").weight
        1.0
    """

    epsilon: float | Callable = argument(RADIUS, 0.01)
    noise: str = argument(one_of("uniform", "normal"), "uniform")
    weight: float = argument(NON_NEGATIVE, 1.0)
    divergence: Callable | None = argument(DIVERGENCE, None)
    relative: bool = argument(SWITCH, False)

    norm = "linf"

    def passes(self, first_block: float = 1.0) -> Passes:
        """The cost of one training step."""
        return Passes(2)

    def find_perturbation(
        self, gradient: Callable[..., list], ball: Ball
    ) -> Perturbation:
        """Draw noise; `gradient` is not called."""
        noise = ball.random() if self.noise == "uniform" else ball.normal()
        return Perturbation(noise, 0.0)


@dataclass(frozen=True)
class RDrop(Method):
    """R-Drop: a divergence between two passes with different dropout.

    ``(loss_1 + loss_2) / 2 + weight * (KL(f_1 || f_2) + KL(f_2 || f_1)) / 2``. This is
    half of the loss of the paper, whose alpha is twice `weight`. Only the dropout
    behind the cut point differs between the passes.

    Args:
        weight: of the divergence, >= 0; 1.0 by default.
        divergence: function of two outputs -> ``[batch, ...]``; None (the default): by
            the loss.

    Source: Liang et al., "R-Drop: Regularized dropout for neural networks", 2021.

    Cost: 2 training steps.

    Example:
        >>> RDrop(weight=0.5).weight
        0.5
    """

    weight: float = argument(NON_NEGATIVE, 1.0)
    divergence: Callable | None = argument(DIVERGENCE, None)

    same_dropout = False

    def passes(self, first_block: float = 1.0) -> Passes:
        """The cost of one training step."""
        return Passes(2)

    def train(self, step: Step) -> StepResult:
        """Make one training step."""
        with step.record() as tape:
            one, other = step.run(), step.run()
            divergence = step.divergence(
                one.outputs, other.outputs, given=self.divergence
            )
            divergence /= 2.0
            step.clean_loss = (step.loss(one) + step.loss(other)) / 2.0
            added = tf.cast(self.weight * divergence, step.clean_loss.dtype)
            loss = step.clean_loss + added
        step.learn(tape, loss)
        return StepResult(loss, divergence)
