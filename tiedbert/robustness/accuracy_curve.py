"""How accuracy falls as the activations of a model are perturbed."""

import warnings

import numpy as np
import tensorflow as tf

from tiedbert import _keras
from tiedbert.adversarial.cut_model import CutModel
from tiedbert.adversarial.norms import finite
from tiedbert.adversarial.perturbation_ball import Ball
from tiedbert.errors import InputError
from tiedbert.robustness.curve_inputs import check, parts, radii


def curve(model, dataset, at, method, epsilons, perturbation_mask=None, restarts=1):
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
        perturbation_mask: as for :class:`tiedbert.adversarial.AdversarialTraining`.
        restarts: attacks on each example; one that succeeds is enough. More than one
            is of use to a method that draws, e.g. ``PGD(random_start=True)``.

    Returns:
        list of ``(epsilon, accuracy)``, floats, in the order given.

    Raises:
        InputError: no such cut point, a model without a graph or a loss, no attack,
            radii that are not numbers >= 0, or data of another kind: arrays, examples
            without a batch axis, no labels, labels that the model has no output for, no
            examples.

    Warns:
        UserWarning: the attack could not move some examples, because its first
            gradient was exactly 0 or not finite there. They count as right, so the
            accuracy may be too high. The usual reason is a model whose outputs are
            saturated probabilities without logits behind them, or a loss with a flat
            part, such as a hinge.

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
    epsilons = radii(epsilons)
    right, weights = _attacked(
        model, dataset, at, method, epsilons, perturbation_mask, restarts
    )
    means = [_mean(row, weights) for row in right]
    return list(zip(epsilons, means, strict=True))


def correct(model, dataset, at, method, epsilons, perturbation_mask=None, restarts=1):
    """Which examples a model gets right under attack: what :func:`curve` averages.

    Args:
        model: as for :func:`curve`, like all the others.
        dataset: its examples are taken in order, whatever their weights are.
        at: the cut points.
        method: the attack.
        epsilons: radii.
        perturbation_mask: where a perturbation may be.
        restarts: attacks on each example.

    Returns:
        bool ``[epsilons, examples]``, numpy.
    """
    epsilons = radii(epsilons)
    return _attacked(model, dataset, at, method, epsilons, perturbation_mask, restarts)[
        0
    ]


def _attacked(
    model, dataset, at, method, epsilons, perturbation_mask, restarts
) -> tuple:
    """What is right, bool ``[epsilons, examples]``, and the weights of the examples."""
    check(dataset, at, method, restarts)
    cut, loss = CutModel(model, at, perturbation_mask=perturbation_mask), _loss(model)
    functions, found = None, []
    for batch in dataset.as_numpy_iterator():
        inputs, labels, weights = parts(batch, model)
        if functions is None:
            types = _any_batch(dataset.element_spec[0], inputs)
            functions = _functions(cut, loss, method, types, labels.dtype)
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
        f"robustness.curve: the attack could not move {stuck.sum()} of {stuck.size} "
        "examples, because its first gradient was exactly 0 or not finite. They are "
        "counted as right, which does not show that the model is robust. Let the model "
        "give logits, without the softmax, and compile it with a loss of logits "
        "(from_logits=True), or attack with RandomNoise() too",
        stacklevel=4,
    )


def _any_batch(spec, inputs):
    """The types of the inputs of a dataset, without the size of a batch."""

    def any_batch(one, value):
        known = one.shape.rank is not None
        rest = one.shape[1:] if known else [None] * (value.ndim - 1)
        return tf.TensorSpec([None, *rest], one.dtype)

    return tf.nest.map_structure(any_batch, spec, inputs)


def _functions(cut, loss, method, inputs, labels) -> tuple:
    """Which answers are right unperturbed, and :func:`_resists`, each traced once."""

    def unperturbed(inputs, labels):
        return _Batch(cut, loss, inputs, labels).right()

    def perturbed(inputs, labels, epsilon):
        return _resists(_Batch(cut, loss, inputs, labels), method, epsilon)

    return tuple(
        tf.function(
            function,
            # One trace, however many examples are left of a batch.
            input_signature=[inputs, tf.TensorSpec([None], labels), *radius],
            autograph=False,  # it would hide the type of our errors
        )
        for function, radius in ((unperturbed, []), (perturbed, [tf.TensorSpec([])]))
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


def _resists(batch, method, epsilon) -> tuple:
    """Which answers are right under an attack of a radius, bool ``[batch]``.

    And for which examples the first gradient of the attack is 0, or not finite.
    """
    points, perturbation_mask, at_zero = batch.at_zero()
    gradient = _KeepsFirst(
        lambda delta: at_zero if delta is None else batch.gradient(delta)
    )
    ball = Ball(method.norm, epsilon, method.relative, points, perturbation_mask)
    right = batch.right(method.attack(gradient, ball).delta)
    return right, _flat(gradient.first, right)


class _Batch:
    """Examples with their labels, in a model that runs in inference mode."""

    def __init__(self, cut, loss, inputs, labels):
        self._cut, self._loss, self._labels = cut, loss, labels
        self._inputs = cut.shaped(inputs)
        self._crossing = _keras.call(cut.front, self._inputs, training=False)

    def right(self, delta=None):
        """Which answers are right at a perturbation, bool ``[batch]``."""
        return _right(self._run(delta)[0], self._labels)

    def at_zero(self) -> tuple:
        """The tensors at the points, where they may move, the gradient of the loss."""
        # TensorFlow drops the gradient from the graph if the attack does not use it.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([x for x in self._crossing if x.dtype.is_floating])
            outputs, points, perturbation_mask = self._run(None)
            value = self._loss(self._inputs, self._labels, outputs)
        return points, perturbation_mask, tape.gradient(value, points)

    def gradient(self, delta) -> list:
        """The gradient of the loss at a perturbation."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(delta)
            value = self._loss(self._inputs, self._labels, self._run(delta)[0])
        return tape.gradient(value, delta)

    def _run(self, delta) -> tuple:
        return self._cut.run(self._inputs, self._crossing, delta, self._call)

    def _call(self, i, tensors):
        return _keras.call(self._cut.behind[i], tensors, training=False)


class _KeepsFirst:
    """A function of a perturbation that keeps the first gradient it has given."""

    def __init__(self, function):
        self._function, self._graph = function, tf.compat.v1.get_default_graph()
        self.first = []

    def __call__(self, delta):
        found = self._function(delta)
        # Outside a loop of the attack, what was found within it is not available.
        if not self.first and tf.compat.v1.get_default_graph() is self._graph:
            self.first.extend(found)
        return found


def _flat(gradients, like):
    """Of which examples all gradients are 0, or one not finite, bool ``[batch]``."""
    given = [g for g in gradients if g is not None]
    if not given:
        return tf.zeros_like(like)
    zero = [tf.reduce_all(tf.equal(g, 0), range(1, g.shape.rank)) for g in given]
    broken = [~finite(g) for g in given]
    return tf.reduce_all(zero, axis=0) | tf.reduce_any(broken, axis=0)


def _right(outputs, labels):
    """Where the largest output is the one of the label, bool ``[batch]``."""
    guesses = tf.argmax(outputs, axis=-1, output_type=tf.int64)
    # Outputs that are not finite are no answer, though argmax would name a class.
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
