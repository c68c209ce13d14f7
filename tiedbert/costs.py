"""What a step of a method of adversarial training costs."""

from typing import NamedTuple


class Passes(NamedTuple):
    """What a step of a method does behind the cut point, in passes over the batch.

    A forward pass and the backward pass to the activations are one unit of work each,
    and so is the backward pass to the weights.

    Attributes:
        learning: forward and backward, weights included: 3 units, a plain step.
        ascending: forward and backward to the activations alone: 2 units.
        forward: forward alone: 1 unit.
    """

    learning: float
    ascending: float = 0.0
    forward: float = 0.0

    @property
    def count(self):
        """Passes a step."""
        return self.learning + self.ascending + self.forward

    @property
    def cost(self):
        """In plain training steps.

        Example:
            >>> Passes(1, ascending=3).cost
            3.0
        """
        return (3 * self.learning + 2 * self.ascending + self.forward) / 3


def passes(method, first_block=1.0) -> Passes:
    """What a step of a method does: its docstring says the same as a formula.

    Args:
        method: of :mod:`tiedbert.adversarial`; None: plain training.
        first_block: the share of the first block in what is behind the cut point, for
            YOPO.

    Example:
        >>> from tiedbert.adversarial import PGD
        >>> passes(PGD(steps=3)).cost
        3.0
    """
    return _PASSES[type(method).__name__](method, first_block)


def _attack(steps):
    """An attack of so many gradients; the clean pass gives the first of them."""

    def count(m, _):
        free = m.clean and not getattr(m, "random_start", False)
        return Passes(1 + m.clean, ascending=max(steps(m) - free, 0))

    return count


_PASSES = {
    "NoneType": lambda m, _: Passes(1),
    "FGM": _attack(lambda m: 1),
    "PGD": _attack(lambda m: m.steps),
    "RandomNoise": _attack(lambda m: 0),
    "FreeAT": lambda m, _: Passes(m.replays),
    "FreeLB": lambda m, _: Passes(m.steps + m.clean),
    "YOPO": lambda m, share: Passes(
        m.outer, m.outer * m.inner * share, m.outer * share
    ),
    "VAT": lambda m, _: Passes(2, m.steps),
    "SMART": lambda m, _: Passes(2, m.steps, forward=float(m.proximal > 0)),
    "ALUM": lambda m, _: Passes(2, m.steps),
    "R3F": lambda m, _: Passes(2),
    "RDrop": lambda m, _: Passes(2),
    # One pass, whose backward pass is differentiated: as much as three.
    "GradientPenalty": lambda m, _: Passes(3),
}
