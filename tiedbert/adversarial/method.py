"""What every method is."""

from dataclasses import dataclass
from typing import NamedTuple

from tiedbert.adversarial.argument_rules import check
from tiedbert.errors import InputError


class Passes(NamedTuple):
    """What a step of a method does behind the cut point, in passes over the batch.

    A forward pass and the backward pass to the activations are one unit of work each,
    and so is the backward pass to the weights. Plain training makes ``Passes(1)``.

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


@dataclass(frozen=True)
class Method:
    """A way to train on perturbed activations; its fields are its arguments.

    A subclass gives :meth:`train`, and :meth:`passes` for those who compare costs.

    Attributes:
        replays: optimizer steps that it takes in a batch.
        replays_dropout: whether all passes of a step have the same dropout by its
            definition; None: it leaves that to the user.
        proximal: how much the outputs are held to those of a moving average of the
            weights, which moves with the number `momentum`; 0.0: none is kept.

    Raises:
        InputError: a field that is not what its rule says.
    """

    # Not annotated: a method that has a choice makes it a field.
    replays = 1
    replays_dropout = None
    proximal = 0.0

    def __post_init__(self):
        check(self)

    def second_cut(self):
        """A cut point behind those that are perturbed, which it needs; or None."""
        return None

    def passes(self, first_block=1.0) -> Passes:
        """What one training step costs, counted in passes.

        Args:
            first_block: the share of the first block in what is behind the cut point:
                for a method that goes through that block alone (YOPO).

        Returns:
            :class:`Passes` through what is behind the cut point: ``.count`` of them,
            ``.cost`` in plain training steps.

        Raises:
            InputError: a method that does not say it.
        """
        raise InputError(
            f"{type(self).__name__} does not say what a step costs: give it "
            "passes(self, first_block=1.0) -> tiedbert.adversarial.Passes"
        )

    def train(self, step):
        """One training step.

        Args:
            step: :class:`tiedbert.adversarial.step.Step`.

        Returns:
            :class:`tiedbert.adversarial.Trained`.
        """
        raise InputError(
            f"{type(self).__name__} does not say how to train: give it train(self, "
            "step) -> tiedbert.adversarial.Trained"
        )
