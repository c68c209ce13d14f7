"""Gradient accumulation: one optimizer step for a batch, in micro-batches."""

import tensorflow as tf


def gradients_in_micro_batches(function, batch, micro_batches, weights) -> list:
    """The mean of the gradients of micro-batches of a batch, one after another.

    Each micro-batch counts by its rows: of a loss that is a mean over rows this is the
    gradient of the whole batch, in the memory of one.

    Args:
        function: of a micro-batch -> gradients, None where a weight gets none.
        batch: nested tensors ``[rows, ...]``, None among them.
        micro_batches: how many, of equal size or one row less; at most a row each.
        weights: the variables that the gradients are of.

    Example:
        >>> import tensorflow as tf
        >>> weight = tf.Variable([1.0])
        >>> def mean(rows):
        ...     return [tf.reduce_mean(rows, axis=0)]
        >>> rows = tf.constant([[1.0], [2.0], [6.0]])
        >>> gradients_in_micro_batches(mean, rows, 2, [weight])[0].numpy().tolist()
        [3.0]
    """
    rows = tf.shape(tf.nest.flatten(batch)[0])[0]
    times = tf.minimum(micro_batches, rows)
    reached = []

    def body(i, *sums):
        start, end = i * rows // times, (i + 1) * rows // times
        share = tf.cast(end - start, tf.float32) / tf.cast(rows, tf.float32)
        gradients = function(
            tf.nest.map_structure(lambda t: _rows(t, start, end), batch)
        )
        reached[:] = [gradient is not None for gradient in gradients]
        pairs = zip(sums, gradients, strict=True)
        return i + 1, *(
            total if g is None else _add(total, g, share) for total, g in pairs
        )

    zeros = [tf.zeros_like(tf.convert_to_tensor(weight)) for weight in weights]
    # A loop rather than a list: TensorFlow would run all of them at once.
    _, *sums = tf.while_loop(
        lambda i, *_: i < times, body, (0, *zeros), parallel_iterations=1
    )
    return [total if r else None for total, r in zip(sums, reached, strict=True)]


def _rows(tensor, start, end):
    return None if tensor is None else tensor[start:end]


def _add(total, gradient, share):
    return total + tf.cast(share, total.dtype) * tf.convert_to_tensor(gradient)
