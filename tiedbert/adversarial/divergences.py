"""How far two outputs of a model are apart, as its loss would see it."""

import functools
import math
from dataclasses import dataclass

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.adversarial.norms import mean
from tiedbert.errors import InputError

_TINY = 1e-7  # what Keras clips probabilities to


@dataclass(frozen=True)
class KL:
    """Kullback-Leibler divergence of two categorical outputs, in nats.

    ``KL(p || q)``, summed over the last axis; in float32, exact to its rounding also
    where the outputs are certain and the logits far apart.

    Where an output of a model is the softmax of logits (`binary`: the sigmoid), those
    are compared instead, as Keras' losses do it. Other probabilities (a mean of two
    softmaxes, say) are clipped at 1e-7, as Keras' losses clip them: beyond that the
    divergence does not grow and has no gradient.

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
        p, q = self._logits(p), self._logits(q)
        if not self.binary:
            return _between_categories(p, q, self.symmetric)
        apart = _between_events(p, q)
        if self.symmetric:
            apart += _between_events(q, p)
        return tf.reduce_mean(apart, axis=-1)

    def _logits(self, outputs):
        kind = "Sigmoid" if self.binary else "Softmax"
        logits = _keras.logits_behind(outputs, kind)
        if logits is not None or self.from_logits:
            return tf.cast(outputs if logits is None else logits, tf.float32)
        outputs = tf.clip_by_value(tf.cast(outputs, tf.float32), _TINY, 1.0 - _TINY)
        logs = tf.math.log(outputs)
        return logs - tf.math.log(1.0 - outputs) if self.binary else logs


# A probability near 1 has lost to rounding what it leaves to the other classes, and so
# has its logarithm: the gradient of a saturated softmax would point elsewhere. So what
# belongs to the likeliest class is computed from the others, which lose nothing.


def _between_events(p, q):
    """``KL(p || q)`` of the sigmoids of logits ``[...]``, each by itself."""
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
    def apart(p, q):
        likeliest = tf.argmax(p, axis=-1, output_type=tf.int32)
        place = tf.stack([tf.range(tf.size(likeliest)), likeliest], axis=-1)
        log_p, log_q = tf.nn.log_softmax(p), tf.nn.log_softmax(q)
        # From here on those of the other classes, and 0 in the place of the likeliest.
        p, q = (_with(tf.exp(x), place, 0.0) for x in (log_p, log_q))
        itself_p, itself_q = _likeliest(log_p, p, place), _likeliest(log_q, q, place)
        ratio, itself = log_p - log_q, itself_p - itself_q
        # A class of probability 0 adds 0, though its logarithms have no difference.
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

    return apart


def _likeliest(logs, others, place):
    """The logarithm of the probability that `others` leave to a class."""
    rest = tf.reduce_sum(others, axis=-1)
    return tf.where(
        rest < 0.5,
        tf.math.log1p(-tf.minimum(rest, 0.5)),
        tf.gather_nd(logs, place),
    )


def _balanced(gradient, dy, place):
    """A gradient of logits, which adds up to 0 in each row; 0 where `dy` is."""
    gradient = tf.math.multiply_no_nan(gradient, dy)
    return _with(gradient, place, -tf.reduce_sum(gradient, axis=-1))


def _with(rows, place, values):
    """`rows` with `values` in one place of each; TensorFlow does it in place."""
    values = tf.broadcast_to(values, tf.shape(place)[:1])
    return tf.tensor_scatter_nd_update(rows, place, values)


@dataclass(frozen=True)
class SquaredError:
    """The mean squared difference of two outputs, over the last axis, in float32."""

    def __call__(self, p, q):
        """``[..., units]`` twice -> ``[...]``."""
        difference = tf.cast(p, tf.float32) - tf.cast(q, tf.float32)
        return tf.reduce_mean(tf.square(difference), axis=-1)


def divergence_between(
    training, p, q, weights=None, given=None, symmetric=True, labels=None
):
    """The mean divergence of two outputs of a model: a scalar, float32.

    Of several outputs the divergences are added, with the weights of their losses; an
    output without a loss does not count. In `tf.distribute` it is the share of a
    replica, as Keras' own losses are. As there, what the Keras mask of an output hides
    does not count, nor what has no label (the `ignore_class` of a loss).

    Args:
        training: the compiled model, whose losses tell what its outputs are.
        p: the outputs, in the model's structure.
        q: the same.
        weights: the sample weights of `fit`, or None.
        given: function of two outputs to use for every output; None: by the loss, KL
            for a cross-entropy and the squared difference else.
        symmetric: whether the KL is.
        labels: those of `fit`; None: what has no label counts as well.
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
        _for_outputs(labels, p, names),
        strict=True,
    )
    for one, other, loss, factor, weight, label in rows:
        if given is None and loss is None and losses is not None:
            continue
        measure = given or measure_for(loss, symmetric)
        masks = [_mask_of(one, other), labelled(loss, label)]
        masks = [mask for mask in masks if mask is not None]
        pair = [_finite_where_hidden(_with_units(x), masks) for x in (one, other)]
        value = _mean(measure(*pair), weight, masks)
        total += value if factor is None else factor * value
    return total / tf.distribute.get_strategy().num_replicas_in_sync


def rows_counted(training, outputs, labels):
    """Which rows count in the loss: float32 ``[batch]``, 1.0 or 0.0; None: all.

    Those of which the masks of Keras or a lack of labels leave nothing do not.
    """
    names = getattr(training, "output_names", None)
    losses, _ = _keras.given_losses(training)
    flat, counted = tf.nest.flatten(outputs), []
    given = _for_outputs(losses, outputs, names), _for_outputs(labels, outputs, names)
    for output, loss, label in zip(flat, *given, strict=True):
        if loss is None:
            continue
        rank = max(output.shape.rank - 1, 1)
        masks = [_keras.implicit_mask(output), labelled(loss, label)]
        masks = [_as_values(mask, rank) for mask in masks if mask is not None]
        if not masks:
            return None
        counted.append(tf.reduce_max(math.prod(masks), axis=list(range(1, rank))))
    return functools.reduce(tf.maximum, counted) if counted else None


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
    if not known or not _keras.is_from_keras(kind) or config.get("axis", -1) != -1:
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


def labelled(loss, labels):
    """Where there is a label, bool; None: everywhere, or the loss does not tell."""
    config = loss.get_config() if hasattr(loss, "get_config") else {}
    ignored = config.get("ignore_class")
    if ignored is None or labels is None:
        return None
    return tf.not_equal(labels, tf.cast(ignored, labels.dtype))


def _with_units(output):
    """An output ``[batch]`` has one unit: its last axis is not that of its units."""
    if len(output.shape) != 1:
        return output
    notes = [x if x is None else x[:, None] for x in _keras.metadata_of(output)]
    return _keras.with_metadata(output[:, None], notes)


def _finite_where_hidden(output, masks):
    """An output ``[..., units]`` with 0 for what is not finite where a mask hides it.

    Hidden values have the gradient 0, and 0 times what is not finite is NaN: the mask
    has to be before the divergence as well as behind it.
    """
    if not masks:
        return output

    def finite(values):
        values = tf.convert_to_tensor(values)
        shown = math.prod(_as_values(mask, values.shape.rank - 1) for mask in masks)
        kept = (shown[..., None] > 0.0) | tf.math.is_finite(values)
        return tf.where(kept, values, tf.zeros_like(values))

    mask, *logits = _keras.metadata_of(output)
    logits = [x if x is None else finite(x) for x in logits]
    return _keras.with_metadata(finite(output), [mask, *logits])


def _mask_of(p, q):
    """The Keras mask of two outputs; a constant made of one has lost it."""
    mask = _keras.implicit_mask(q)
    return _keras.implicit_mask(p) if mask is None else mask


def _mean(values, weights, masks):
    """As Keras reduces a loss: the weighted sum over the number of values.

    Where there are masks, over the number of those that all of them leave.
    """
    if weights is not None:
        values *= _as_values(weights, values.shape.rank)
    masks = [_as_values(mask, values.shape.rank) for mask in masks]
    if not masks:
        return mean(values)
    left = tf.broadcast_to(math.prod(masks), tf.shape(values))
    # Not a product: it would count what is not finite there.
    kept = tf.where(left > 0.0, values, tf.zeros_like(values))
    return tf.math.divide_no_nan(tf.reduce_sum(kept), tf.reduce_sum(left))


def _as_values(weights, rank):
    """Weights or a mask as float32 of a rank, to broadcast against values.

    The rank of what `fit` is given may not be known: axes are added, or left out, last.
    """
    shape = tf.concat([tf.shape(weights), tf.ones([rank], tf.int32)], axis=0)[:rank]
    values = tf.reshape(tf.cast(weights, tf.float32), shape)
    return tf.ensure_shape(values, [None] * rank)
