"""Norms of perturbations: per example, in float32, over the allowed positions."""

import tensorflow as tf


def restrict(delta, positions):
    """Zero `delta` where `positions` (bool ``[batch, time]``, or None) is False."""
    if positions is None:
        return delta
    allowed = tf.cast(positions, delta.dtype)
    for _ in range(delta.shape.rank - 2):
        allowed = allowed[..., None]
    return delta * allowed


def l2_norm(delta):
    """The L2 norm of each example, float32 ``[batch]``, over all its other axes.

    Example:
        >>> import tensorflow as tf
        >>> l2_norm(tf.constant([[[3.0], [4.0]], [[0.0], [2.0]]])).numpy().tolist()
        [5.0, 2.0]
    """
    delta = tf.cast(delta, tf.float32)
    # The largest entry is taken out first, so that no square over- or underflows.
    scale = tf.reduce_max(tf.abs(delta), axis=_but_first(delta), keepdims=True)
    scaled = tf.math.divide_no_nan(delta, scale)
    norm = tf.sqrt(tf.reduce_sum(tf.square(scaled), axis=_but_first(delta)))
    return norm * tf.reshape(scale, [-1])


def l2_direction(gradient, positions=None):
    """`gradient` with L2 norm 1 for each example, and 0 where it is all 0.

    Example:
        >>> import tensorflow as tf
        >>> l2_direction(tf.constant([[[3.0], [4.0]]])).numpy().round(2).tolist()
        [[[0.6000000238418579], [0.800000011920929]]]
    """
    gradient = restrict(tf.cast(gradient, tf.float32), positions)
    norm = tf.reshape(l2_norm(gradient), _per_example(gradient))
    return tf.math.divide_no_nan(gradient, norm)


def _but_first(tensor) -> list:
    return list(range(1, tensor.shape.rank))


def _per_example(tensor) -> list:
    return [-1] + [1] * (tensor.shape.rank - 1)
