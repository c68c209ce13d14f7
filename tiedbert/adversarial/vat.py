"""VAT: a divergence from the outputs at the direction in which they change most."""

from collections.abc import Callable
from dataclasses import dataclass

from tiedbert.adversarial.argument_rules import (
    COUNT,
    DIVERGENCE,
    NON_NEGATIVE,
    NORM,
    RADIUS,
    SWITCH,
    Rule,
    argument,
    is_non_negative,
)
from tiedbert.adversarial.consistency import ConsistencyMethod
from tiedbert.adversarial.method import Passes
from tiedbert.adversarial.perturbation_ball import Ball, Perturbation

_POSITIVE = Rule("a number > 0", lambda value: is_non_negative(value) and value > 0)


@dataclass(frozen=True)
class VAT(ConsistencyMethod):
    """Virtual adversarial training: the divergence needs no labels.

    ``loss + weight * KL(p(h) || p(h + delta))``. No gradient flows through ``p(h)``.
    ``delta``, of norm `epsilon`, is the direction in which the divergence grows most,
    found by `steps` power iterations from a random direction.

    Every example counts in the divergence, whatever its sample weight is: give a text
    without a label any label and the sample weight 0. Every token counts too, also one
    whose label is the `ignore_class` of the loss. Weights within an example, such as
    those of the tokens of a masked language model, do count: 0 leaves a token out.

    Args:
        epsilon: radius per example, in units of the hidden state: a number >= 0, or a
            function of the step like :class:`tiedbert.adversarial.WarmUp`; 1.0 by
            default.
        steps: power iterations, >= 1; 1 by default.
        xi: norm of the perturbation at which the divergence is differentiated, > 0; 0.1
            by default. In bfloat16 numbers near 1 have a distance of 1/128, so 0.1 is
            mostly rounded away: use 1.
        weight: of the divergence, >= 0; 1.0 by default.
        divergence: function of two outputs -> ``[batch, ...]``; None (the default): by
            the loss, KL for a cross-entropy and the squared difference otherwise.
        norm: ``"l2"`` (the default), ``"linf"`` or ``"l2_per_token"``, of each example.
        relative: whether radius and step size are in units of the root mean square of
            the hidden state of the example; False by default.

    Source: Miyato et al., "Virtual adversarial training: a regularization method for
    supervised and semi-supervised learning", 2018, algorithm 1.

    Cost: ``(2 steps + 6) / 3`` training steps.

    Example:
        >>> VAT(epsilon=2.0).steps
        1
    """

    epsilon: float | Callable = argument(RADIUS, 1.0)
    steps: int = argument(COUNT, 1)
    xi: float = argument(_POSITIVE, 0.1)
    weight: float = argument(NON_NEGATIVE, 1.0)
    divergence: Callable | None = argument(DIVERGENCE, None)
    norm: str = argument(NORM, "l2")
    relative: bool = argument(SWITCH, False)

    symmetric = False
    weighted = False
    constant_target = True

    def passes(self, first_block: float = 1.0) -> Passes:
        """The cost of one training step."""
        return Passes(2, ascending=self.steps)

    def find_perturbation(
        self, gradient: Callable[..., list], ball: Ball
    ) -> Perturbation:
        """Follow the gradient of the divergence at norm `xi`, `steps` times."""
        near = ball.resized(self.xi)
        direction, failed = ball.normal(1.0), 0.0
        for _ in range(self.steps):
            delta = near.step(None, direction, failed=failed).delta
            direction = gradient(delta)
            found = ball.step(None, direction, failed=failed)
            failed = found.failed
        return found
