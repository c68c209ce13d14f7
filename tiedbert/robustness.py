"""How accuracy falls as the activations of a model are perturbed."""

import numpy as np
import tensorflow as tf

from tiedbert import _keras
from tiedbert.adversarial.ball import Ball
from tiedbert.adversarial.cut_model import CutModel, OneOf
from tiedbert.errors import InputError


def curve(model, dataset, at, method, epsilons, positions=None, restarts=1):
    """Accuracy against the radius of an attack on the activations at a cut point.

    The attack sees the model in inference mode and the true labels, and raises the
    loss that the model was compiled with. An example counts at a radius when it is
    right unperturbed, and no attack of this radius or of a smaller one in `epsilons`
    makes it wrong: those lie in the ball too.

    Args:
        model: a compiled functional classifier; output ``[batch, classes]``.
        dataset: `tf.data.Dataset` of ``(inputs, labels)``, int labels ``[batch]``.
        at: the cut points, as for :class:`tiedbert.adversarial.AdversarialTraining`.
        method: an attack: ``FGM()``, ``PGD()`` or ``RandomNoise()``; its epsilon is
            replaced (a `step_size` is not: None grows with the radius).
        epsilons: radii, in the method's norm; 0 is the clean accuracy.
        positions: as for :class:`tiedbert.adversarial.AdversarialTraining`.
        restarts: attacks on each example; one that succeeds is enough. More than one
            is of use to a method that draws, e.g. ``PGD(random_start=True)``.

    Returns:
        list of ``(epsilon, accuracy)``, floats, in the order given.

    Raises:
        InputError: no such cut point, a model that was not compiled, no attack, or no
            examples.

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
    epsilons = [float(epsilon) for epsilon in epsilons]
    right = correct(model, dataset, at, method, epsilons, positions, restarts)
    return [(e, float(r.mean())) for e, r in zip(epsilons, right, strict=True)]


def correct(model, dataset, at, method, epsilons, positions=None, restarts=1):
    """Which examples a model gets right under attack: what :func:`curve` averages.

    Args:
        model: as for :func:`curve`, like all the others.
        dataset: its examples are taken in order.
        at: the cut points.
        method: the attack.
        epsilons: radii.
        positions: where a perturbation may be.
        restarts: attacks on each example.

    Returns:
        bool ``[epsilons, examples]``, numpy.
    """
    epsilons = [float(epsilon) for epsilon in epsilons]
    if not hasattr(method, "attack"):
        raise InputError(
            f"robustness.curve expected an attack such as FGM() or PGD(), received "
            f"{method!r}"
        )
    if not restarts >= 1:
        raise InputError(f"robustness.curve expected restarts >= 1, not {restarts}")
    if isinstance(at, OneOf):
        raise InputError(
            f"robustness.curve attacks every point given, received {at}: give a list"
        )
    cut = CutModel(model, at, positions=positions)
    resists = _resists(method, cut, _loss(model))
    unperturbed, perturbed = (
        tf.function(
            resists,
            # One trace, however many examples are left of a batch.
            input_signature=[*_any_batch(dataset.element_spec), *radius],
            autograph=False,  # it would hide the type of our errors
        )
        for radius in ([], [tf.TensorSpec([])])
    )
    found = [
        _correct_in(batch, unperturbed, perturbed, epsilons, restarts)
        for batch in dataset.as_numpy_iterator()
    ]
    if not found:
        raise InputError("robustness.curve received a dataset without examples")
    return np.concatenate(found, axis=1)


def _any_batch(spec):
    """The types of a dataset's batches, without the size of a batch."""

    def any_batch(one):
        known = one.shape.rank is not None
        return tf.TensorSpec([None, *one.shape[1:]] if known else None, one.dtype)

    return tf.nest.map_structure(any_batch, spec)


def _correct_in(batch, unperturbed, perturbed, epsilons, restarts):
    """Bool ``[epsilons, batch]``. What is wrong already is not attacked again."""
    inputs, labels = batch
    right = unperturbed(inputs, labels).numpy()
    at_radius = {0.0: right.copy()}
    for epsilon in sorted(set(epsilons) - {0.0}):
        for _ in range(restarts):
            left = np.flatnonzero(right)
            if not len(left):
                break
            rows = tf.nest.map_structure(lambda x: x[left], (inputs, labels))  # noqa: B023
            right[left] = perturbed(*rows, tf.constant(epsilon)).numpy()
        at_radius[epsilon] = right.copy()
    return np.stack([at_radius[epsilon] for epsilon in epsilons])


def _resists(method, cut, loss):
    """A function of a batch and a radius: which answers are right under the attack.

    Radius None: without one.
    """

    def right(inputs, labels, epsilon=None):
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

        def gradient(delta):
            if delta is None:
                return at_zero
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(delta)
                value = loss(inputs, labels, run(delta)[0])
            return tape.gradient(value, delta)

        ball = Ball(method.norm, epsilon, method.relative, points, positions)
        delta = method.attack(gradient, ball).delta
        return _right(run(delta)[0], labels)

    return right


def _right(outputs, labels):
    """Where the largest output is the one of the label, bool ``[batch]``."""
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2 and labels.shape[-1] == 1:
        labels = labels[:, 0]
    shape = getattr(outputs, "shape", None)
    if shape is None or shape.rank != 2 or shape[-1] == 1 or labels.shape.rank != 1:
        raise InputError(
            "robustness.curve expected int labels [batch] and one output [batch, "
            f"classes], received labels {labels.shape} and outputs {shape}"
        )
    guesses = tf.argmax(outputs, axis=-1, output_type=tf.int64)
    # An output that is no number is no answer, though argmax would name a class.
    finite = tf.reduce_all(tf.math.is_finite(outputs), axis=-1)
    return finite & (guesses == tf.cast(labels, tf.int64))


def _loss(model):
    if not _keras.is_compiled(model):
        raise InputError(
            "robustness.curve needs a compiled model: the attack raises the loss given "
            "to model.compile(loss=...)"
        )

    def loss(inputs, labels, outputs):
        return model.compute_loss(x=inputs, y=labels, y_pred=outputs)

    return loss
