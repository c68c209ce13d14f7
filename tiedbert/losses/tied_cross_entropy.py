"""Cross-entropy of a tied head that never holds the logits of all positions at once."""

from numbers import Integral, Real
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from tiedbert.errors import InputError
from tiedbert.losses.chunks import Terms, loss_sum

# What `tf.convert_to_tensor` accepts: a tensor, a variable, an array, nested lists.
TensorLike: TypeAlias = Any

# Memory for the float32 logits of one chunk.
CHUNK_BYTES = 24 * 2**20
# With fewer positions, most time goes into adding up the gradients of the table.
SMALLEST_CHUNK = 256


class CrossEntropyResult(NamedTuple):
    """The results of one pass over the logits, float32. Only `loss` has a gradient."""

    loss: tf.Tensor
    """Scalar to minimize: the weighted mean, with label smoothing and z-loss."""
    cross_entropy: tf.Tensor
    """``[...]``: in nats, without smoothing and z-loss; 0 at ignored positions."""
    correct: tf.Tensor
    """``[...]``: 1 where no logit is larger than that of the label, else 0."""
    weights: tf.Tensor
    """``[...]``: as given, or 1; 0 at ignored positions."""


def tied_cross_entropy(
    hidden: TensorLike,
    table: TensorLike,
    bias: TensorLike | None,
    labels: TensorLike,
    weights: TensorLike | None = None,
    chunk_size: int | None = None,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    ignore_index: int = -100,
) -> tf.Tensor:
    """Mean cross-entropy of ``softmax(hidden @ table.T + bias)``, a chunk at a time.

    The value and its gradients are those of the plain formula. The logits of
    ``chunk_size`` positions are in memory at a time, and the gradients are computed in
    the same pass, with the three matrix products of plain training. Products are in the
    dtype of `hidden`; softmax, sums over chunks and results are float32. The float32
    gradient of the table is kept from the forward pass to the backward pass. Second
    derivatives are exact too, but hold all logits; put both tapes into one
    `tf.function`, or neither.

    Args:
        hidden: float ``[..., width]``.
        table: float ``[vocab, width]``, a variable or a tensor.
        bias: float ``[vocab]``, or None.
        labels: integers ``[...]`` in ``[0, vocab)`` or equal to `ignore_index`.
        weights: ``[...]``, without a gradient; None gives all positions the weight 1.
            The mean divides by their sum; under `tf.distribute`, each replica divides
            by the sum of its own.
        chunk_size: the largest number of positions at a time; chunks have equal sizes.
            None: about as many as have logits of 24 MiB, and at least about 256.
        label_smoothing: part of the target that is spread evenly over the vocabulary
            (Szegedy et al., "Rethinking the Inception architecture", 2016).
        z_loss: factor of the squared logarithm of the softmax denominator, which keeps
            logits from drifting (Chowdhery et al., "PaLM", 2022; they use 1e-4).
        ignore_index: label of the positions that do not count; their hidden states
            must be finite, too.

    Returns:
        The loss in nats, float32 scalar; zero when no position counts.

    Raises:
        InputError: shapes that do not fit each other, labels that are not integers, a
            chunk size below 1, a smoothing outside of ``[0, 1)``, a negative z-loss.

    Source: Hsu et al., "Liger Kernel", 2024, also compute gradients in the forward
    pass, chunk by chunk.

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
    hidden: TensorLike,
    table: TensorLike,
    bias: TensorLike | None,
    labels: TensorLike,
    weights: TensorLike | None = None,
    chunk_size: int | None = None,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    ignore_index: int = -100,
) -> CrossEntropyResult:
    """:func:`tied_cross_entropy`, with the results for each position.

    Args and errors are those of :func:`tied_cross_entropy`. Perplexity is
    ``exp(mean(cross_entropy))``, accuracy is ``mean(correct)``, both weighted.

    Returns:
        :class:`CrossEntropyResult`.

    Example:
        >>> import tensorflow as tf
        >>> hidden, table = tf.constant([[5.0], [5.0]]), tf.constant([[1.0], [-1.0]])
        >>> result = tied_cross_entropy_by_position(hidden, table, None, [0, 1])
        >>> result.correct.numpy().tolist()
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
    return CrossEntropyResult(mean, cross_entropy, correct, weights)


def _counted(hidden, labels, weights, ignore_index):
    """Valid labels, which of them count (1 or 0), and their weights."""
    labels = _as_many_as(hidden, labels, "labels")
    labels = tf.cast(labels, tf.int32 if labels.dtype.size <= 4 else tf.int64)
    counted = tf.cast(labels != ignore_index, tf.float32)
    labels = tf.where(counted > 0, labels, tf.zeros_like(labels))
    if weights is None:
        return labels, counted, counted
    weights = tf.stop_gradient(_as_many_as(hidden, weights, "weights"))
    return labels, counted, counted * tf.cast(weights, tf.float32)


def _number_of_chunks(labels, vocabulary, chunk_size):
    """An `int` if the number of positions is known, else a tensor; at least 1."""
    count = labels.shape.num_elements()
    count = tf.size(labels) if count is None else count
    if chunk_size is None:
        chunk_size = max(SMALLEST_CHUNK, CHUNK_BYTES // (4 * vocabulary))
        chunks = (count + chunk_size // 2) // chunk_size
    else:
        chunks = -(-count // chunk_size)
    return max(chunks, 1) if isinstance(chunks, int) else tf.maximum(chunks, 1)


def _as_many_as(hidden, rows, name):
    """`rows`; their shape is checked now if it is known, else when the graph runs."""
    if hidden.shape[:-1].is_fully_defined() and rows.shape.is_fully_defined():
        return rows
    message = f"{name}: expected the shape of hidden without its last axis"
    same = tf.debugging.assert_equal(tf.shape(rows), tf.shape(hidden)[:-1], message)
    with tf.control_dependencies([same] if same is not None else []):
        return tf.identity(rows)


def _tensor_or_none(value):
    return None if value is None else tf.convert_to_tensor(value)


def _check_shapes(hidden, table, bias, labels, weights):
    """InputError for tensors whose shapes or dtypes do not fit each other."""
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


def check_options(
    chunk_size: int | None, label_smoothing: float, z_loss: float
) -> None:
    """InputError for numbers that :func:`tied_cross_entropy` does not accept."""
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
