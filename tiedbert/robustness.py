"""How accuracy falls as the activations of a model are perturbed."""

import warnings

import numpy as np
import tensorflow as tf

from tiedbert import _keras
from tiedbert.adversarial.ball import Ball
from tiedbert.adversarial.checks import is_count
from tiedbert.adversarial.cut_model import CutModel, OneOf
from tiedbert.adversarial.geometry import finite
from tiedbert.errors import InputError


def curve(model, dataset, at, method, epsilons, positions=None, restarts=1):
    """Accuracy against the radius of an attack on the activations at a cut point.

    The attack sees the model in inference mode and the true labels, and raises the
    loss that the model was compiled with. An example counts at a radius when it is
    right unperturbed, and no attack of this radius or of a smaller one in `epsilons`
    makes it wrong: those lie in the ball too.

    Args:
        model: a functional classifier, or a built Sequential, compiled with a loss;
            output ``[batch, classes]``.
        dataset: `tf.data.Dataset` of batches ``(inputs, labels)``, int labels
            ``[batch]``; or of ``(inputs, labels, sample_weight)``, weights ``[batch]``:
            then the accuracies are weighted means.
        at: the cut points, as for :class:`tiedbert.adversarial.AdversarialTraining`.
        method: an attack: ``FGM()``, ``PGD()`` or ``RandomNoise()``; its epsilon is
            replaced (a `step_size` is not: None grows with the radius).
        epsilons: radii, numbers >= 0, in the method's norm; 0 is the clean accuracy.
        positions: as for :class:`tiedbert.adversarial.AdversarialTraining`.
        restarts: attacks on each example; one that succeeds is enough. More than one
            is of use to a method that draws, e.g. ``PGD(random_start=True)``.

    Returns:
        list of ``(epsilon, accuracy)``, floats, in the order given.

    Raises:
        InputError: no such cut point, a model without a graph or a loss, no attack,
            radii that are none, or data of another kind: arrays, examples without a
            batch axis, no labels, labels that the model has no output for, no examples.

    Warns:
        UserWarning: examples stay right whose gradient was exactly 0 (or no number)
            where an attack began. The attack could not move them: a larger accuracy is
            no robustness. Outputs that are probabilities without logits, saturated, are
            the usual reason; so is a loss that is flat, as a hinge.

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> from tensorflow import keras
        >>> from tiedbert.adversarial import FGM
        >>> x = keras.Input((1,))
        >>> hidden = keras.layers.Identity(name="hidden")(x)
        >>> model = keras.Model(x, keras.layers.Dense(2, use_bias=False)(hidden))
        >>> model.set_weights([np.array([[-1.0, 1.0]])])
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> model.compile(loss=loss)
        >>> data = tf.data.Dataset.from_tensors(([[1.0], [3.0]], [1, 1]))
        >>> curve(model, data, "hidden", FGM(), [0.0, 2.0])
        [(0.0, 1.0), (2.0, 0.5)]
    """
    epsilons = _radii(epsilons)
    right, weights = _attacked(
        model, dataset, at, method, epsilons, positions, restarts
    )
    means = [_mean(row, weights) for row in right]
    return list(zip(epsilons, means, strict=True))


def correct(model, dataset, at, method, epsilons, positions=None, restarts=1):
    """Which examples a model gets right under attack: what :func:`curve` averages.

    Args:
        model: as for :func:`curve`, like all the others.
        dataset: its examples are taken in order, whatever their weights are.
        at: the cut points.
        method: the attack.
        epsilons: radii.
        positions: where a perturbation may be.
        restarts: attacks on each example.

    Returns:
        bool ``[epsilons, examples]``, numpy.
    """
    epsilons = _radii(epsilons)
    return _attacked(model, dataset, at, method, epsilons, positions, restarts)[0]


def _attacked(model, dataset, at, method, epsilons, positions, restarts) -> tuple:
    """What is right, bool ``[epsilons, examples]``, and the weights of the examples."""
    _check(dataset, at, method, restarts)
    cut = CutModel(model, at, positions=positions)
    resists, found = _resists(method, cut, _loss(model)), []
    functions = None
    for batch in dataset.as_numpy_iterator():
        inputs, labels, weights = _parts(batch, model)
        if functions is None:
            types = _any_batch(dataset.element_spec[0], inputs)
            functions = _functions(resists, types, labels.dtype)
        done = _correct_in((inputs, labels), *functions, epsilons, restarts)
        found.append((*done, weights))
    if not found:
        raise InputError("robustness.curve received a dataset without examples")
    right, stuck, weights = (
        np.concatenate(x, axis=-1) for x in zip(*found, strict=True)
    )
    if stuck.any():
        _warn(stuck)
    return right, weights


def _mean(right, weights):
    if not weights.sum() > 0:
        raise InputError("robustness.curve expected sample weights that are not all 0")
    # Weights that are all alike give the plain mean, to the last digit.
    alike = (weights == weights[0]).all()
    return float(right.mean() if alike else np.average(right, weights=weights))


def _warn(stuck):
    warnings.warn(
        f"robustness.curve: of {stuck.sum()} of {stuck.size} examples that stay right "
        "the attack's gradient was exactly 0, or no number, where it began: the "
        "attack could not move them, and they count as right all the same. That is no "
        "robustness. Compile the model with a loss of logits (from_logits=True) and "
        "without the softmax, or attack by RandomNoise() too",
        stacklevel=4,
    )


# What is given.


def _radii(epsilons) -> list:
    try:
        given = np.asarray(list(epsilons))
    except (TypeError, ValueError):
        given = np.asarray(None)
    if given.dtype.kind not in "iuf" or given.ndim != 1 or not given.size:
        raise InputError(
            "robustness.curve expected epsilons: a list of one number >= 0 or more; "
            f"received {epsilons!r}"
        )
    for epsilon in given:
        if not 0 <= epsilon < np.inf:
            raise InputError(
                "robustness.curve expected epsilons: numbers >= 0, the radii of a "
                f"ball; received {epsilon}"
            )
    return [float(epsilon) for epsilon in given]


def _check(dataset, at, method, restarts):
    if not hasattr(method, "attack"):
        raise InputError(
            f"robustness.curve expected an attack such as FGM() or PGD(), received "
            f"{method!r}"
        )
    if not is_count(restarts):
        raise InputError(f"robustness.curve expected restarts >= 1, not {restarts}")
    if isinstance(at, OneOf):
        raise InputError(
            f"robustness.curve attacks every point given, received {at}: give a list"
        )
    if not isinstance(dataset, tf.data.Dataset):
        raise InputError(
            "robustness.curve expected a tf.data.Dataset of batches, received a "
            f"{type(dataset).__name__}: of arrays make one by tf.data.Dataset."
            "from_tensor_slices((inputs, labels)).batch(32)"
        )
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise InputError(
            "robustness.curve expected a dataset of (inputs, labels), received one of "
            f"{spec}: without labels there is nothing to be right about"
        )


def _parts(batch, model) -> tuple:
    """Inputs, labels ``[batch]`` and weights ``[batch]`` of a batch, numpy."""
    inputs, labels, *rest = batch
    labels = _column(labels, "int labels [batch]")
    classes = _classes(model)
    whole = labels.dtype.kind in "iu" or np.all(labels == np.floor(labels))
    if not whole or (labels < 0).any() or (labels >= classes).any():
        raise InputError(
            f"robustness.curve expected int labels from 0 to {classes - 1}, received "
            f"from {labels.min()} to {labels.max()}: leave out what has no label"
        )
    _check_batched(inputs, model)
    weights = np.ones(len(labels))
    if rest:
        weights = _column(rest[0], "sample weights [batch]")
    fits = weights.shape == labels.shape and (weights >= 0).all()
    if not fits or np.isinf(weights).any():
        raise InputError(
            "robustness.curve expected sample weights [batch], finite and >= 0, one "
            f"for each example; received {weights.shape} for labels {labels.shape}"
        )
    return inputs, labels, weights


def _column(values, what):
    """Values ``[batch]`` of those or of ``[batch, 1]``; InputError for others."""
    values = np.asarray(values)
    if values.ndim == 0 and values.dtype.kind in "iuf":
        raise InputError(
            "robustness.curve expected batches, received examples without a batch "
            "axis: give it dataset.batch(32)"
        )
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iufb":
        raise InputError(
            f"robustness.curve expected {what} and one output [batch, classes], "
            f"received {values.dtype} {values.shape}"
        )
    return values


def _classes(model) -> int:
    outputs = _keras.functional(model).outputs
    shape = outputs[0].shape
    if len(outputs) != 1 or len(shape) != 2 or shape[-1] == 1:
        raise InputError(
            "robustness.curve expected a model with one output [batch, classes], "
            f"received {', '.join(str(tuple(x.shape)) for x in outputs)}"
        )
    return np.inf if shape[-1] is None else shape[-1]


def _check_batched(inputs, model):
    for value, declared in zip(tf.nest.flatten(inputs), model.inputs, strict=False):
        short = value.ndim < len(declared.shape) and declared.shape[-1] != 1
        if short and not isinstance(inputs, dict):
            raise InputError(
                f"robustness.curve expected batches of {tuple(declared.shape)}, "
                f"received {value.shape}: give it dataset.batch(32)"
            )


def _any_batch(spec, inputs):
    """The types of the inputs of a dataset, without the size of a batch."""

    def any_batch(one, value):
        known = one.shape.rank is not None
        rest = one.shape[1:] if known else [None] * (value.ndim - 1)
        return tf.TensorSpec([None, *rest], one.dtype)

    return tf.nest.map_structure(any_batch, spec, inputs)


# The attack.


def _functions(resists, inputs, labels) -> tuple:
    """`resists` without and with a radius, each traced once."""
    return tuple(
        tf.function(
            resists,
            # One trace, however many examples are left of a batch.
            input_signature=[inputs, tf.TensorSpec([None], labels), *radius],
            autograph=False,  # it would hide the type of our errors
        )
        for radius in ([], [tf.TensorSpec([])])
    )


def _correct_in(batch, unperturbed, perturbed, epsilons, restarts) -> tuple:
    """What is right, bool ``[epsilons, batch]``, and which no attack could move.

    What is wrong already is not attacked again.
    """
    inputs, labels = batch
    right = unperturbed(inputs, labels).numpy()
    at_radius = {0.0: right.copy()}
    ever_stuck = np.zeros_like(right)
    for epsilon in sorted(set(epsilons) - {0.0}):
        stuck = right.copy()  # in all attempts
        for _ in range(restarts):
            left = np.flatnonzero(right)
            if not len(left):
                break
            rows = tf.nest.map_structure(lambda x: x[left], (inputs, labels))  # noqa: B023
            resisted, still = perturbed(*rows, tf.constant(epsilon))
            right[left] = resisted.numpy()
            stuck[left] &= still.numpy()
        at_radius[epsilon] = right.copy()
        ever_stuck |= stuck & right
    return np.stack([at_radius[epsilon] for epsilon in epsilons]), ever_stuck


def _resists(method, cut, loss):
    """A function of a batch and a radius: which answers are right under the attack.

    And of which the gradient that the attack asked for first is 0, or no number.
    Radius None: without one, which answers are right.
    """

    def right(inputs, labels, epsilon=None):
        inputs = cut.shaped(inputs)
        crossing = _keras.call(cut.front, inputs, training=False)

        def call(i, tensors):
            return _keras.call(cut.behind[i], tensors, training=False)

        def run(delta):
            return cut.run(inputs, crossing, delta, call)

        if epsilon is None:
            return _right(run(None)[0], labels)
        # An attack that does not ask for it does not pay: the graph drops it.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([x for x in crossing if x.dtype.is_floating])
            outputs, points, positions = run(None)
            value = loss(inputs, labels, outputs)
        at_zero = tape.gradient(value, points)
        here, first = tf.compat.v1.get_default_graph(), []

        def gradient(delta):
            found = at_zero if delta is None else climb(delta)
            # Within a loop of the attack it is not to be had here.
            if not first and tf.compat.v1.get_default_graph() is here:
                first.extend(found)
            return found

        def climb(delta):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(delta)
                value = loss(inputs, labels, run(delta)[0])
            return tape.gradient(value, delta)

        ball = Ball(method.norm, epsilon, method.relative, points, positions)
        delta = method.attack(gradient, ball).delta
        resisted = _right(run(delta)[0], labels)
        return resisted, _flat(first, resisted)

    return right


def _flat(gradients, like):
    """Of which examples all gradients are 0, or one is no number, bool ``[batch]``."""
    given = [g for g in gradients if g is not None]
    if not given:
        return tf.zeros_like(like)
    zero = [tf.reduce_all(tf.equal(g, 0), range(1, g.shape.rank)) for g in given]
    broken = [~finite(g) for g in given]
    return tf.reduce_all(zero, axis=0) | tf.reduce_any(broken, axis=0)


def _right(outputs, labels):
    """Where the largest output is the one of the label, bool ``[batch]``."""
    guesses = tf.argmax(outputs, axis=-1, output_type=tf.int64)
    # An output that is no number is no answer, though argmax would name a class.
    ok = tf.reduce_all(tf.math.is_finite(outputs), axis=-1)
    return ok & (guesses == tf.cast(labels, tf.int64))


def _loss(model):
    compiled = _keras.is_compiled(model)
    if not compiled or _keras.given_losses(model)[0] is None:
        raise InputError(
            "robustness.curve needs a compiled model: the attack raises the loss given "
            "to model.compile(loss=...)"
        )

    def loss(inputs, labels, outputs):
        return model.compute_loss(x=inputs, y=labels, y_pred=outputs)

    return loss
