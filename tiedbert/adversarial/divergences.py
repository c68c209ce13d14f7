"""Divergences between two outputs of a model: KL and the squared difference."""

from dataclasses import dataclass

import tensorflow as tf

from tiedbert import _keras

_CLIP = 1e-7  # Keras clips probabilities to this distance from 0 and 1.


@dataclass(frozen=True)
class KL:
    """Kullback-Leibler divergence of two categorical outputs, in nats.

    ``KL(p || q)``, summed over the last axis. It is computed in float32, and exact to
    rounding even where probabilities are near 1 and logits differ much.

    Where an output of a model is the softmax of logits (`binary`: the sigmoid), the
    logits are compared, as in the losses of Keras. Other probabilities (e.g. a mean of
    two softmaxes) are clipped at 1e-7, as those losses do: beyond that the divergence
    does not grow and has no gradient.

    Args:
        from_logits: True (the default): the outputs are logits. False: probabilities.
        symmetric: True: ``KL(p || q) + KL(q || p)``. False (the default):
            ``KL(p || q)``.
        binary: True: each unit is the probability (or logit) of an event of its own,
            and the divergences are averaged over the last axis. False (the default):
            the last axis holds the classes of one distribution.

    Example:
        >>> import tensorflow as tf
        >>> same, far = tf.constant([[0.5, 0.5]]), tf.constant([[0.9, 0.1]])
        >>> KL(from_logits=False)(same, far).numpy().round(4).tolist()
        [0.5108000040054321]
    """

    from_logits: bool = True
    symmetric: bool = False
    binary: bool = False

    def __call__(self, p: tf.Tensor, q: tf.Tensor) -> tf.Tensor:
        """Compare two float tensors ``[..., classes]``; float32 ``[...]``."""
        p, q = self._logits(p), self._logits(q)
        if not self.binary:
            return _between_categories(p, q, self.symmetric)
        divergence = _between_events(p, q)
        if self.symmetric:
            divergence += _between_events(q, p)
        return tf.reduce_mean(divergence, axis=-1)

    def _logits(self, outputs):
        activation = "Sigmoid" if self.binary else "Softmax"
        logits = _keras.logits_behind(outputs, activation)
        if logits is not None or self.from_logits:
            return tf.cast(outputs if logits is None else logits, tf.float32)
        outputs = tf.clip_by_value(tf.cast(outputs, tf.float32), _CLIP, 1.0 - _CLIP)
        logs = tf.math.log(outputs)
        return logs - tf.math.log(1.0 - outputs) if self.binary else logs


# A probability p near 1 has lost 1 - p to rounding, and so has its logarithm: the
# gradient of a saturated softmax would have a wrong direction. So the terms of the
# likeliest class are computed from the other classes, whose probabilities are exact.


def _between_events(p, q):
    """``KL(p || q)`` of the sigmoids of logits ``[...]``, element by element."""
    sign = tf.where(p > 0.0, -1.0, 1.0)  # the unlikelier of the two cases
    p, q = sign * p, sign * q
    return tf.sigmoid(p) * (p - q) + tf.nn.softplus(q) - tf.nn.softplus(p)


def _between_categories(p, q, symmetric):
    """``KL(p || q)`` of the softmax of logits ``[..., classes]``; + ``KL(q || p)``."""
    flat = [tf.reshape(x, [-1, tf.shape(x)[-1]]) for x in (p, q)]
    return tf.reshape(_between_rows(symmetric)(*flat), tf.shape(p)[:-1])


def _between_rows(symmetric):
    """A function of two ``[rows, classes]``, with its gradients in closed form."""

    @tf.custom_gradient
    def divergence(p, q):
        likeliest = tf.argmax(p, axis=-1, output_type=tf.int32)
        place = tf.stack([tf.range(tf.size(likeliest)), likeliest], axis=-1)
        log_p, log_q = tf.nn.log_softmax(p), tf.nn.log_softmax(q)
        # From here on the probabilities of the other classes, 0 for the likeliest one.
        p, q = (_with(tf.exp(x), place, 0.0) for x in (log_p, log_q))
        itself_p, itself_q = _likeliest(log_p, p, place), _likeliest(log_q, q, place)
        ratio, itself = log_p - log_q, itself_p - itself_q
        # A class of probability 0 adds 0; the difference of its logarithms is NaN.
        terms_p, terms_q = (tf.math.multiply_no_nan(ratio, x) for x in (p, q))
        to_q = tf.reduce_sum(terms_p, axis=-1) + tf.exp(itself_p) * itself
        to_p = -tf.reduce_sum(terms_q, axis=-1) - tf.exp(itself_q) * itself

        def gradient(dy):
            of_p = terms_p - to_q[:, None] * p
            of_q = q - p
            if symmetric:
                of_p += p - q
                of_q -= terms_q + to_p[:, None] * q
            return tuple(_balanced(x, dy[:, None], place) for x in (of_p, of_q))

        return (to_q + to_p if symmetric else to_q), gradient

    return divergence


def _likeliest(logs, others, place):
    """The logarithm of the probability of the likeliest class, 1 minus `others`."""
    rest = tf.reduce_sum(others, axis=-1)
    return tf.where(
        rest < 0.5,
        tf.math.log1p(-tf.minimum(rest, 0.5)),
        tf.gather_nd(logs, place),
    )


def _balanced(gradient, dy, place):
    """A gradient of logits times `dy`, with the entry that makes each row sum to 0."""
    gradient = tf.math.multiply_no_nan(gradient, dy)
    return _with(gradient, place, -tf.reduce_sum(gradient, axis=-1))


def _with(rows, place, values):
    """`rows` with `values` in one place of each row."""
    values = tf.broadcast_to(values, tf.shape(place)[:1])
    return tf.tensor_scatter_nd_update(rows, place, values)


@dataclass(frozen=True)
class SquaredError:
    """The mean squared difference of two outputs, over the last axis, in float32."""

    def __call__(self, p: tf.Tensor, q: tf.Tensor) -> tf.Tensor:
        """Compare two float tensors ``[..., units]``; float32 ``[...]``."""
        difference = tf.cast(p, tf.float32) - tf.cast(q, tf.float32)
        return tf.reduce_mean(tf.square(difference), axis=-1)
