"""Norms of perturbations: per example, in float32, over the allowed tokens."""

from typing import Any

import tensorflow as tf


class L2:
    """The L2 norm of an example, over all its tokens and units."""

    @staticmethod
    def size(delta: tf.Tensor) -> tf.Tensor:
        """The norm, float32 ``[batch]``.

        Example:
            >>> import tensorflow as tf
            >>> L2.size(tf.constant([[[3.0], [4.0]], [[0.0], [2.0]]])).numpy().tolist()
            [5.0, 2.0]
        """
        return tf.reshape(_l2(delta, _but_first(delta)), [-1])

    @staticmethod
    def direction(gradient: tf.Tensor) -> tf.Tensor:
        """The step of size 1 along which the loss grows most; 0 for a gradient of 0.

        Example:
            >>> import tensorflow as tf
            >>> L2.direction(tf.constant([[3.0, 4.0]])).numpy().round(2).tolist()
            [[0.6000000238418579, 0.800000011920929]]
        """
        return _unit(gradient, _but_first(gradient))

    @staticmethod
    def project(delta: tf.Tensor, radius: tf.Tensor) -> tf.Tensor:
        """The nearest vector whose size is at most `radius`, float32 ``[batch]``."""
        return _shrink(delta, radius, _but_first(delta))

    @staticmethod
    def random(like: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
        """A draw of size 1 at most, uniform in the largest cube in the ball.

        Source: Zhu et al., "FreeLB", 2020, algorithm 1.
        """
        return _cube(like) / tf.sqrt(_count(like, mask))


class Linf:
    """The largest magnitude in an example."""

    @staticmethod
    def size(delta: tf.Tensor) -> tf.Tensor:
        """The norm, float32 ``[batch]``."""
        return tf.reduce_max(tf.abs(tf.cast(delta, tf.float32)), _but_first(delta))

    @staticmethod
    def direction(gradient: tf.Tensor) -> tf.Tensor:
        """The signs of `gradient`."""
        return tf.sign(tf.cast(gradient, tf.float32))

    @staticmethod
    def project(delta: tf.Tensor, radius: tf.Tensor) -> tf.Tensor:
        """`delta` clipped to ``[-radius, radius]``."""
        radius = per_example(radius, delta)
        return tf.clip_by_value(delta, -radius, radius)

    @staticmethod
    def random(like: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
        """Uniform in the ball."""
        return _cube(like)


class ScaledLinf(Linf):
    """The ball of `Linf`, with steps along the gradient itself, not its signs.

    Source: Jiang et al., "SMART", 2020, algorithm 1.
    """

    @staticmethod
    def direction(gradient: tf.Tensor) -> tf.Tensor:
        """`gradient` over its largest magnitude in the example; 0 where it is 0."""
        return _scaled_to_one(tf.cast(gradient, tf.float32), _but_first(gradient))[0]


class L2PerToken:
    """The largest L2 norm among the tokens of an example, over the last axis.

    Every token may be moved by the radius, whatever the number of tokens is.
    """

    @staticmethod
    def size(delta: tf.Tensor) -> tf.Tensor:
        """The norm, float32 ``[batch]``."""
        norms = _l2(delta, [-1])
        return tf.reduce_max(norms, _but_first(norms))

    @staticmethod
    def direction(gradient: tf.Tensor) -> tf.Tensor:
        """Each token's gradient with norm 1; 0 where it is 0."""
        return _unit(gradient, [-1])

    @staticmethod
    def project(delta: tf.Tensor, radius: tf.Tensor) -> tf.Tensor:
        """Shorten the part of each token to `radius`, float32 ``[batch]``."""
        return _shrink(delta, radius, [-1])

    @staticmethod
    def random(like: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
        """A draw, for each token uniform in the largest cube in its ball."""
        return _cube(like) / tf.sqrt(tf.cast(tf.shape(like)[-1], tf.float32))


NORMS: dict[str, Any] = {
    "l2": L2,
    "linf": Linf,
    "linf_scaled": ScaledLinf,
    "l2_per_token": L2PerToken,
}


def restrict(delta: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """`delta` with 0 where `mask`, bool of its first axes or None, is False."""
    if mask is None:
        return delta
    # Not a product: 0 times what is not finite is not finite.
    return tf.where(_spread(mask, delta), delta, tf.zeros_like(delta))


def rms(hidden: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
    """The root mean square of each example, float32 ``[batch]``.

    Example:
        >>> import tensorflow as tf
        >>> rms(tf.constant([[3.0, -3.0], [0.0, 2.0]])).numpy().round(3).tolist()
        [3.0, 1.4140000343322754]
    """
    hidden = restrict(tf.cast(hidden, tf.float32), mask)
    count = tf.reshape(_count(hidden, mask), [-1])
    return tf.math.divide_no_nan(L2.size(hidden), tf.sqrt(count))


def finite(tensor: tf.Tensor) -> tf.Tensor:
    """Which examples hold only finite numbers, bool ``[batch]``."""
    return tf.reduce_all(tf.math.is_finite(tensor), _but_first(tensor))


def mean(values: tf.Tensor) -> tf.Tensor:
    """The mean; 0 of no values, as a replica may have no rows."""
    count = tf.cast(tf.size(values), values.dtype)
    return tf.math.divide_no_nan(tf.reduce_sum(values), count)


def per_example(values: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """``[batch]`` in a shape that broadcasts against `like`, ``[batch, ...]``."""
    return tf.reshape(values, [-1] + [1] * (like.shape.rank - 1))


def _l2(delta, axes):
    scaled, scale = _scaled_to_one(tf.cast(delta, tf.float32), axes)
    return scale * tf.sqrt(tf.reduce_sum(tf.square(scaled), axes, keepdims=True))


def _unit(gradient, axes):
    scaled, _ = _scaled_to_one(tf.cast(gradient, tf.float32), axes)
    norm = tf.sqrt(tf.reduce_sum(tf.square(scaled), axes, keepdims=True))
    return tf.math.divide_no_nan(scaled, norm)


def _shrink(delta, radius, axes):
    radius, norm = per_example(radius, delta), _l2(delta, axes)
    # A vector inside stays as it is: a product with a computed 1 might round.
    return tf.where(norm > radius, radius * _unit(delta, axes), delta)


def _scaled_to_one(tensor, axes):
    """`tensor` over its largest magnitude, and that: no square over- or underflows."""
    scale = tf.reduce_max(tf.abs(tensor), axes, keepdims=True)
    return tf.math.divide_no_nan(tensor, scale), scale


def _cube(like):
    return tf.random.uniform(tf.shape(like), -1.0, 1.0)


def _count(like, mask):
    """How many numbers of each example are perturbed, float32, to broadcast."""
    shape = tf.cast(tf.shape(like), tf.float32)
    if mask is None:
        return tf.reshape(tf.reduce_prod(shape[1:]), [1] * like.shape.rank)
    tokens = tf.reduce_sum(tf.cast(mask, tf.float32), _but_first(mask))
    # Where no token is perturbed, everything is set to 0 anyway.
    count = tf.maximum(tokens, 1.0) * tf.reduce_prod(shape[mask.shape.rank :])
    return per_example(count, like)


def _spread(mask, like):
    mask = tf.cast(mask, tf.bool)
    for _ in range(like.shape.rank - mask.shape.rank):
        mask = mask[..., None]
    return mask


def _but_first(tensor) -> list:
    return list(range(1, tensor.shape.rank))
