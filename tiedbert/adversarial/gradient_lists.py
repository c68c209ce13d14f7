"""Lists of gradients, one per variable or tensor; None where there is none."""

import tensorflow as tf


def add_gradients(left: list | None, right: list) -> list:
    """The sums of two lists, entry by entry; `left` None: no list yet."""
    if left is None:
        return list(right)
    return [_add_entries(*entries) for entries in zip(left, right, strict=True)]


def all_finite(gradient: tf.Tensor | tf.IndexedSlices) -> tf.Tensor:
    """Whether a gradient holds only finite numbers, bool ``[1]``."""
    values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
    if values.dtype.size < 4:
        values = tf.cast(values, tf.float32)
    # One pass over it: a sum of numbers that are not all finite is not finite.
    return tf.math.is_finite(tf.reduce_sum(values))[None]


def zero_unless(condition: tf.Tensor, gradients: list) -> list:
    """The gradients where `condition`, bool scalar, is True; else zeros."""
    given = [g for g in gradients if g is not None]
    chosen = iter(tf.cond(condition, lambda: given, lambda: [_zeros(g) for g in given]))
    return [None if g is None else next(chosen) for g in gradients]


def _add_entries(left, right):
    if left is None or right is None:
        return right if left is None else left
    # A tied table has a sparse gradient from the input and a dense one from the head.
    return tf.convert_to_tensor(left) + tf.convert_to_tensor(right)


def _zeros(gradient):
    if isinstance(gradient, tf.IndexedSlices):
        zeros = tf.zeros_like(gradient.values)
        return tf.IndexedSlices(zeros, gradient.indices, gradient.dense_shape)
    return tf.zeros_like(gradient)
