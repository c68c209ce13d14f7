"""Norms of perturbations: per example, in float32, over the allowed positions."""

import tensorflow as tf


class L2:
    """The L2 norm of an example, over all its positions and units."""

    @staticmethod
    def size(delta):
        """The norm, float32 ``[batch]``.

        Example:
            >>> import tensorflow as tf
            >>> L2.size(tf.constant([[[3.0], [4.0]], [[0.0], [2.0]]])).numpy().tolist()
            [5.0, 2.0]
        """
        return tf.reshape(_l2(delta, _but_first(delta)), [-1])

    @staticmethod
    def direction(gradient):
        """The step of size 1 that climbs most; 0 where `gradient` is all 0.

        Example:
            >>> import tensorflow as tf
            >>> L2.direction(tf.constant([[3.0, 4.0]])).numpy().round(2).tolist()
            [[0.6000000238418579, 0.800000011920929]]
        """
        return _unit(gradient, _but_first(gradient))

    @staticmethod
    def project(delta, radius):
        """The nearest point of size `radius`, float32 ``[batch]``, at most."""
        return _shrink(delta, radius, _but_first(delta))

    @staticmethod
    def random(like, mask=None):
        """A draw of size 1 at most: uniform in the largest cube in the ball.

        Source: Zhu et al., "FreeLB", 2020, algorithm 1.
        """
        return _cube(like) / tf.sqrt(_count(like, mask))


class Linf:
    """The largest magnitude in an example."""

    @staticmethod
    def size(delta):
        """The norm, float32 ``[batch]``."""
        return tf.reduce_max(tf.abs(tf.cast(delta, tf.float32)), _but_first(delta))

    @staticmethod
    def direction(gradient):
        """The signs of `gradient`."""
        return tf.sign(tf.cast(gradient, tf.float32))

    @staticmethod
    def project(delta, radius):
        """`delta`, clipped."""
        radius = per_example(radius, delta)
        return tf.clip_by_value(delta, -radius, radius)

    @staticmethod
    def random(like, mask=None):
        """Uniform in the ball."""
        return _cube(like)


class ScaledLinf(Linf):
    """The same ball, climbed along the gradient itself rather than its signs.

    Source: Jiang et al., "SMART", 2020, algorithm 1.
    """

    @staticmethod
    def direction(gradient):
        """`gradient` over its largest magnitude in the example; 0 where it is 0."""
        return _largest_out(tf.cast(gradient, tf.float32), _but_first(gradient))[0]


class L2PerToken:
    """The largest L2 norm among the tokens of an example: the last axis is a token's.

    Every token may move by the radius, however long the text is.
    """

    @staticmethod
    def size(delta):
        """The norm, float32 ``[batch]``."""
        norms = _l2(delta, [-1])
        return tf.reduce_max(norms, _but_first(norms))

    @staticmethod
    def direction(gradient):
        """Each token's gradient with norm 1; 0 where it is 0."""
        return _unit(gradient, [-1])

    @staticmethod
    def project(delta, radius):
        """Each token's part shortened to `radius`, float32 ``[batch]``."""
        return _shrink(delta, radius, [-1])

    @staticmethod
    def random(like, mask=None):
        """Each token's part uniform in the largest cube in its ball."""
        return _cube(like) / tf.sqrt(tf.cast(tf.shape(like)[-1], tf.float32))


NORMS = {
    "l2": L2,
    "linf": Linf,
    "linf_scaled": ScaledLinf,
    "l2_per_token": L2PerToken,
}


def restrict(delta, mask):
    """Zero `delta` where `mask`, bool of its first axes or None, is False."""
    if mask is None:
        return delta
    # Not a product: what is not finite there would stay so.
    return tf.where(_spread(mask, delta), delta, tf.zeros_like(delta))


def rms(hidden, mask=None):
    """The root mean square of each example, float32 ``[batch]``.

    Example:
        >>> import tensorflow as tf
        >>> rms(tf.constant([[3.0, -3.0], [0.0, 2.0]])).numpy().round(3).tolist()
        [3.0, 1.4140000343322754]
    """
    hidden = restrict(tf.cast(hidden, tf.float32), mask)
    count = tf.reshape(_count(hidden, mask), [-1])
    return tf.math.divide_no_nan(L2.size(hidden), tf.sqrt(count))


def finite(tensor):
    """Which examples hold only finite numbers, bool ``[batch]``."""
    return tf.reduce_all(tf.math.is_finite(tensor), _but_first(tensor))


def mean(values):
    """The mean; 0 of no values, as a replica may have no rows."""
    count = tf.cast(tf.size(values), values.dtype)
    return tf.math.divide_no_nan(tf.reduce_sum(values), count)


def per_example(values, like):
    """``[batch]`` in a shape that broadcasts against `like`, ``[batch, ...]``."""
    return tf.reshape(values, [-1] + [1] * (like.shape.rank - 1))


def _l2(delta, axes):
    scaled, scale = _largest_out(tf.cast(delta, tf.float32), axes)
    return scale * tf.sqrt(tf.reduce_sum(tf.square(scaled), axes, keepdims=True))


def _unit(gradient, axes):
    scaled, _ = _largest_out(tf.cast(gradient, tf.float32), axes)
    norm = tf.sqrt(tf.reduce_sum(tf.square(scaled), axes, keepdims=True))
    return tf.math.divide_no_nan(scaled, norm)


def _shrink(delta, radius, axes):
    radius, norm = per_example(radius, delta), _l2(delta, axes)
    # Untouched inside: a product with 1 that was computed might round.
    return tf.where(norm > radius, radius * _unit(delta, axes), delta)


def _largest_out(tensor, axes):
    """`tensor` over its largest entries, so that no square over- or underflows."""
    scale = tf.reduce_max(tf.abs(tensor), axes, keepdims=True)
    return tf.math.divide_no_nan(tensor, scale), scale


def _cube(like):
    return tf.random.uniform(tf.shape(like), -1.0, 1.0)


def _count(like, mask):
    """How many numbers of each example may move, float32, broadcast against it."""
    shape = tf.cast(tf.shape(like), tf.float32)
    if mask is None:
        return tf.reshape(tf.reduce_prod(shape[1:]), [1] * like.shape.rank)
    tokens = tf.reduce_sum(tf.cast(mask, tf.float32), _but_first(mask))
    # Where nothing may move, everything is zeroed anyway.
    count = tf.maximum(tokens, 1.0) * tf.reduce_prod(shape[mask.shape.rank :])
    return per_example(count, like)


def _spread(mask, like):
    mask = tf.cast(mask, tf.bool)
    for _ in range(like.shape.rank - mask.shape.rank):
        mask = mask[..., None]
    return mask


def _but_first(tensor) -> list:
    return list(range(1, tensor.shape.rank))
