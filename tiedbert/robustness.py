"""How accuracy falls as the activations of a model are perturbed."""

import dataclasses

import tensorflow as tf

from tiedbert import _keras
from tiedbert.adversarial.cut_model import CutModel
from tiedbert.errors import InputError


def curve(model, dataset, at, method, epsilons, positions=None):
    """Accuracy against the radius of an attack on the activations at a cut point.

    The attack sees the model in inference mode and the true labels, and raises the
    loss that the model was compiled with.

    Args:
        model: a compiled functional classifier; output ``[batch, classes]``.
        dataset: `tf.data.Dataset` of ``(inputs, labels)``, int labels ``[batch]``.
        at: one cut point, as for :func:`tiedbert.surgery.split`.
        method: an attack, e.g. ``FGM()``; its epsilon is replaced.
        epsilons: radii, in the method's norm; 0 is the clean accuracy.
        positions: as for :class:`tiedbert.adversarial.AdversarialTraining`.

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
    attacks = [dataclasses.replace(method, epsilon=epsilon) for epsilon in epsilons]
    count_correct = tf.function(
        _correct_under(attacks, model, CutModel(model, at, positions), _loss(model)),
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


def _correct_under(attacks, model, cut, loss):
    """A function of a batch: the number of right answers under each attack."""

    def count(inputs, labels):
        crossing = cut.front(inputs, training=False)
        hidden = crossing[0]
        positions = cut.positions(inputs, crossing)

        def gradient_at(delta):
            with tf.GradientTape() as tape:
                tape.watch(delta)
                value = loss(inputs, labels, cut.outputs(crossing, delta))
            return tape.gradient(value, delta)

        # Every radius starts from the same gradient; an attack that needs none of it
        # does not pay: the graph drops what nobody reads.
        at_zero = gradient_at(tf.zeros_like(hidden))

        def gradient(delta):
            return at_zero if delta is None else gradient_at(delta)

        counts = []
        for attack in attacks:
            delta = attack.delta(gradient, hidden, positions)
            right = _right(cut.outputs(crossing, delta), labels)
            counts.append(tf.reduce_sum(tf.cast(right, tf.int64)))
        return tf.stack(counts)

    return count


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
