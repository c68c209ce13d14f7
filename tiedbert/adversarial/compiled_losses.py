"""The losses that a model was compiled with, output by output."""

from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError


class CompiledLosses(NamedTuple):
    """The losses given to `compile`.

    Attributes:
        names: list of str: the names of the model's outputs, or None.
        losses: what was given as ``loss``: one, a list, a dict by name, or None.
        weights: what was given as ``loss_weights``, in such a structure.
    """

    names: list[str] | None
    losses: Any
    weights: Any

    @classmethod
    def of(cls, model: keras.Model) -> "CompiledLosses":
        """Those of a compiled model."""
        return cls(getattr(model, "output_names", None), *_keras.given_losses(model))

    def per_output(self, values: Any, outputs: Any) -> list:
        """Broadcast a scalar, list or dict by name to one value per output."""
        if isinstance(values, dict):
            keys = self.names
            if isinstance(outputs, dict):  # Keras 3 does not sort an OrderedDict.
                keys = _keras.flatten(type(outputs)(zip(outputs, outputs, strict=True)))
            return [values.get(key) for key in keys or ()]
        if isinstance(values, list | tuple):
            return list(values)
        return [values] * len(_keras.flatten(outputs))

    def check_means(self, purpose: str) -> None:
        """InputError, which names `purpose`, for a loss that is no batch mean."""
        for loss in tf.nest.flatten(self.losses):
            if getattr(loss, "reduction", "mean") in (None, "none", "sum"):
                raise InputError(
                    f"{purpose} needs a loss that is a mean over the batch, received "
                    f"reduction={loss.reduction!r}: take the default reduction"
                )


def has_label(loss: Any, labels: tf.Tensor | None) -> tf.Tensor | None:
    """Which labels are not the `ignore_class` of a loss, bool in their shape.

    None where all count: there are no labels, or the loss ignores no class.
    """
    config = loss.get_config() if hasattr(loss, "get_config") else {}
    ignored = config.get("ignore_class")
    if ignored is None or labels is None:
        return None
    return tf.not_equal(labels, tf.cast(ignored, labels.dtype))
