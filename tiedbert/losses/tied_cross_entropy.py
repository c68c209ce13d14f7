"""Cross-entropy of a tied head that never holds the logits of all positions at once."""

from numbers import Integral, Real
from typing import Any, NamedTuple

import tensorflow as tf

from tiedbert.errors import InputError
from tiedbert.losses.chunks import Terms, loss_sum

# Room for the float32 logits of one chunk: as much as a table of a few hundred columns.
CHUNK_BYTES = 24 * 2**20
# With fewer positions, adding each chunk's gradient to the table's is what takes time.
SMALLEST_CHUNK = 256


class ByPosition(NamedTuple):
    """What one pass over the logits gives, float32. Only `loss` has a gradient."""

    loss: Any
    """Scalar: weighted mean, with label smoothing and z-loss; what to minimize."""
    cross_entropy: Any
    """``[...]`` in nats, without them; zero at ignored positions."""
    correct: Any
    """``[...]``: one where no logit is above the label's, else zero."""
    weights: Any
    """``[...]``: as given, or ones; zero at ignored positions."""


def tied_cross_entropy(
    hidden,
    table,
    bias,
    labels,
    weights=None,
    chunk_size=None,
    *,
    label_smoothing=0.0,
    z_loss=0.0,
    ignore_index=-100,
):
    """Mean cross-entropy of ``softmax(hidden @ table.T + bias)``, a chunk at a time.

    The value and its gradients are those of the plain formula. The logits exist for
    ``chunk_size`` positions at a time, and the gradients are made in the same pass:
    three matrix products as in plain training, none of them twice. Products are in the
    dtype of `hidden`; softmax, sums over chunks and results are float32. Second
    derivatives are right too, but hold all the logits; both tapes must be inside of the
    same `tf.function`, or neither. The float32 gradient of the table waits from the
    forward pass to the backward pass.

    Args:
        hidden: float ``[..., width]``.
        table: float ``[vocab, width]``, a variable or a tensor.
        bias: float ``[vocab]``, or None.
        labels: integers ``[...]`` in ``[0, vocab)`` or equal to `ignore_index`.
        weights: ``[...]``, without a gradient; None weighs all positions alike. The
            mean divides by their sum; under `tf.distribute`, each replica by its own.
        chunk_size: positions at a time, at most; chunks are made equal. By default
            about as many as :data:`CHUNK_BYTES` of logits have room for, or about
            :data:`SMALLEST_CHUNK` if that is more.
        label_smoothing: share of the target that is spread evenly over the vocabulary
            (Szegedy et al., "Rethinking the Inception architecture", 2016).
        z_loss: factor of the squared logarithm of the softmax denominator, which keeps
            logits from drifting (Chowdhery et al., "PaLM", 2022; they use 1e-4).
        ignore_index: label of the positions that do not count; their hidden states
            must be finite all the same.

    Returns:
        The loss in nats, float32 scalar; zero when no position counts.

    Raises:
        InputError: shapes that do not belong together, labels that are not integers,
            a chunk size below one, a smoothing outside of ``[0, 1)``, a negative
            z-loss.

    Source: gradients made in the forward pass, chunk by chunk, are also those of Hsu et
    al., "Liger Kernel", 2024.

    Example:
        >>> import tensorflow as tf
        >>> hidden, table = tf.constant([[1.0, 0.0]]), tf.zeros([4, 2])
        >>> round(float(tied_cross_entropy(hidden, table, None, [3])), 4)  # log(4)
        1.3863
    """
    return tied_cross_entropy_by_position(
        hidden,
        table,
        bias,
        labels,
        weights,
        chunk_size,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        ignore_index=ignore_index,
    ).loss


def tied_cross_entropy_by_position(
    hidden,
    table,
    bias,
    labels,
    weights=None,
    chunk_size=None,
    *,
    label_smoothing=0.0,
    z_loss=0.0,
    ignore_index=-100,
):
    """:func:`tied_cross_entropy`, and what else the same pass over the logits tells.

    Args and errors are those of :func:`tied_cross_entropy`. Perplexity is
    ``exp(mean(cross_entropy))``, accuracy is ``mean(correct)``, both weighted.

    Returns:
        :class:`ByPosition`.

    Example:
        >>> import tensorflow as tf
        >>> hidden, table = tf.constant([[5.0], [5.0]]), tf.constant([[1.0], [-1.0]])
        >>> told = tied_cross_entropy_by_position(hidden, table, None, [0, 1])
        >>> told.correct.numpy().tolist()
        [1.0, 0.0]
    """
    hidden, table, labels = map(tf.convert_to_tensor, (hidden, table, labels))
    bias, weights = map(_tensor_or_none, (bias, weights))
    _check_shapes(hidden, table, bias, labels, weights)
    check_options(chunk_size, label_smoothing, z_loss)
    vocabulary, width = table.shape
    labels, counted, weights = _counted(hidden, labels, weights, ignore_index)
    scale = tf.reduce_max(tf.abs(weights))
    terms = Terms(
        labels=tf.reshape(labels, [-1]),
        # At most one, whatever their sum: float16 has no room for less.
        weights=tf.reshape(tf.math.divide_no_nan(weights, scale), [-1]),
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        chunks=_number_of_chunks(labels, vocabulary, chunk_size),
    )
    bias = tf.zeros([vocabulary]) if bias is None else tf.cast(bias, tf.float32)
    loss, *found = loss_sum(tf.reshape(hidden, [-1, width]), table, bias, terms)
    cross_entropy, correct = (
        counted * tf.reshape(tf.stop_gradient(rows), tf.shape(labels)) for rows in found
    )
    mean = tf.math.divide_no_nan(loss, tf.reduce_sum(terms.weights))
    return ByPosition(mean, cross_entropy, correct, weights)


def _counted(hidden, labels, weights, ignore_index):
    """Labels that all exist, which of them count (one or zero), and their weights."""
    labels = _as_many_as(hidden, labels, "labels")
    labels = tf.cast(labels, tf.int32 if labels.dtype.size <= 4 else tf.int64)
    counted = tf.cast(labels != ignore_index, tf.float32)
    labels = tf.where(counted > 0, labels, tf.zeros_like(labels))
    if weights is None:
        return labels, counted, counted
    weights = tf.stop_gradient(_as_many_as(hidden, weights, "weights"))
    return labels, counted, counted * tf.cast(weights, tf.float32)


def _number_of_chunks(labels, vocabulary, chunk_size):
    """An `int` where the number of positions is known, else a tensor; at least one."""
    count = labels.shape.num_elements()
    count = tf.size(labels) if count is None else count
    if chunk_size is None:
        chunk_size = max(SMALLEST_CHUNK, CHUNK_BYTES // (4 * vocabulary))
        chunks = (count + chunk_size // 2) // chunk_size
    else:
        chunks = -(-count // chunk_size)
    return max(chunks, 1) if isinstance(chunks, int) else tf.maximum(chunks, 1)


def _as_many_as(hidden, rows, name):
    """`rows`, whose shape is compared when it is known: now, or when this runs."""
    if hidden.shape[:-1].is_fully_defined() and rows.shape.is_fully_defined():
        return rows
    message = f"{name}: expected the shape of hidden without its last axis"
    same = tf.debugging.assert_equal(tf.shape(rows), tf.shape(hidden)[:-1], message)
    with tf.control_dependencies([same] if same is not None else []):
        return tf.identity(rows)


def _tensor_or_none(value):
    return None if value is None else tf.convert_to_tensor(value)


def _check_shapes(hidden, table, bias, labels, weights):
    """InputError for tensors that do not belong together."""
    if table.shape.rank != 2 or None in table.shape:
        raise InputError(f"table: expected [vocab, width], received {table.shape}")
    vocabulary, width = table.shape
    expected = {
        "hidden": (hidden.shape[-1:], (width,)),
        "labels": (labels.shape, hidden.shape[:-1]),
    }
    if weights is not None:
        expected["weights"] = weights.shape, labels.shape
    if bias is not None:
        expected["bias"] = bias.shape, (vocabulary,)
    for name, tensor in {"hidden": hidden, "table": table}.items():
        if not tensor.dtype.is_floating:
            raise InputError(f"{name}: expected floats, received {tensor.dtype.name}")
    if not labels.dtype.is_integer:
        raise InputError(f"labels: expected integers, received {labels.dtype.name}")
    for name, (received, wanted) in expected.items():
        if not received.is_compatible_with(wanted):
            raise InputError(
                f"{name}: expected shape {tuple(wanted)}"
                f"{' at the end' if name == 'hidden' else ''} for a table of "
                f"{tuple(table.shape)} and hidden {tuple(hidden.shape)}, received "
                f"{tuple(received)}"
            )


def check_options(chunk_size, label_smoothing, z_loss):
    """InputError for numbers that mean nothing to :func:`tied_cross_entropy`."""
    expected = {
        "chunk_size: an integer of at least 1": chunk_size is None
        or (isinstance(chunk_size, Integral) and chunk_size >= 1),
        "label_smoothing: at least 0 and below 1": isinstance(label_smoothing, Real)
        and 0.0 <= label_smoothing < 1.0,
        "z_loss: at least 0": isinstance(z_loss, Real) and z_loss >= 0.0,
    }
    received = chunk_size, label_smoothing, z_loss
    for (what, holds), value in zip(expected.items(), received, strict=True):
        if not holds:
            raise InputError(f"{what} was expected, received {value!r}")
