"""Metadata that Keras keeps on a tensor: its implicit mask and the logits behind it.

Both Kerases set the same attributes on tensors, `_keras_mask` and `_keras_logits`. A
part of a model that tiedbert runs as one function loses them, so tiedbert copies them,
with two of its own for the logits of a softmax or a sigmoid.
"""

import functools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert._keras.internals import internal

_LOGITS = {"Softmax": "_tiedbert_softmax_of", "Sigmoid": "_tiedbert_sigmoid_of"}
# Names of the attributes: the implicit mask, the logits that Keras' losses take
# instead of the tensor, and those of which it is the softmax or the sigmoid.
METADATA = "_keras_mask", "_keras_logits", *_LOGITS.values()


def implicit_mask(tensor: Any) -> Any:
    """The implicit mask that Keras keeps at a tensor, or None.

    At a symbolic tensor, Keras 3 keeps a tensor of the graph; Keras 2 keeps a bare
    placeholder that says only that there is a mask.
    """
    return _metadata(tensor, "_keras_mask")


def set_implicit_mask(tensor: Any, mask: Any) -> None:
    """Give a tensor an implicit mask, or take it off with None. Keras 3 only."""
    check_metadata()
    tensor._keras_mask = mask


def metadata_of(tensor: Any) -> list:
    """The metadata of a tensor, in the order of `METADATA`; None where it has none."""
    of_keras = [_metadata(tensor, name) for name in METADATA[:2]]
    return of_keras + [_logits(tensor, activation) for activation in _LOGITS]


def with_metadata(tensor: Any, metadata: Sequence) -> Any:
    """Set metadata on `tensor`; return it."""
    for name, value in zip(METADATA, metadata, strict=True):
        if value is not None:
            setattr(tensor, name, value)
    return tensor


def logits_behind(tensor: Any, activation: str) -> Any:
    """The logits of which a tensor is the ``"Softmax"`` or ``"Sigmoid"``, or None.

    Where it is unknown which of the two, those that Keras' losses would take.
    """
    known = {each: _logits(tensor, each) for each in _LOGITS}
    if any(logits is not None for logits in known.values()):
        return known[activation]
    return _metadata(tensor, "_keras_logits")


def _logits(tensor, activation):
    logits = getattr(tensor, _LOGITS[activation], None)
    is_output = tf.is_symbolic_tensor(tensor) and tensor.op.type == activation
    return tensor.op.inputs[0] if logits is None and is_output else logits


def _metadata(tensor, name):
    check_metadata()
    return getattr(tensor, name, None)


@functools.cache
def check_metadata() -> None:
    """Check that Keras still sets its attributes on tensors.

    Raises:
        RuntimeError: this version of Keras keeps a mask or logits elsewhere.
    """
    with tf.init_scope():
        internal(keras.layers.Masking(name="masking")(tf.ones([1, 1, 1])), METADATA[0])
        internal(keras.activations.softmax(tf.ones([1, 2])), METADATA[1])
