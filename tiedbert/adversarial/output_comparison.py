"""The divergence between outputs of a compiled model, weighted as its losses."""

import functools
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.adversarial.compiled_losses import CompiledLosses, has_label
from tiedbert.adversarial.divergences import KL, SquaredError
from tiedbert.adversarial.norms import mean
from tiedbert.errors import InputError


def divergence_between(
    compiled: CompiledLosses,
    p: Any,
    q: Any,
    weights: Any = None,
    given: Callable | None = None,
    symmetric: bool = True,
    labels: Any = None,
) -> tf.Tensor:
    """The mean divergence between two outputs of a model: a float32 scalar.

    Of several outputs the divergences are added, with the weights of their losses; an
    output without a loss does not count. As in the losses of Keras, a token that the
    Keras mask of an output hides does not count, nor one without a label (the
    `ignore_class` of a loss). In `tf.distribute` each replica gives its part of the
    mean, as those losses do.

    Args:
        compiled: the losses of the model, which tell what its outputs are.
        p: the outputs, in the structure of the model.
        q: outputs to compare with them.
        weights: the sample weights of `fit`, or None (the default).
        given: function of two outputs -> ``[batch, ...]``, used for every output; None
            (the default): by the loss, KL for a cross-entropy and the squared
            difference otherwise.
        symmetric: whether the KL is symmetric; True by default.
        labels: those of `fit`; None (the default): tokens without a label count too.

    Raises:
        InputError: no `given`, and a loss that does not tell what the outputs are.
    """
    total = 0.0
    rows = zip(
        _keras.flatten(p),
        _keras.flatten(q),
        compiled.per_output(compiled.losses, p),
        compiled.per_output(compiled.weights, p),
        compiled.per_output(weights, p),
        compiled.per_output(labels, p),
        strict=True,
    )
    for one, other, loss, factor, weight, label in rows:
        if given is None and loss is None and compiled.losses is not None:
            continue
        measure = given or measure_for(loss, symmetric)
        masks = [_mask_of(one, other), has_label(loss, label)]
        masks = [mask for mask in masks if mask is not None]
        pair = [_finite_where_hidden(_with_units(x), masks) for x in (one, other)]
        value = _mean(measure(*pair), weight, masks)
        total += value if factor is None else factor * value
    return total / tf.distribute.get_strategy().num_replicas_in_sync


def rows_counted(
    compiled: CompiledLosses, outputs: Any, labels: Any
) -> tf.Tensor | None:
    """Which rows count in the loss, float32 ``[batch]``, 1.0 or 0.0; None: all.

    A row does not count if Keras masks hide all of it, or it has no label at all.

    Args:
        compiled: the losses of the model.
        outputs: those of a pass.
        labels: those of `fit`.
    """
    counted = []
    rows = zip(
        _keras.flatten(outputs),
        compiled.per_output(compiled.losses, outputs),
        compiled.per_output(labels, outputs),
        strict=True,
    )
    for output, loss, label in rows:
        if loss is None:
            continue
        rank = max(output.shape.rank - 1, 1)
        masks = [_keras.implicit_mask(output), has_label(loss, label)]
        masks = [_as_values(mask, rank) for mask in masks if mask is not None]
        if not masks:
            return None
        counted.append(tf.reduce_max(math.prod(masks), axis=list(range(1, rank))))
    return functools.reduce(tf.maximum, counted) if counted else None


def measure_for(loss: Any, symmetric: bool) -> KL | SquaredError:
    """The divergence that goes with a loss of Keras.

    Args:
        loss: a loss as `compile` takes it.
        symmetric: whether a KL is symmetric.

    Raises:
        InputError: None, or a loss that does not tell what the outputs are.
    """
    if loss is None:
        raise InputError(
            "this method compares outputs and needs the loss of compile(); a model "
            "with its loss inside has none there: use masked_lm(bert) without "
            "with_loss, or give divergence="
        )
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    definition = loss if hasattr(loss, "__name__") else type(loss)
    name = definition.__name__.lower().replace("_", "")
    config = loss.get_config() if hasattr(loss, "get_config") else {}
    known = "crossentropy" in name or name in _COMPARED_BY_SQUARES
    # A loss of a user may have the name of one of Keras and mean something else.
    if (
        not known
        or not _keras.is_from_keras(definition)
        or config.get("axis", -1) != -1
    ):
        raise InputError(
            f"divergence: the loss {definition.__name__!r} does not tell what the "
            "outputs are: give divergence=KL(from_logits=...) or SquaredError()"
        )
    if name in _COMPARED_BY_SQUARES:
        return SquaredError()
    return KL(bool(config.get("from_logits")), symmetric, binary="binary" in name)


_COMPARED_BY_SQUARES = {
    *("meansquarederror", "mse", "meanabsoluteerror", "mae", "huber", "logcosh"),
    *("meansquaredlogarithmicerror", "cosinesimilarity", "hinge"),
}


def _with_units(output):
    """An output ``[batch]`` as ``[batch, 1]``; others as they are."""
    if len(output.shape) != 1:
        return output
    metadata = [x if x is None else x[:, None] for x in _keras.metadata_of(output)]
    return _keras.with_metadata(output[:, None], metadata)


def _finite_where_hidden(output, masks):
    """An output ``[..., units]`` with 0 where a mask hides what is not finite.

    The gradient of a hidden value is 0, and 0 times a value that is not finite is NaN:
    so the mask is applied before the divergence as well as after it.
    """
    if not masks:
        return output

    def finite(values):
        values = tf.convert_to_tensor(values)
        shown = math.prod(_as_values(mask, values.shape.rank - 1) for mask in masks)
        usable = (shown[..., None] > 0.0) | tf.math.is_finite(values)
        return tf.where(usable, values, tf.zeros_like(values))

    mask, *logits = _keras.metadata_of(output)
    logits = [x if x is None else finite(x) for x in logits]
    return _keras.with_metadata(finite(output), [mask, *logits])


def _mask_of(p, q):
    """The Keras mask of two outputs; one made constant may have lost it."""
    mask = _keras.implicit_mask(q)
    return _keras.implicit_mask(p) if mask is None else mask


def _mean(values, weights, masks):
    """The weighted sum over the number of values, as Keras reduces a loss.

    With masks the sum and the number are of the values that all masks show.
    """
    if weights is not None:
        values *= _as_values(weights, values.shape.rank)
    masks = [_as_values(mask, values.shape.rank) for mask in masks]
    if not masks:
        return mean(values)
    shown = tf.broadcast_to(math.prod(masks), tf.shape(values))
    # Not a product: 0 times what is not finite is not finite.
    values = tf.where(shown > 0.0, values, tf.zeros_like(values))
    return tf.math.divide_no_nan(tf.reduce_sum(values), tf.reduce_sum(shown))


def _as_values(weights, rank):
    """Weights or a mask as float32 of a rank, to broadcast against values.

    Last axes are added or left out; the rank of what `fit` is given may be unknown.
    """
    shape = tf.concat([tf.shape(weights), tf.ones([rank], tf.int32)], axis=0)[:rank]
    values = tf.reshape(tf.cast(weights, tf.float32), shape)
    return tf.ensure_shape(values, [None] * rank)
