"""`AdversarialTraining`: the one `fit` wrapper of all adversarial methods."""

import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.adversarial.compiled_losses import CompiledLosses
from tiedbert.adversarial.cut_model import CutModel
from tiedbert.adversarial.method import Method
from tiedbert.adversarial.micro_batches import gradients_in_micro_batches
from tiedbert.adversarial.moving_average import MovingAverage
from tiedbert.adversarial.norms import mean
from tiedbert.adversarial.results import StepResult
from tiedbert.adversarial.seeded_function import SeededFunction
from tiedbert.adversarial.step import Step
from tiedbert.adversarial.step_setup import Batch, StepSetup
from tiedbert.adversarial.training_checks import (
    check_arguments,
    check_model,
    checked_result,
    use_same_dropout,
)
from tiedbert.errors import InputError


class AdversarialTraining(_keras.EpochLogs, keras.Model):
    """Train `model` on perturbed activations: `compile`, `fit`, `evaluate` as usual.

    The perturbation is added to the activation at a cut point, never to a weight, so a
    tied head is not perturbed with it. The part before the first cut point runs once a
    step, forward and backward. `evaluate` and `predict` are those of `model`, which is
    trained in place; `save` saves `model` alone.

    Args:
        model: a functional `keras.Model`, or a built `Sequential`.
        method: how to perturb and what to learn, e.g.
            :class:`tiedbert.adversarial.FGM`.
        at: where: a cut point of :func:`tiedbert.surgery.split`; a list of them, each
            with a perturbation of its own; or :class:`tiedbert.adversarial.OneOf`.
            None (the default): ``"Embedding-Norm"``, for models of bert4keras.
        perturbation_mask: function of the inputs -> bool ``[batch, time]``, True where
            a token may be perturbed. None (the default): in a BERT (of bert4keras or
            keras-hub) neither padding nor ``[CLS]`` and ``[SEP]``, taken for the first
            and the last token of a row, and all tokens with their ids; in other models
            where the Keras mask of the cut tensor is True. For other special tokens:
            :func:`tiedbert.adversarial.except_tokens`.
        same_dropout: whether all passes of a step have the same dropout, and other
            random numbers, behind the cut. None (the default): as the method needs it;
            if it needs nothing, no.
        micro_batches: gradient accumulation: the number of micro-batches, >= 1, into
            which each batch is split; 1 by default. They run one after another, for one
            optimizer step, in the memory of one micro-batch. The step is the same if
            the loss is a mean over rows, but not where a Keras mask makes it a mean
            over tokens. Batch statistics are updated by each micro-batch.
        name: of the training; None (the default): Keras makes one.

    Metrics beside those of `compile`. (Those see the outputs of the first pass, which
    is unperturbed unless the method starts elsewhere.)

    - ``loss``: what is minimized.
    - ``clean_loss``: the unperturbed loss, where the method makes such a pass.
    - ``adversarial_loss``: the loss, the divergence or the penalty at the perturbation.
    - ``delta_norm``: the mean over examples of the norm of the perturbation, in the
      norm and unit of the method; 0 also where the loss does not depend on the cut
      point.
    - ``nonfinite_gradients``: how many examples had a gradient or a loss that was not
      finite; the whole batch if it is not known which example it was.

    An example with a gradient that is not finite is not perturbed, and no weight learns
    from a pass in which it is. If no weight learns from any pass of a step, moving
    averages stay as they were. A `LossScaleOptimizer` leaves out such a step by itself;
    then only moving averages that are not finite are restored.

    Raises:
        InputError: an argument of another kind; no such cut point, or not one of float
            activations; a model without a graph, or with a `train_step`, `test_step`,
            `compute_loss` or `compute_metrics` of its own, which this class would
            ignore; a stateful recurrent layer.

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

    def __init__(
        self,
        model: keras.Model,
        method: Method,
        at: Any = None,
        perturbation_mask: Callable[[Any], tf.Tensor] | None = None,
        same_dropout: bool | None = None,
        micro_batches: int = 1,
        name: str | None = None,
    ):
        check_arguments(model, method, perturbation_mask, same_dropout, micro_batches)
        check_model(model)
        # The model casts its own inputs: token ids given as floats must stay whole.
        # Keras scales the loss if its policy asks for that.
        super().__init__(autocast=False, dtype=model.dtype_policy, name=name)
        self.model = model
        self.method = method
        self.built = True  # callbacks ask
        # Losses and metrics given by the names of outputs need it.
        self.output_names = _keras.functional(model).output_names
        # The next three are plain objects: Keras does not look into them, and so takes
        # no part of a cut and no average for a layer of this model.
        self._cut = CutModel(model, at, method.second_cut(), perturbation_mask)
        momentum = method.average_momentum()
        self._average = None if momentum is None else MovingAverage(model, momentum)
        self._losses_of_pass = SimpleNamespace(given=None)
        self._same_dropout = use_same_dropout(method, same_dropout)
        self._micro_batches = int(micro_batches)
        # Names that no metric of Keras has: its own "loss" is that of `evaluate`.
        self._means = {
            name: keras.metrics.Mean(name=f"tiedbert_{name}")
            for name in ("loss", "clean_loss", "adversarial_loss", "delta_norm")
        }
        self._nonfinite = keras.metrics.Sum(name="tiedbert_nonfinite_gradients")

    @property
    def average(self) -> keras.Model | None:
        """The model with the averaged weights; None: the method needs no average.

        Neither `save` nor `save_weights` saves it. To resume a training, save it too:
        ``tf.train.Checkpoint(model=model, optimizer=optimizer, average=average)``.
        """
        return None if self._average is None else self._average.model

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The outputs of the wrapped model."""
        return self.model(inputs, training=training)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Configure the training; arguments as in `keras.Model.compile`.

        Raises:
            InputError: an optimizer or a loss that the method cannot train with.
        """
        super().compile(*args, **kwargs)
        # Overridden below: had it another name, the logs of replicas would be wrong.
        _keras.check_logs_method(self.model)
        if self.method.replays > 1 and _keras.accumulates(self.optimizer):
            raise InputError(
                f"{type(self.method).__name__} takes {self.method.replays} optimizer "
                "steps in a batch, and an optimizer with gradient_accumulation_steps "
                "takes one in several: leave that out, or take another method"
            )
        self._setup = self._new_setup()
        if self._micro_batches > 1:
            self._setup.losses.check_means(f"micro_batches={self._micro_batches}")

    def _new_setup(self) -> StepSetup:
        """What the steps need, with functions that are not traced yet.

        A trace holds what was trainable, and at what rate, when it was made.
        """
        fixed_draws = self._same_dropout or self.method.same_dropout is not None
        parts = [SeededFunction(part, fixed_draws) for part in self._cut.behind]
        # A front that runs once a step needs no seed, and not traced the gradient of a
        # table stays sparse.
        front_again = self._same_dropout and self.method.replays > 1
        front = SeededFunction(self._cut.front, fixed_draws) if front_again else None
        statistics = _keras.statistics(self.model)
        return StepSetup(
            model=self.model,
            optimizer=self.optimizer,
            losses=CompiledLosses.of(self),
            cut=self._cut,
            parts=parts,
            front=front,
            same_dropout=self._same_dropout,
            statistics=[v for v in statistics if "float" in _keras.dtype_name(v)],
            average=self._average,
            loss_of=self._loss_of,
        )

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Train the wrapped model; arguments as in `keras.Model.fit`."""
        with _keras.input_errors_unwrapped():
            return super().fit(*args, **kwargs)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Make one step; arguments as in `keras.Model.train_on_batch`."""
        with _keras.input_errors_unwrapped():
            return super().train_on_batch(*args, **kwargs)

    @property
    def weights(self) -> list:
        """Those of the wrapped model, without the metrics that Keras 2 counts."""
        return self.model.weights

    def save(self, *args: Any, **kwargs: Any) -> Any:
        """Save the wrapped model."""
        return self.model.save(*args, **kwargs)

    def export(self, *args: Any, **kwargs: Any) -> Any:
        """Export the wrapped model for serving."""
        return self.model.export(*args, **kwargs)

    def save_weights(self, *args: Any, **kwargs: Any) -> Any:
        """Save the weights of the wrapped model."""
        with _keras.optimizer_attached(self, self.model):
            return self.model.save_weights(*args, **kwargs)

    def load_weights(self, *args: Any, **kwargs: Any) -> Any:
        """Load weights into the wrapped model."""
        with _keras.optimizer_attached(self, self.model):
            return self.model.load_weights(*args, **kwargs)

    # Keras would let autograph convert it, and wrap every error in another.
    @tf.autograph.experimental.do_not_convert
    def train_step(self, data: Any) -> dict:
        """Make one training step of the method."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        batch = Batch(self._cut.shaped(x), y, sample_weight)
        if batch.y is None and self._setup.losses.losses is not None:
            raise InputError(
                "fit: the model was compiled with a loss, and there is no y"
            )
        if self._micro_batches == 1:
            gradients, logged = self._learn_from(batch)
        else:
            gradients, logged = gradients_in_micro_batches(
                self._learn_from,
                batch,
                self._micro_batches,
                self.model.trainable_variables,
            )
        self._setup.apply(gradients)
        return self._results(logged)

    def _learn_from(self, batch) -> tuple[list, list]:
        """The gradients of a batch, and the names of the logs that it has."""
        step = Step(self._setup, batch)
        result = checked_result(self.method.train(step), self.method)
        gradients = step.gradients()
        return gradients, self._update_metrics(step, result)

    def test_step(self, data: Any) -> dict:
        """Evaluate the wrapped model, unperturbed."""
        return self._without_own(super().test_step(data))

    @property
    def losses(self) -> list:
        """Those of the wrapped model; while a step computes a loss, those of a pass."""
        given = self._losses_of_pass.given
        return super().losses if given is None else given

    def _loss_of(self, batch, outputs, losses_of_calls, counted):
        """The supervised loss of a pass: see :class:`StepSetup`."""
        losses = [*losses_of_calls, *_keras.losses_of_weights(self.model)]
        if not losses and self._setup.losses.losses is None:
            raise InputError("fit: there is no loss; give one to compile(loss=...)")
        metrics = contextlib.nullcontext if counted else _keras.losses_not_counted
        self._losses_of_pass.given = losses
        try:
            with metrics(self):
                loss = self.compute_loss(batch.x, batch.y, outputs, batch.sample_weight)
        finally:
            self._losses_of_pass.given = None
        # Keras 2 leaves it in the type of the outputs.
        return tf.cast(loss, tf.float32) if loss.dtype.size < 4 else loss

    def _update_metrics(self, step: Step, result: StepResult) -> list:
        """Let all metrics see a step; the names of our own that it has."""
        batch, clean, norm = step.batch, step.clean_loss, result.delta_norm
        _keras.update_metrics(self, batch.y, step.outputs, batch.sample_weight)
        rows = tf.shape(tf.nest.flatten(batch.x)[0])[0]
        values = {
            # In each replica a loss is its part of the mean over the whole batch.
            "loss": result.loss * step.replicas,
            "clean_loss": None if clean is None else clean * step.replicas,
            "adversarial_loss": result.adversarial * step.replicas,
            "delta_norm": 0.0 if norm is None else mean(norm),
        }
        values = {name: value for name, value in values.items() if value is not None}
        for name, value in values.items():
            # As Keras weighs its losses: the last batch may be a smaller one.
            self._means[name].update_state(value, sample_weight=rows)
        failed = tf.maximum(result.failed, step.failed)
        self._nonfinite.update_state(tf.reduce_sum(failed))
        return list(values)

    def _results(self, names) -> dict:
        """The results of the metrics; of our own those with these names."""
        own = {name: self._means[name].result() for name in names}
        own["nonfinite_gradients"] = _keras.result_of_sum(self._nonfinite)
        theirs = self._without_own(self.get_metrics_result())
        theirs.pop("loss", None)  # of `evaluate`
        if taken := own.keys() & theirs.keys():
            raise InputError(
                f"compile: a metric has the name of a log of adversarial training, "
                f"{min(taken)}: give it another name"
            )
        return {**theirs, **own}

    def _epoch_logs(self, logs):
        """The logs of an epoch of training; None for those of `evaluate`.

        Keras would take our means, which it does not know, from the last step.
        """
        if "delta_norm" not in logs:
            return None
        found = self._results(self._means)
        return {name: found[name] for name in logs}

    def _without_own(self, logs) -> dict:
        """Logs without our own metrics."""
        names = {mean.name for mean in self._means.values()} | {self._nonfinite.name}
        return {name: value for name, value in logs.items() if name not in names}
