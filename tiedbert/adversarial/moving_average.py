"""A copy of a model whose weights are a moving average of the model's."""

from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.surgery import clone


class MovingAverage:
    """A copy of `model` that begins with its weights and follows them.

    It is not a layer, so Keras neither trains nor saves it.

    Args:
        model: a functional model; left as it is.
        momentum: float from 0 to 1: the part of the old average in the new one.

    Attributes:
        model: the copy.
    """

    def __init__(self, model: keras.Model, momentum: float):
        self.model = clone(model)
        self._source, self._momentum = model, momentum

    def outputs(self, inputs: Any) -> Any:
        """The outputs of the copy in inference mode."""
        return _keras.call(self.model, inputs, training=False)

    def update(self) -> None:
        """Move the average towards the weights as they are; copy what is no float."""
        pairs = zip(self.model.weights, self._source.weights, strict=True)
        for average, weight in pairs:
            old = tf.convert_to_tensor(average)
            new = tf.convert_to_tensor(weight)
            if old.dtype.is_floating:
                new = tf.cast(new, old.dtype)
                new = self._momentum * old + (1.0 - self._momentum) * new
            average.assign(new)
