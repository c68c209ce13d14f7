"""The one `fit` wrapper of all adversarial methods."""

from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.adversarial.cut_model import CutModel
from tiedbert.adversarial.geometry import l2_norm


class AdversarialTraining(keras.Model):
    """Train `model` on perturbed activations: `compile`, `fit`, `evaluate` as usual.

    The perturbation is added to the activation at the cut point, never to a weight:
    a tied head does not move with it. The part before the cut runs once a step,
    forward and backward. Validation and prediction are those of `model`, which is
    trained in place; `save` saves it alone.

    Args:
        model: a functional `keras.Model`.
        method: what perturbation, e.g. :class:`tiedbert.adversarial.FGM`.
        at: where, a cut point of :func:`tiedbert.surgery.split`.
        positions: function of the inputs -> bool ``[batch, time]``, where a
            perturbation may be. By default: in a bert4keras model neither on padding
            nor on ``[CLS]`` and ``[SEP]``; else not where the Keras mask of the cut
            tensor is False.

    Metrics beside those of `compile` (which see the unperturbed outputs): ``loss``
    (what is minimized), ``clean_loss``, ``adversarial_loss`` and ``delta_norm`` (mean
    L2 norm of the perturbation of an example).

    Raises:
        InputError: no such cut point, or not one of float activations.

    Example:
        >>> import numpy as np
        >>> from tensorflow import keras
        >>> from tiedbert.adversarial import FGM
        >>> x = keras.Input((4,))
        >>> hidden = keras.layers.Dense(3, name="hidden")(x)
        >>> model = keras.Model(x, keras.layers.Dense(1)(hidden))
        >>> training = AdversarialTraining(model, FGM(epsilon=0.5), at="hidden")
        >>> training.compile("sgd", "mse")
        >>> history = training.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0)
        >>> round(history.history["delta_norm"][0], 4)
        0.5
    """

    def __init__(self, model, method, at, positions=None, **kwargs):
        # The model casts its own inputs: token ids given as floats must stay whole.
        super().__init__(autocast=False, **kwargs)
        self.model = model
        self.method = method
        self._cut = CutModel(model, at, positions)
        # Names that no metric of Keras has: its own "loss" is that of `evaluate`.
        self._means = {
            name: keras.metrics.Mean(name=f"step_{name}")
            for name in ("loss", "clean_loss", "adversarial_loss", "delta_norm")
        }

    def call(self, inputs, training=None):
        """The outputs of the wrapped model."""
        return self.model(inputs, training=training)

    def save(self, *args, **kwargs):
        """Save the wrapped model."""
        return self.model.save(*args, **kwargs)

    def save_weights(self, *args, **kwargs):
        """Save the weights of the wrapped model."""
        return self.model.save_weights(*args, **kwargs)

    def load_weights(self, *args, **kwargs):
        """Load weights into the wrapped model."""
        return self.model.load_weights(*args, **kwargs)

    def train_step(self, data):
        """One step on the method's loss."""
        data = _Batch(*keras.utils.unpack_x_y_sample_weight(data))
        with tf.GradientTape() as front_tape:
            crossing = self._cut.front(data.x, training=True)
            # Gradients come back through these. Penalties on activations before the
            # cut are part of the loss that is computed after it.
            passed = _floats(crossing) + list(self._cut.front.losses)
        weights = self.trainable_variables
        both = self.method.clean
        share = 0.5 if both else 1.0

        clean = self._run(crossing, passed, None, data, weights if both else [], share)
        delta = self.method.delta(
            lambda delta: self._ascent(crossing, passed, delta, data, clean),
            crossing[0],
            self._cut.positions(data.x, crossing),
        )
        delta = tf.stop_gradient(delta)
        adversarial = self._run(crossing, passed, delta, data, weights, share)

        runs = [clean, adversarial] if both else [adversarial]
        through_front = _pull_back(front_tape, passed, runs, weights)
        gradients = _sum([run.weights for run in runs] + [through_front])
        _keras.apply_gradients(self.optimizer, gradients, weights)
        return self._logs(data, runs, clean, adversarial, delta)

    def test_step(self, data):
        """Evaluate the wrapped model, unperturbed."""
        return self._without_means(super().test_step(data))

    def _run(self, crossing, passed, delta, data, weights, share=1.0):
        """Outputs, loss, and gradients of ``share * loss``, from the cut on.

        The gradients are scaled further where the optimizer scales the loss.
        """
        with tf.GradientTape() as tape:
            tape.watch(passed)
            outputs = self._cut.outputs(crossing, delta, training=True)
            loss = self.compute_loss(data.x, data.y, outputs, data.sample_weight)
            shared = _keras.scale_loss(self.optimizer, share * loss)
        passed_gradients, weight_gradients = tape.gradient(shared, (passed, weights))
        return _Run(outputs, loss, passed_gradients, weight_gradients)

    def _ascent(self, crossing, passed, delta, data, clean):
        """The gradient of the loss with respect to a perturbation at `delta`."""
        run = clean if delta is None else self._run(crossing, passed, delta, data, [])
        return run.passed[0]

    def _logs(self, data, runs, clean, adversarial, delta):
        values = {
            "loss": sum(run.loss for run in runs) / len(runs),
            "clean_loss": clean.loss,
            "adversarial_loss": adversarial.loss,
            "delta_norm": tf.reduce_mean(l2_norm(delta)),
        }
        logs = self._without_means(
            self.compute_metrics(data.x, data.y, clean.outputs, data.sample_weight)
        )
        # As Keras weighs its losses: the last batch may be a smaller one.
        rows = tf.shape(delta)[0]
        for name, value in values.items():
            self._means[name].update_state(value, sample_weight=rows)
            logs[name] = self._means[name].result()
        return logs

    def _without_means(self, logs):
        names = {mean.name for mean in self._means.values()}
        return {name: value for name, value in logs.items() if name not in names}


class _Batch(NamedTuple):
    x: Any
    y: Any
    sample_weight: Any


class _Run(NamedTuple):
    outputs: Any
    loss: Any
    passed: list
    weights: list


def _floats(tensors) -> list:
    return [tensor for tensor in tensors if tensor.dtype.is_floating]


def _pull_back(front_tape, passed, runs, weights):
    """The gradients that reach the weights through the part before the cut."""
    totals = _sum([run.passed for run in runs])
    pairs = zip(passed, totals, strict=True)
    reached = [(tensor, total) for tensor, total in pairs if total is not None]
    tensors, gradients = map(list, zip(*reached, strict=True))
    return front_tape.gradient(tensors, weights, output_gradients=gradients)


def _sum(gradient_lists) -> list:
    """Add lists of gradients entry by entry; None counts as zero."""
    return [
        _sum_entries([entry for entry in entries if entry is not None])
        for entries in zip(*gradient_lists, strict=True)
    ]


def _sum_entries(entries):
    if len(entries) <= 1:
        return entries[0] if entries else None
    # A tied table has a sparse gradient from the input and a dense one from the head.
    return tf.add_n([tf.convert_to_tensor(entry) for entry in entries])
