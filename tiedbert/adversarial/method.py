"""The base class of all methods, and the cost of a step."""

from dataclasses import dataclass
from typing import NamedTuple, cast

from tiedbert.adversarial.argument_rules import check
from tiedbert.adversarial.results import StepResult
from tiedbert.adversarial.step import Step
from tiedbert.errors import InputError


class Passes(NamedTuple):
    """The work of one step of a method behind the cut point, in passes over the batch.

    A forward pass, a backward pass to the activations and a backward pass to the
    weights are one unit of work each. Plain training makes ``Passes(1)``.

    Attributes:
        learning: float: passes forward and backward, weights included: 3 units each.
        ascending: float: passes forward and backward to the activations alone: 2 units
            each; 0.0 by default.
        forward: float: forward passes alone: 1 unit each; 0.0 by default.
    """

    learning: float
    ascending: float = 0.0
    forward: float = 0.0

    @property
    def count(self) -> float:  # type: ignore[override]  # not tuple.count
        """The number of passes in a step."""
        return self.learning + self.ascending + self.forward

    @property
    def cost(self) -> float:
        """The work in plain training steps.

        Example:
            >>> Passes(1, ascending=3).cost
            3.0
        """
        return (3 * self.learning + 2 * self.ascending + self.forward) / 3


@dataclass(frozen=True)
class Method:
    """A way to train on perturbed activations; its fields are its arguments.

    A subclass implements :meth:`train`, and :meth:`passes` if costs are compared.

    Attributes:
        replays: int: optimizer steps in a batch; 1 by default.
        same_dropout: whether all passes of a step have the same random numbers by the
            definition of the method: True, False, or None (the default): the user may
            choose.

    Raises:
        InputError: a field that does not follow its rule.
    """

    # Not annotated, so no fields: a method with a choice makes it a field.
    replays = 1
    same_dropout = cast(bool | None, None)

    def __post_init__(self):
        check(self)

    def second_cut(self) -> str | None:
        """A cut point behind the perturbed ones that the method needs; None: none."""
        return None

    def average_momentum(self) -> float | None:
        """Momentum of a moving average of the weights that it needs; None: no average.

        :meth:`train` gets the outputs of the average by ``step.average_outputs()``.
        """
        return None

    def passes(self, first_block: float = 1.0) -> Passes:
        """The cost of one training step, counted in passes.

        Args:
            first_block: float from 0 to 1, 1.0 by default: the part of the first block
                in the work behind the cut point, for a method that runs that block
                alone (YOPO).

        Returns:
            :class:`Passes` through the part behind the cut point: ``.count`` of them,
            ``.cost`` in plain training steps.

        Raises:
            InputError: a subclass that does not implement it.
        """
        raise InputError(
            f"{type(self).__name__} does not say what a step costs: give it "
            "passes(self, first_block=1.0) -> tiedbert.adversarial.Passes"
        )

    def train(self, step: Step) -> StepResult:
        """Make one training step: passes, and gradients from which the weights learn.

        Args:
            step: the batch and the model: :class:`tiedbert.adversarial.step.Step`.

        Returns:
            :class:`tiedbert.adversarial.StepResult`.

        Raises:
            InputError: a subclass that does not implement it.
        """
        raise InputError(
            f"{type(self).__name__} does not say how to train: give it train(self, "
            "step) -> tiedbert.adversarial.StepResult"
        )
