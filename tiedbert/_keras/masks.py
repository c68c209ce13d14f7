"""Which layers start an implicit mask, and running a model to see where masks arrive.

In Keras 2 no model has to run: see `symbolic_tensors_tell_masks`.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert._keras.internals import internal
from tiedbert._keras.layers import layers_within
from tiedbert._keras.user_code import overrides_compute_mask


def starts_masks(layers: Iterable) -> bool:
    """Whether one of `layers`, or one nested in them, may give a tensor a mask."""
    return any(
        _starts_a_mask(part) for layer in layers for part in layers_within(layer)
    )


def _starts_a_mask(layer: Any) -> bool:
    if not isinstance(layer, keras.layers.Layer):
        return False  # an operation of Keras 3
    if overrides_compute_mask(layer):
        return True  # It may return a mask; a needless search changes nothing.
    if isinstance(layer, keras.layers.Lambda):
        return layer.mask is not None
    masking = isinstance(layer, keras.layers.Masking)
    return masking or bool(getattr(layer, "mask_zero", False))


def trace(function: Callable, specs: Sequence[tf.TypeSpec]) -> None:
    """Run `function` once on placeholders of the given specs.

    Nothing is computed and no variable, loss or random state changes. Keras 3 only.
    """
    with keras.StatelessScope(collect_losses=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The model warns when it really runs.
        tf.function(function, autograph=False).get_concrete_function(*specs)


def in_training(layer: Any, kwargs: dict) -> dict:
    """The keyword arguments of a call as a Keras 3 model in training makes it."""
    if not isinstance(layer, keras.layers.Layer):
        return kwargs  # an operation
    takes = "training" in internal(layer, "_call_context_args")
    return {**kwargs, "training": True} if takes else kwargs
