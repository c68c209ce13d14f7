"""SMART and ALUM: a divergence at a perturbation found by ascent from noise."""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from tiedbert.adversarial.argument_rules import (
    COUNT,
    DIVERGENCE,
    NON_NEGATIVE,
    NORM,
    RADIUS,
    STEP_SIZE,
    SWITCH,
    Rule,
    argument,
    is_non_negative,
)
from tiedbert.adversarial.attacks import ascend
from tiedbert.adversarial.consistency import ConsistencyMethod
from tiedbert.adversarial.method import Passes
from tiedbert.adversarial.perturbation_ball import Ball, Perturbation
from tiedbert.adversarial.results import Pass
from tiedbert.adversarial.step import Step

_MOMENTUM = Rule(
    "a number >= 0 and < 1", lambda value: is_non_negative(value) and value < 1
)


class _AscentFromNoise(ConsistencyMethod):
    """Base of the two methods; it has the fields ``steps`` and ``step_size``."""

    steps: int
    step_size: float | None

    def find_perturbation(
        self, gradient: Callable[..., list], ball: Ball
    ) -> Perturbation:
        """Climb from a normal draw of standard deviation epsilon."""
        step_size = ball.epsilon if self.step_size is None else self.step_size
        return ascend(gradient, ball, ball.normal(), self.steps, step_size)


@dataclass(frozen=True)
class SMART(_AscentFromNoise):
    """Smoothness-inducing adversarial regularization, with its proximal term.

    ``loss + weight * D(f(h), f(h + delta)) + proximal * D(f(h), f'(h))``. D is the
    symmetric KL (the squared difference for a regression). ``delta`` starts at a normal
    draw of standard deviation `epsilon` and climbs D. ``f'`` is the model with a moving
    average of the weights.

    Args:
        epsilon: radius per example, in units of the hidden state: a number >= 0, or a
            function of the step like :class:`tiedbert.adversarial.WarmUp`; 0.01 by
            default.
        steps: of ascent, >= 1; 1 by default.
        step_size: of each step, in the norm and unit of `epsilon`; None (the default):
            `epsilon`.
        weight: of the divergence, >= 0; 1.0 by default.
        proximal: weight of the divergence from the outputs of the moving average
            (Bregman proximal point), >= 0; 0.0 by default: there is no average.
        momentum: of that average, >= 0 and < 1; 0.99 by default. The average begins
            with the weights that the model has when `AdversarialTraining` is made. It
            is `AdversarialTraining.average`, which `save` leaves out.
        divergence: function of two outputs -> ``[batch, ...]``; None (the default): by
            the loss.
        norm: ``"linf_scaled"`` (the default, that of the paper: the largest magnitude,
            with steps along the gradient itself), ``"linf"``, ``"l2"`` or
            ``"l2_per_token"``.
        relative: whether radius and step size are in units of the root mean square of
            the hidden state of the example; False by default.

    Source: Jiang et al., "SMART: Robust and efficient fine-tuning for pre-trained
    natural language models through principled regularized optimization", 2020. Its
    radius (1e-5) is for embeddings before their layer norm; in float32 a KL at that
    radius is lost in rounding. Behind a layer norm 0.01 changes the outputs visibly.

    Cost: ``(2 steps + 6) / 3`` training steps; `proximal` adds a forward pass and a
    copy of the weights.

    Example:
        >>> SMART(proximal=1.0).momentum
        0.99
    """

    epsilon: float | Callable = argument(RADIUS, 0.01)
    steps: int = argument(COUNT, 1)
    step_size: float | None = argument(STEP_SIZE, None)
    weight: float = argument(NON_NEGATIVE, 1.0)
    proximal: float = argument(NON_NEGATIVE, 0.0)
    momentum: float = argument(_MOMENTUM, 0.99)
    divergence: Callable | None = argument(DIVERGENCE, None)
    norm: str = argument(NORM, "linf_scaled")
    relative: bool = argument(SWITCH, False)

    def passes(self, first_block: float = 1.0) -> Passes:
        """The cost of one training step."""
        average = float(self.proximal > 0)
        return Passes(2, ascending=self.steps, forward=average)

    def average_momentum(self) -> float | None:
        """That of the moving average in the proximal term."""
        return self.momentum if self.proximal else None

    def extra_loss(self, step: Step, clean: Pass) -> tf.Tensor | float:
        """The proximal term."""
        if not self.proximal:
            return 0.0
        average = step.average_outputs()
        return self.proximal * step.divergence(
            clean.outputs, average, given=self.divergence
        )


@dataclass(frozen=True)
class ALUM(_AscentFromNoise):
    """Adversarial pretraining: a divergence keeps a masked language model smooth.

    ``loss + weight * KL(f(h) || f(h + delta))``. ``delta`` starts at a normal draw of
    standard deviation `epsilon` and climbs the divergence. Unlike in VAT, gradients
    flow through both sides of it.

    Args:
        epsilon: radius per example, in units of the hidden state: a number >= 0, or a
            function of the step like :class:`tiedbert.adversarial.WarmUp`; 0.01 by
            default.
        steps: of ascent, >= 1; 1 by default.
        step_size: of each step, in the norm and unit of `epsilon`; None (the default):
            `epsilon`.
        weight: of the divergence, >= 0; 10.0 by default. The paper uses 10 for
            pretraining and 1 for fine-tuning.
        divergence: function of two outputs -> ``[batch, ...]``; None (the default): by
            the loss.
        norm: as in :class:`SMART`.
        relative: whether radius and step size are in units of the root mean square of
            the hidden state of the example; False by default.

    Source: Liu et al., "Adversarial training for large neural language models", 2020,
    algorithm 1. For the radius see :class:`SMART`.

    Cost: ``(2 steps + 6) / 3`` training steps.

    Example:
        >>> ALUM(weight=1.0).epsilon
        0.01
    """

    epsilon: float | Callable = argument(RADIUS, 0.01)
    steps: int = argument(COUNT, 1)
    step_size: float | None = argument(STEP_SIZE, None)
    weight: float = argument(NON_NEGATIVE, 10.0)
    divergence: Callable | None = argument(DIVERGENCE, None)
    norm: str = argument(NORM, "linf_scaled")
    relative: bool = argument(SWITCH, False)

    symmetric = False

    def passes(self, first_block: float = 1.0) -> Passes:
        """The cost of one training step."""
        return Passes(2, ascending=self.steps)
