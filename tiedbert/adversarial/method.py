"""What every method is."""

from dataclasses import dataclass

from tiedbert.adversarial.checks import check


@dataclass(frozen=True)
class Method:
    """A way to train on perturbed activations; its fields are its arguments.

    Attributes:
        replays: optimizer steps that it takes in a batch.
        replays_dropout: whether all passes of a step have the same dropout by its
            definition; None: it leaves that to the user.
        proximal: how much the outputs are held to those of a moving average of the
            weights; 0.0: none is kept.
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

    def train(self, step):
        """One training step: a :class:`tiedbert.adversarial.step.Trained`."""
        raise NotImplementedError
