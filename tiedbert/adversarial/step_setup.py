"""What all training steps have in common, and the batch of one of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.adversarial.compiled_losses import CompiledLosses
from tiedbert.adversarial.cut_model import CutModel
from tiedbert.adversarial.moving_average import MovingAverage
from tiedbert.adversarial.seeded_function import SeededFunction


class Batch(NamedTuple):
    """One batch of `fit`.

    Attributes:
        x: the inputs of the model, in its structure.
        y: the labels, or None.
        sample_weight: the sample weights, or None.
    """

    x: Any
    y: Any
    sample_weight: Any


@dataclass(frozen=True)
class StepSetup:
    """What the steps of a training need, put together when it is compiled.

    Attributes:
        model: the model that is trained.
        optimizer: that of `compile`.
        losses: those of `compile`.
        cut: the model in parts.
        parts: the parts behind the first cut point, a function each.
        front: the part before it as a function; None: ``cut.front`` is called.
        same_dropout: whether all passes of a step have the same random numbers.
        statistics: list of float variables that passes update, e.g. moving averages.
        average: the moving average of the weights; None: the method needs none.
        loss_of: function of a :class:`Batch`, the outputs of a pass, the list of losses
            that layers added in it and a bool, whether the metrics of the losses count
            this pass -> the supervised loss, at least float32.
    """

    model: keras.Model
    optimizer: Any
    losses: CompiledLosses
    cut: CutModel
    parts: list[SeededFunction]
    front: SeededFunction | None
    same_dropout: bool
    statistics: list
    average: MovingAverage | None
    loss_of: Callable[[Batch, Any, list, bool], tf.Tensor]

    def apply(self, gradients: list) -> None:
        """Take an optimizer step; the moving average of the weights follows.

        Args:
            gradients: one per trainable variable of the model, None where it has none.
        """
        weights = self.model.trainable_variables
        if weights:
            _keras.apply_gradients(self.optimizer, gradients, weights)
        if self.average is not None:
            self.average.update()
