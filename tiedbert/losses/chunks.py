"""The pass over the logits: losses and gradients together, a chunk at a time.

The loss L of a position with hidden states h and label y, for a table E of V rows, a
bias b, label smoothing s and z-loss factor z, where e is the one-hot vector of y::

    l = E h + b,  p = softmax(l),  n = logsumexp(l)
    L = n - (1 - s) l[y] - s mean(l) + z n^2
    dL/dl = (1 + 2 z n) p - (1 - s) e - s / V
          = (1 + 2 z n) (p - e)  +  (s + 2 z n) e - s / V
            made by `_chunk`        made by `_regularized`
    dL/dh = E^T dL/dl,  dL/dE = dL/dl h^T,  dL/db = dL/dl
"""

from typing import NamedTuple

import tensorflow as tf


class Terms(NamedTuple):
    """Labels and float32 weights ``[count]``, s and z, and the number of chunks."""

    labels: tf.Tensor
    weights: tf.Tensor
    label_smoothing: float
    z_loss: float
    chunks: int | tf.Tensor


class _Rows(NamedTuple):
    """Results for each position: float32 ``[count]``, `d_hidden` ``[count, width]``."""

    cross_entropy: tf.Tensor
    log_normalizer: tf.Tensor
    correct: tf.Tensor
    d_hidden: tf.Tensor


def loss_sum(
    hidden: tf.Tensor, table: tf.Tensor, bias: tf.Tensor, terms: Terms
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The weighted sum of the losses L, and two results without a gradient.

    Args:
        hidden: float ``[count, width]``.
        table: float ``[vocab, width]``.
        bias: float32 ``[vocab]``.
        terms: :class:`Terms`.

    Returns:
        ``(loss, cross_entropy, correct)``, float32: a scalar with first and second
        derivatives, then ``[count]`` each: -log p[y], and one where no logit exceeds
        the label's, else zero.
    """

    @tf.custom_gradient
    def with_gradients(hidden, table, bias):
        given = [hidden, table, bias]
        # Without a gradient, so that no tape holds what the loop over chunks makes.
        values, gradients = _values_and_gradients(*map(tf.stop_gradient, given), terms)

        def backward(upstream, *_):
            first = _differentiable(gradients, given, terms)
            pairs = zip(first, given, strict=True)
            return [tf.cast(upstream * gradient, of.dtype) for gradient, of in pairs]

        return values, backward

    return with_gradients(hidden, table, bias)


def _differentiable(gradients, given, terms):
    """The gradients with derivatives of their own, which the plain formula gives."""

    @tf.custom_gradient
    def first_derivatives(*given):
        def backward(*upstream):
            return _second_derivatives(list(given), terms, upstream)

        return gradients, backward

    return first_derivatives(*given)


def _values_and_gradients(hidden, table, bias, terms):
    """The results of :func:`loss_sum`, and the float32 gradients of the loss."""
    rows, d_transposed_table, d_bias = _in_chunks(hidden, table, bias, terms)
    d_table = tf.transpose(d_transposed_table)
    gradients = rows.d_hidden, d_table, d_bias
    losses = rows.cross_entropy
    if terms.label_smoothing or terms.z_loss:
        more, gradients = _regularized(hidden, table, bias, terms, rows, gradients)
        losses += more
    loss = tf.reduce_sum(terms.weights * losses)
    return (loss, rows.cross_entropy, rows.correct), gradients


def _in_chunks(hidden, table, bias, terms):
    """:class:`_Rows` of all positions, and the gradients of ``table.T`` and bias."""
    table = tf.cast(table, hidden.dtype)
    whole = hidden, terms.labels, terms.weights
    chunks = terms.chunks
    if isinstance(chunks, int) and chunks == 1:
        return _chunk(*whole, table, bias, terms.z_loss)
    # Chunks of equal size need the least padding.
    count = tf.shape(hidden)[0]
    size = -(-count // chunks)
    parts = [_in_parts(values, chunks, size) for values in whole]

    def step(index, rows, d_table, d_bias):
        chunk = [part[index] for part in parts]
        found, *of_chunk = _chunk(*chunk, table, bias, terms.z_loss)
        rows = [array.write(index, row) for array, row in zip(rows, found, strict=True)]
        return index + 1, rows, d_table + of_chunk[0], d_bias + of_chunk[1]

    rows = [tf.TensorArray(tf.float32, chunks) for _ in _Rows._fields]
    start = tf.constant(0), rows, tf.zeros(table.shape[::-1]), tf.zeros(bias.shape)
    # One chunk after another: in parallel, all logits would exist at once.
    _, rows, d_table, d_bias = tf.while_loop(
        lambda index, *_: index < chunks, step, start, parallel_iterations=1
    )
    rows = _Rows(*[array.concat()[:count] for array in rows])
    return rows, d_table, d_bias


def _in_parts(rows, chunks, size):
    """``[count, ...]`` -> ``[chunks, size, ...]``, zeros at the end."""
    missing = chunks * size - tf.shape(rows)[0]
    rows = tf.pad(rows, [[0, missing]] + [[0, 0]] * (rows.shape.rank - 1))
    return tf.reshape(rows, [chunks, size, *rows.shape[1:]])


def _chunk(hidden, labels, weights, table, bias, z_loss):
    """:class:`_Rows` and gradients of one chunk, the only place where logits exist."""
    logits = tf.cast(tf.matmul(hidden, table, transpose_b=True), tf.float32)
    logits = tf.nn.bias_add(logits, bias)
    of_labels = tf.gather(logits, labels, batch_dims=1)
    correct = of_labels >= tf.reduce_max(logits, axis=1)
    # The last operation that reads the logits, so it may overwrite them: its second
    # result is the gradient p - e.
    with tf.control_dependencies([of_labels, correct]):
        cross_entropy, error = tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(
            features=logits, labels=labels
        )
    log_normalizer = cross_entropy + of_labels
    # Scale the hidden states, which are narrower than the logits.
    scale = weights * (1.0 + 2.0 * z_loss * log_normalizer)
    d_bias = tf.matmul(scale[None], error)[0]
    error = tf.cast(error, hidden.dtype)
    shrink = _shrink(hidden)
    scaled = (scale / shrink)[:, None] * tf.cast(hidden, tf.float32)
    rows = _Rows(
        cross_entropy,
        log_normalizer,
        correct=tf.cast(correct, tf.float32),
        d_hidden=scale[:, None] * tf.cast(tf.matmul(error, table), tf.float32),
    )
    d_table = tf.matmul(tf.cast(scaled, hidden.dtype), error, transpose_a=True)
    return rows, shrink * tf.cast(d_table, tf.float32), d_bias


def _shrink(hidden):
    """The divisor of a sum over a chunk while float16 has to hold it.

    As small as possible: the probabilities of a large vocabulary are small already.
    """
    if hidden.dtype != tf.float16:
        return 1.0
    return tf.maximum(1.0, tf.cast(tf.shape(hidden)[0], tf.float32) / 1024.0)


def _regularized(hidden, table, bias, terms, rows, gradients):
    """What smoothing and z-loss add to the losses; all gradients with their part.

    This part of dL/dl needs no logits: (s + 2 z n) e is sparse, and -s / V is the same
    for all tokens.
    """
    d_hidden, d_table, d_bias = gradients
    hidden, table = tf.cast(hidden, tf.float32), tf.cast(table, tf.float32)
    smoothing, labels = terms.label_smoothing, terms.labels
    center = tf.reduce_mean(table, axis=0)
    mean_logits = tf.linalg.matvec(hidden, center) + tf.reduce_mean(bias)
    of_labels = rows.log_normalizer - rows.cross_entropy
    more = smoothing * (of_labels - mean_logits)
    more += terms.z_loss * tf.square(rows.log_normalizer)

    at_labels = terms.weights * (smoothing + 2.0 * terms.z_loss * rows.log_normalizer)
    at_all = terms.weights * smoothing
    d_hidden += at_labels[:, None] * tf.gather(table, labels)
    d_hidden -= at_all[:, None] * center
    scatter = tf.tensor_scatter_nd_add
    d_table = scatter(d_table, labels[:, None], at_labels[:, None] * hidden)
    d_bias = scatter(d_bias, labels[:, None], at_labels)
    vocabulary = table.shape[0]
    d_table -= tf.linalg.matvec(hidden, at_all, transpose_a=True) / vocabulary
    d_bias -= tf.reduce_sum(at_all) / vocabulary
    return more, (d_hidden, d_table, d_bias)


def _second_derivatives(values, terms, upstream):
    """Second derivatives by the plain formula, with all logits at once."""
    with tf.GradientTape() as outer:
        outer.watch(values)
        with tf.GradientTape() as inner:
            inner.watch(values)
            loss = _plain_sum(*values, terms)
        gradients = inner.gradient(loss, values)
        gradients = [tf.cast(gradient, tf.float32) for gradient in gradients]
    return outer.gradient(gradients, values, output_gradients=upstream)


def _plain_sum(hidden, table, bias, terms):
    logits = tf.matmul(hidden, tf.cast(table, hidden.dtype), transpose_b=True)
    logits = tf.cast(logits, tf.float32) + bias
    log_normalizer = tf.reduce_logsumexp(logits, axis=1)
    targets = (1.0 - terms.label_smoothing) * tf.gather(
        logits, terms.labels, batch_dims=1
    ) + terms.label_smoothing * tf.reduce_mean(logits, axis=1)
    losses = log_normalizer - targets + terms.z_loss * tf.square(log_normalizer)
    return tf.reduce_sum(terms.weights * losses)
