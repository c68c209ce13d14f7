"""Gradient accumulation: a batch worked through in slices, for one optimizer step."""

import tensorflow as tf


def gradients_in_slices(function, batch, slices, weights) -> list:
    """The mean of the gradients of slices of a batch, one after another.

    Each slice counts by its rows: of a loss that is a mean over rows this is the
    gradient of the whole batch, in the memory of a slice.

    Args:
        function: of a slice -> gradients, None where a weight gets none.
        batch: nested tensors ``[rows, ...]``, None among them.
        slices: how many, of equal size or one row less; at most a row each.
        weights: the variables that the gradients are of.

    Example:
        >>> import tensorflow as tf
        >>> weight = tf.Variable([1.0])
        >>> def mean(rows):
        ...     return [tf.reduce_mean(rows, axis=0)]
        >>> rows = tf.constant([[1.0], [2.0], [6.0]])
        >>> gradients_in_slices(mean, rows, 2, [weight])[0].numpy().tolist()
        [3.0]
    """
    rows = tf.shape(tf.nest.flatten(batch)[0])[0]
    times = tf.minimum(slices, rows)
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
    # A loop rather than a list: TensorFlow would run all slices at once.
    _, *sums = tf.while_loop(
        lambda i, *_: i < times, body, (0, *zeros), parallel_iterations=1
    )
    return [total if r else None for total, r in zip(sums, reached, strict=True)]


def _rows(tensor, start, end):
    return None if tensor is None else tensor[start:end]


def _add(total, gradient, share):
    return total + tf.cast(share, total.dtype) * tf.convert_to_tensor(gradient)
