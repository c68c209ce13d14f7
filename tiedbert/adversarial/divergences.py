"""How far two outputs of a model are apart, as its loss would see it."""

from dataclasses import dataclass

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.adversarial.geometry import mean
from tiedbert.errors import InputError

_TINY = 1e-7  # what Keras clips probabilities to


@dataclass(frozen=True)
class KL:
    """Kullback-Leibler divergence of two categorical outputs, in nats.

    ``KL(p || q)``, summed over the last axis; in float32.

    Args:
        from_logits: whether the outputs are logits, else probabilities.
        symmetric: ``KL(p || q) + KL(q || p)`` instead.
        binary: each output is the probability (or logit) of an event of its own; the
            divergences are averaged over the last axis.

    Example:
        >>> import tensorflow as tf
        >>> same, far = tf.constant([[0.5, 0.5]]), tf.constant([[0.9, 0.1]])
        >>> KL(from_logits=False)(same, far).numpy().round(4).tolist()
        [0.5108000040054321]
    """

    from_logits: bool = True
    symmetric: bool = False
    binary: bool = False

    def __call__(self, p, q):
        """``[..., classes]`` twice -> ``[...]``."""
        log_p, log_q = self._logarithms(p), self._logarithms(q)
        shares = tf.exp(log_p)
        if self.symmetric:
            shares -= tf.exp(log_q)
        terms = shares * (log_p - log_q)
        if self.binary:
            return tf.reduce_mean(tf.reduce_sum(terms, axis=-1), axis=-1)
        return tf.reduce_sum(terms, axis=-1)

    def _logarithms(self, outputs):
        outputs = tf.cast(outputs, tf.float32)
        if not self.from_logits:
            outputs = tf.clip_by_value(outputs, _TINY, 1.0 - _TINY)
        if self.binary and self.from_logits:
            return tf.stack(
                [tf.math.log_sigmoid(outputs), tf.math.log_sigmoid(-outputs)], axis=-1
            )
        if self.binary:
            return tf.math.log(tf.stack([outputs, 1.0 - outputs], axis=-1))
        return tf.nn.log_softmax(outputs) if self.from_logits else tf.math.log(outputs)


@dataclass(frozen=True)
class SquaredError:
    """The mean squared difference of two outputs, over the last axis, in float32."""

    def __call__(self, p, q):
        """``[..., units]`` twice -> ``[...]``."""
        difference = tf.cast(p, tf.float32) - tf.cast(q, tf.float32)
        return tf.reduce_mean(tf.square(difference), axis=-1)


def divergence_between(training, p, q, weights=None, given=None, symmetric=True):
    """The mean divergence of two outputs of a model: a scalar, float32.

    Of several outputs the divergences are added, with the weights of their losses; an
    output without a loss does not count. In `tf.distribute` it is the share of a
    replica, as Keras' own losses are. As there, what the Keras mask of an output hides
    does not count.

    Args:
        training: the compiled model, whose losses tell what its outputs are.
        p: the outputs, in the model's structure.
        q: the same.
        weights: the sample weights of `fit`, or None.
        given: function of two outputs to use for every output; None: by the loss, KL
            for a cross-entropy and the squared difference else.
        symmetric: whether the KL is.
    """
    names = getattr(training, "output_names", None)
    losses, factors = _keras.given_losses(training)
    flat_p, flat_q = tf.nest.flatten(p), tf.nest.flatten(q)
    total = 0.0
    rows = zip(
        flat_p,
        flat_q,
        _for_outputs(losses, p, names),
        _for_outputs(factors, p, names),
        _for_outputs(weights, p, names),
        strict=True,
    )
    for one, other, loss, factor, weight in rows:
        if given is None and loss is None and losses is not None:
            continue
        measure = given or measure_for(loss, symmetric)
        apart = measure(_with_units(one), _with_units(other))
        value = _mean(apart, weight, _mask_of(one, other))
        total += value if factor is None else factor * value
    return total / tf.distribute.get_strategy().num_replicas_in_sync


def measure_for(loss, symmetric):
    """The divergence that goes with a loss of Keras; InputError if it does not tell."""
    if loss is None:
        raise InputError(
            "this method compares outputs, and needs the loss given to compile() to "
            "know what they are: a model whose loss is inside gives none (use "
            "masked_lm without with_loss); or give divergence="
        )
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    kind = loss if hasattr(loss, "__name__") else type(loss)
    name = kind.__name__.lower().replace("_", "")
    config = loss.get_config() if hasattr(loss, "get_config") else {}
    known = "crossentropy" in name or name in _OTHERS
    # Others may call theirs by the same name, and mean logits.
    if not known or not _keras.is_its_own(kind) or config.get("axis", -1) != -1:
        raise InputError(
            f"divergence: the loss {kind.__name__!r} does not tell what the outputs "
            "are: give divergence=KL(from_logits=...) or SquaredError()"
        )
    if name in _OTHERS:
        return SquaredError()
    return KL(bool(config.get("from_logits")), symmetric, binary="binary" in name)


_OTHERS = {
    *("meansquarederror", "mse", "meanabsoluteerror", "mae", "huber", "logcosh"),
    *("meansquaredlogarithmicerror", "cosinesimilarity", "hinge"),
}


def check_means(training, who):
    """InputError where a loss given to `compile` is no mean over the batch."""
    for loss in tf.nest.flatten(_keras.given_losses(training)[0]):
        if getattr(loss, "reduction", "mean") in (None, "none", "sum"):
            raise InputError(
                f"{who} needs a loss that is a mean over the batch, received "
                f"reduction={loss.reduction!r}: take the default reduction"
            )


def _for_outputs(values, outputs, names) -> list:
    """One value per output of what may be one for all, a list or a dict by name."""
    count = len(tf.nest.flatten(outputs))
    if isinstance(values, dict):
        keys = sorted(outputs) if isinstance(outputs, dict) else names
        return [values.get(key) for key in keys]
    if isinstance(values, list | tuple):
        return list(values)
    return [values] * count


def _with_units(output):
    """An output ``[batch]`` has one unit: its last axis is not that of its units."""
    return output[:, None] if len(output.shape) == 1 else output


def _mask_of(p, q):
    """The Keras mask of two outputs; a constant made of one has lost it."""
    mask = _keras.running_mask(q)
    return _keras.running_mask(p) if mask is None else mask


def _mean(values, weights, mask):
    """As Keras reduces a loss: the weighted sum over the number of values.

    Where there is a mask, over the number of those that it leaves.
    """
    if weights is not None:
        values *= _as_values(weights, values)
    if mask is None:
        return mean(values)
    left = tf.broadcast_to(_as_values(mask, values), tf.shape(values))
    return tf.math.divide_no_nan(tf.reduce_sum(values * left), tf.reduce_sum(left))


def _as_values(weights, values):
    """Weights or a mask as float32 that broadcasts against `values`."""
    weights = tf.cast(weights, tf.float32)
    while weights.shape.rank > values.shape.rank:
        weights = tf.squeeze(weights, axis=-1)
    while weights.shape.rank < values.shape.rank:
        weights = weights[..., None]
    return weights
