"""The pass over the logits: losses and gradients together, a chunk at a time.

For a position with hidden state h, label y and weight w, table E and bias b::

    z = E h + b,  n = log sum exp(z),  p = softmax(z)
    cross_entropy = n - z_y
    loss = (1 - s) cross_entropy + s (n - mean(z)) + c n^2
    d loss / d z = (1 + 2 c n) p - (1 - s) onehot(y) - s / vocab

with label smoothing s and z-loss c. The pass computes
``(1 + 2 c n) (p - onehot(y))``, which is the whole gradient if s = c = 0;
:func:`_regularized` adds ``(s + 2 c n) onehot(y) - s / vocab``, which needs no logits.
With g = w d loss / d z, the gradients are ``E^T g`` for h, the sum of ``g h^T`` for E,
and the sum of g for b.
"""

from typing import NamedTuple

import tensorflow as tf


class Terms(NamedTuple):
    """Labels and weights of the positions, and the options of the loss."""

    labels: tf.Tensor
    weights: tf.Tensor
    label_smoothing: float
    z_loss: float
    chunks: int | tf.Tensor


class _Rows(NamedTuple):
    """The results of a chunk for each of its positions."""

    cross_entropy: tf.Tensor
    log_normalizer: tf.Tensor
    correct: tf.Tensor
    d_hidden: tf.Tensor


def loss_sum(
    hidden: tf.Tensor, table: tf.Tensor, bias: tf.Tensor, terms: Terms
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The weighted sum of the losses, differentiable; cross-entropies; correctness.

    The loss is a scalar, so its gradients are known up to a factor before the backward
    pass, which multiplies them by `upstream`. The inner custom gradient makes these
    gradients differentiable in turn.
    """

    @tf.custom_gradient
    def with_gradients(hidden, table, bias):
        # stop_gradient: a tape would keep the tensors of the loop over the chunks.
        given = map(tf.stop_gradient, (hidden, table, bias))
        values, gradients = _values_and_gradients(*given, terms)

        @tf.custom_gradient
        def first_derivatives(hidden, table, bias):
            def backward(*upstream):
                return _second_derivatives([hidden, table, bias], terms, upstream)

            return gradients, backward

        def backward(upstream, *_):
            given = hidden, table, bias
            return [
                tf.cast(upstream * gradient, of.dtype)
                for gradient, of in zip(first_derivatives(*given), given, strict=True)
            ]

        return values, backward

    return with_gradients(hidden, table, bias)


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
    """:class:`_Rows` of all positions, the gradient of the transposed table, and that
    of the bias."""
    table = tf.cast(table, hidden.dtype)
    whole = hidden, terms.labels, terms.weights
    chunks = terms.chunks
    if isinstance(chunks, int) and chunks == 1:
        return _chunk(*whole, table, bias, terms.z_loss)
    # All of one size, so that few positions are padding.
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
    # One chunk after another: in parallel, all logits would be in memory at once.
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
    """:class:`_Rows` of a chunk, and its gradients. Only this function has logits."""
    logits = tf.cast(tf.matmul(hidden, table, transpose_b=True), tf.float32)
    logits = tf.nn.bias_add(logits, bias)
    of_labels = tf.gather(logits, labels, batch_dims=1)
    correct = of_labels >= tf.reduce_max(logits, axis=1)
    # This op comes last, so that it can write its second result, softmax - one-hot,
    # into the memory of the logits.
    with tf.control_dependencies([of_labels, correct]):
        cross_entropy, error = tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(
            features=logits, labels=labels
        )
    log_normalizer = cross_entropy + of_labels
    # Scale hidden states and not logits: a pass over the logits costs time.
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
    """The divisor that keeps a float16 sum over a chunk finite.

    It is small, because the probabilities of a large vocabulary are small already.
    """
    if hidden.dtype != tf.float16:
        return 1.0
    return tf.maximum(1.0, tf.cast(tf.shape(hidden)[0], tf.float32) / 1024.0)


def _regularized(hidden, table, bias, terms, rows, gradients):
    """What smoothing and z-loss add to the losses, and the gradients with them added.

    Of the gradient with respect to the logits, only the part with the softmax needs
    the logits, and `_chunk` has computed it. The part at the labels is sparse; the part
    that is equal for all tokens is one row.
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
