"""Norms of perturbations: per example, in float32, over the allowed positions."""

import tensorflow as tf

from tiedbert.errors import InputError


def restrict(delta, positions):
    """Zero `delta` where `positions` (bool ``[batch, time]``, or None) is False."""
    if positions is None:
        return delta
    if positions.shape.rank != 2 or not positions.shape.is_compatible_with(
        delta.shape[:2]
    ):
        raise InputError(
            f"positions: expected bool [batch, time] for a hidden state {delta.shape}, "
            f"received {positions.shape}"
        )
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
    scaled, scale = _largest_out(tf.cast(delta, tf.float32))
    norm = tf.sqrt(tf.reduce_sum(tf.square(scaled), axis=_but_first(scaled)))
    return norm * tf.reshape(scale, [-1])


def l2_direction(gradient, positions=None):
    """`gradient` with L2 norm 1 for each example, and 0 where it is all 0.

    Example:
        >>> import tensorflow as tf
        >>> l2_direction(tf.constant([[[3.0], [4.0]]])).numpy().round(2).tolist()
        [[[0.6000000238418579], [0.800000011920929]]]
    """
    if gradient is None:
        raise InputError(
            "the loss does not depend on the cut point, or not differentiably: choose "
            "another one"
        )
    gradient = restrict(tf.cast(gradient, tf.float32), positions)
    scaled, _ = _largest_out(gradient)
    norm = tf.reshape(l2_norm(scaled), _per_example(scaled))
    return tf.math.divide_no_nan(scaled, norm)


def _largest_out(tensor):
    """Each example over its largest entry, so that no square over- or underflows."""
    scale = tf.reduce_max(tf.abs(tensor), axis=_but_first(tensor), keepdims=True)
    return tf.math.divide_no_nan(tensor, scale), scale


def _but_first(tensor) -> list:
    return list(range(1, tensor.shape.rank))


def _per_example(tensor) -> list:
    return [-1] + [1] * (tensor.shape.rank - 1)
