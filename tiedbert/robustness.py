"""How accuracy falls as the activations of a model are perturbed."""

import dataclasses

import tensorflow as tf

from tiedbert import _keras
from tiedbert.adversarial.ball import Ball
from tiedbert.adversarial.cut_model import CutModel
from tiedbert.errors import InputError


def curve(model, dataset, at, method, epsilons, positions=None, restarts=1):
    """Accuracy against the radius of an attack on the activations at a cut point.

    The attack sees the model in inference mode and the true labels, and raises the
    loss that the model was compiled with.

    Args:
        model: a compiled functional classifier; output ``[batch, classes]``.
        dataset: `tf.data.Dataset` of ``(inputs, labels)``, int labels ``[batch]``.
        at: the cut points, as for :class:`tiedbert.adversarial.AdversarialTraining`.
        method: an attack: ``FGM()``, ``PGD()`` or ``RandomNoise()``; its epsilon is
            replaced.
        epsilons: radii, in the method's norm; 0 is the clean accuracy.
        positions: as for :class:`tiedbert.adversarial.AdversarialTraining`.
        restarts: attacks on each example; one that succeeds is enough. More than one
            needs a method that draws, e.g. ``PGD(random_start=True)``.

    Returns:
        list of ``(epsilon, accuracy)``, floats, in the order given.

    Raises:
        InputError: no such cut point, a model that was not compiled, or no examples.

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
    if not hasattr(method, "attack"):
        raise InputError(
            f"robustness.curve expected an attack such as FGM() or PGD(), received "
            f"{method!r}"
        )
    attacks = [dataclasses.replace(method, epsilon=epsilon) for epsilon in epsilons]
    cut = CutModel(model, at, positions=positions)
    count_correct = tf.function(
        _correct_under(attacks, cut, _loss(model), restarts),
        reduce_retracing=True,
        autograph=False,  # it would hide the type of our errors
    )
    correct, total = [0] * len(attacks), 0
    for inputs, labels in dataset:
        counts = count_correct(inputs, labels).numpy()
        correct = [a + int(b) for a, b in zip(correct, counts, strict=True)]
        total += len(labels)
    if not total:
        raise InputError("robustness.curve received a dataset without examples")
    return [(e, c / total) for e, c in zip(epsilons, correct, strict=True)]


def _correct_under(attacks, cut, loss, restarts):
    """A function of a batch: the number of right answers under each attack."""

    def count(inputs, labels):
        crossing = cut.front(inputs, training=False)

        def run(delta):
            return cut.run(
                inputs, crossing, delta, lambda i, x: cut.behind[i](x, training=False)
            )

        # Every radius starts from the same gradient; an attack that needs none of it
        # does not pay: the graph drops what nobody reads.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(_floats(crossing))
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

        counts = []
        for attack in attacks:
            ball = Ball(attack.norm, attack.epsilon, attack.relative, points, positions)
            right = True
            for _ in range(restarts):
                delta = attack.attack(gradient, ball).delta
                right = right & _right(run(delta)[0], labels)
            counts.append(tf.reduce_sum(tf.cast(right, tf.int64)))
        return tf.stack(counts)

    return count


def _floats(tensors) -> list:
    return [tensor for tensor in tensors if tensor.dtype.is_floating]


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
