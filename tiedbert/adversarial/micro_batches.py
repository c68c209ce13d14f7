"""Gradient accumulation: one optimizer step for a batch, split in micro-batches."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def gradients_in_micro_batches(
    function: Callable[[Any], tuple[list, Any]],
    batch: Any,
    micro_batches: int,
    weights: list,
) -> tuple[list, Any]:
    """The mean of the gradients of the micro-batches of a batch, one after another.

    Each micro-batch counts by its number of rows. Of a loss that is a mean over rows
    this is the gradient of the whole batch, in the memory of one micro-batch.

    Args:
        function: of a micro-batch -> its gradients, one per weight, None where a weight
            gets none; and any Python value, the same for all micro-batches.
        batch: nested tensors ``[rows, ...]``, None among them.
        micro_batches: how many, of equal size or one row less; at most a row each.
        weights: list of the variables that the gradients are of.

    Returns:
        ``(gradients, value)``: list of tensors, None where a weight gets none; and the
        Python value.

    Example:
        >>> import tensorflow as tf
        >>> weight = tf.Variable([1.0])
        >>> def mean(rows):
        ...     return [tf.reduce_mean(rows, axis=0)], "mean"
        >>> rows = tf.constant([[1.0], [2.0], [6.0]])
        >>> gradients, value = gradients_in_micro_batches(mean, rows, 2, [weight])
        >>> gradients[0].numpy().tolist(), value
        ([3.0], 'mean')
    """
    rows = tf.shape(tf.nest.flatten(batch)[0])[0]
    times = tf.minimum(micro_batches, rows)
    has_gradient, value = [], None

    def body(i, *sums):
        nonlocal has_gradient, value  # A loop carries tensors only.
        start, end = i * rows // times, (i + 1) * rows // times
        fraction = tf.cast(end - start, tf.float32) / tf.cast(rows, tf.float32)
        part = tf.nest.map_structure(lambda x: _rows(x, start, end), batch)
        gradients, value = function(part)
        has_gradient = [gradient is not None for gradient in gradients]
        pairs = zip(sums, gradients, strict=True)
        return i + 1, *(_add(total, g, fraction) for total, g in pairs)

    zeros = [tf.zeros_like(tf.convert_to_tensor(weight)) for weight in weights]
    # A loop rather than a list: TensorFlow would run all of them at once.
    _, *sums = tf.while_loop(
        lambda i, *_: i < times, body, (0, *zeros), parallel_iterations=1
    )
    pairs = zip(sums, has_gradient, strict=True)
    return [total if has else None for total, has in pairs], value


def _rows(tensor, start, end):
    return None if tensor is None else tensor[start:end]


def _add(total, gradient, fraction):
    if gradient is None:
        return total
    return total + tf.cast(fraction, total.dtype) * tf.convert_to_tensor(gradient)
