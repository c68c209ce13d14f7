"""The one `fit` wrapper of all adversarial methods."""

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.adversarial.argument_rules import is_count
from tiedbert.adversarial.cut_model import CutModel
from tiedbert.adversarial.divergences import check_means
from tiedbert.adversarial.method import Method
from tiedbert.adversarial.micro_batches import gradients_in_micro_batches
from tiedbert.adversarial.norms import mean
from tiedbert.adversarial.seeded_function import Part
from tiedbert.adversarial.step import Batch, Step, Trained
from tiedbert.errors import InputError
from tiedbert.surgery import clone


class AdversarialTraining(keras.Model):
    """Train `model` on perturbed activations: `compile`, `fit`, `evaluate` as usual.

    The perturbation is added to the activation at a cut point, never to a weight: a
    tied head does not move with it. The part before the first cut point runs once a
    step, forward and backward. Validation and prediction are those of `model`, which
    is trained in place; `save` saves it alone.

    Args:
        model: a functional `keras.Model`.
        method: what perturbation, e.g. :class:`tiedbert.adversarial.FGM`.
        at: where: a cut point of :func:`tiedbert.surgery.split`; a list of them, each
            with a perturbation of its own; or :class:`tiedbert.adversarial.OneOf`.
            None: ``"Embedding-Norm"``, for models of bert4keras.
        perturbation_mask: function of the inputs -> bool ``[batch, time]``, where a
            perturbation may be. By default: in a BERT (of bert4keras, or of keras-hub)
            neither on padding nor on ``[CLS]`` and ``[SEP]``, taken for the first and
            the last token of a row, and all tokens like them; else not where the Keras
            mask of the cut tensor is False. To spare others, or in models with other
            rows: :func:`tiedbert.adversarial.except_tokens`.
        same_dropout: whether all passes of a step behind the cut have the same
            dropout, and other random numbers. None: as the method needs it.
        micro_batches: gradient accumulation: the number of micro-batches into which
            each batch is split. They run one after another, for one optimizer step, in
            the memory of one. The step is the same for a loss that is a mean over rows,
            but not where a Keras mask makes it a mean over tokens. Batch statistics
            move with each micro-batch.
        name: of the training.

    Metrics beside those of `compile` (which see the outputs of the first pass,
    unperturbed unless the method starts elsewhere): ``loss`` (what is minimized),
    ``clean_loss`` (where the method makes an unperturbed pass), ``adversarial_loss``
    (the loss, or the divergence, at the perturbation), ``delta_norm`` (mean norm of
    the perturbation of an example, in the method's norm and unit; 0 also where the loss
    does not depend on the point) and
    ``nonfinite_gradients`` (how many examples had a gradient or a loss that was not
    finite; the whole batch where it cannot be told which example it was). Such an
    example is not perturbed, and no weight learns from a pass in which it is. Where no
    weight learns from any pass of a step, its moving averages stay as they were. A
    `LossScaleOptimizer` leaves such a step out by itself; then only a moving average
    that is not finite is put back.

    Raises:
        InputError: no such cut point, or not one of float activations; a model with a
            `train_step`, `test_step`, `compute_loss` or `compute_metrics` of its own,
            which this class would ignore.

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
        model,
        method,
        at=None,
        perturbation_mask=None,
        same_dropout=None,
        micro_batches=1,
        name=None,
    ):
        _check_arguments(model, method, perturbation_mask, same_dropout, micro_batches)
        _check_model(model)
        # The model casts its own inputs: token ids given as floats must stay whole.
        # Its policy tells whether the loss is to be scaled.
        super().__init__(autocast=False, dtype=model.dtype_policy, name=name)
        self.model = model
        self.method = method
        self.built = True  # callbacks ask
        # Losses and metrics by the names of outputs find them.
        self.output_names = _keras.functional(model).output_names
        cut = CutModel(model, at, method.second_cut(), perturbation_mask)
        average = clone(model) if method.proximal else None
        replays = _replays(method, same_dropout)
        # Not as layers of this one: they are made of the model's, or not trained.
        for name, value in {
            "cut": cut,
            "_seeded": replays or method.replays_dropout is not None,
            "average": average,
            "replays_dropout": replays,
            "_micro_batches": int(micro_batches),
            "_losses_now": None,
        }.items():
            object.__setattr__(self, name, value)
        # Names that no metric of Keras has: its own "loss" is that of `evaluate`.
        self._means = {
            name: keras.metrics.Mean(name=f"tiedbert_{name}")
            for name in ("loss", "clean_loss", "adversarial_loss", "delta_norm")
        }
        self._nonfinite = keras.metrics.Sum(name="tiedbert_nonfinite_gradients")

    def call(self, inputs, training=None):
        """The outputs of the wrapped model."""
        return self.model(inputs, training=training)

    def compile(self, *args, **kwargs):
        """Configure the training: as `keras.Model.compile`."""
        super().compile(*args, **kwargs)
        # Overridden below: had it another name, the logs of replicas would be wrong.
        _keras.check_logs_method(self.model)
        if self.method.replays > 1 and _keras.accumulates(self.optimizer):
            raise InputError(
                f"{type(self.method).__name__} takes {self.method.replays} optimizer "
                "steps in a batch, and an optimizer with gradient_accumulation_steps "
                "takes one in several: leave that out, or take another method"
            )
        if self._micro_batches > 1:
            check_means(self, f"micro_batches={self._micro_batches}")
        # A trace holds what was trainable, and at what rate, when it was made.
        parts = [Part(part, self._seeded) for part in self.cut.behind]
        object.__setattr__(self, "behind", parts)
        moved = [
            v for v in _keras.statistics(self.model) if "float" in _keras.dtype_name(v)
        ]
        object.__setattr__(self, "statistics", moved)
        # Once a step it needs no seed, and not traced a table's gradient stays sparse.
        again = self.replays_dropout and self.method.replays > 1
        front = Part(self.cut.front, self._seeded) if again else None
        object.__setattr__(self, "front", front)

    def fit(self, *args, **kwargs):
        """Train the wrapped model: as `keras.Model.fit`."""
        with _keras.input_errors_unwrapped():
            return super().fit(*args, **kwargs)

    def train_on_batch(self, *args, **kwargs):
        """One step: as `keras.Model.train_on_batch`."""
        with _keras.input_errors_unwrapped():
            return super().train_on_batch(*args, **kwargs)

    @property
    def weights(self):
        """Those of the wrapped model; Keras 2 would count the metrics."""
        return self.model.weights

    def save(self, *args, **kwargs):
        """Save the wrapped model."""
        return self.model.save(*args, **kwargs)

    def export(self, *args, **kwargs):
        """Export the wrapped model for serving."""
        return self.model.export(*args, **kwargs)

    def save_weights(self, *args, **kwargs):
        """Save the weights of the wrapped model."""
        with _keras.optimizer_attached(self, self.model):
            return self.model.save_weights(*args, **kwargs)

    def load_weights(self, *args, **kwargs):
        """Load weights into the wrapped model."""
        with _keras.optimizer_attached(self, self.model):
            return self.model.load_weights(*args, **kwargs)

    # Keras would let autograph convert it, and wrap every error in another.
    @tf.autograph.experimental.do_not_convert
    def train_step(self, data):
        """One step on the method's loss."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        batch = Batch(self.cut.shaped(x), y, sample_weight)
        if batch.y is None and _keras.given_losses(self)[0] is not None:
            raise InputError(
                "fit: the model was compiled with a loss, and there is no y"
            )
        names = []

        def gradients_of(batch):
            step = Step(self, batch)
            trained = _checked(self.method.train(step), self.method)
            gradients = step.gradients()
            names[:] = self._count(step, trained)
            return gradients

        if self._micro_batches == 1:
            self.apply(gradients_of(batch))
        else:
            weights = self.trainable_variables
            self.apply(
                gradients_in_micro_batches(
                    gradients_of, batch, self._micro_batches, weights
                )
            )
        return self._results(names)

    def test_step(self, data):
        """Evaluate the wrapped model, unperturbed."""
        return self._without_own(super().test_step(data))

    @property
    def losses(self):
        """Those of the wrapped model; within a training step those of a pass."""
        return super().losses if self._losses_now is None else self._losses_now

    def loss_of(self, batch, outputs, losses_of_calls):
        """The loss of some outputs, with those of calls of layers, at least float32."""
        losses = [*losses_of_calls, *_keras.losses_of_weights(self.model)]
        if not losses and _keras.given_losses(self)[0] is None:
            raise InputError("fit: there is no loss; give one to compile(loss=...)")
        object.__setattr__(self, "_losses_now", losses)
        try:
            loss = self.compute_loss(batch.x, batch.y, outputs, batch.sample_weight)
        finally:
            object.__setattr__(self, "_losses_now", None)
        # Keras 2 leaves it in the type of the outputs.
        return tf.cast(loss, tf.float32) if loss.dtype.size < 4 else loss

    def apply(self, gradients):
        """Take an optimizer step; the moving average of the weights follows."""
        weights = self.trainable_variables
        if weights:
            _keras.apply_gradients(self.optimizer, gradients, weights)
        if self.average is not None:
            self._move_average(self.method.momentum)

    def _move_average(self, momentum):
        pairs = zip(self.average.weights, self.model.weights, strict=True)
        for average, weight in pairs:
            value = tf.convert_to_tensor(average)
            new = tf.convert_to_tensor(weight)
            if value.dtype.is_floating:
                new = momentum * value + (1.0 - momentum) * tf.cast(new, value.dtype)
            average.assign(new)

    def _count(self, step, trained) -> list:
        """Let all metrics see a step; the names of those of ours that it has."""
        batch, norm = step.batch, trained.delta_norm
        _keras.update_metrics(self, batch.y, step.outputs, batch.sample_weight)
        rows = tf.shape(tf.nest.flatten(batch.x)[0])[0]
        values = {
            # Keras gives each replica its share of a loss.
            "loss": trained.loss * step.replicas,
            "clean_loss": None if step.clean is None else step.clean * step.replicas,
            "adversarial_loss": trained.adversarial * step.replicas,
            "delta_norm": 0.0 if norm is None else mean(norm),
        }
        values = {name: value for name, value in values.items() if value is not None}
        for name, value in values.items():
            # As Keras weighs its losses: the last batch may be a smaller one.
            self._means[name].update_state(value, sample_weight=rows)
        failed = tf.maximum(trained.failed, step.failed)
        self._nonfinite.update_state(tf.reduce_sum(failed))
        return list(values)

    def _results(self, names) -> dict:
        """What the metrics say, those of ours that have a name here."""
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

    # Asked at the end of an epoch, when the metrics of several replicas are added up;
    # without names that it knows Keras would take the quotients of the last step.

    def _validate_and_get_metrics_result(self, logs):  # Keras 2
        found = self._at_the_end(logs)
        return found or super()._validate_and_get_metrics_result(logs)

    def _get_metrics_result_or_logs(self, logs):  # Keras 3
        return self._at_the_end(logs) or super()._get_metrics_result_or_logs(logs)

    def _at_the_end(self, logs):
        """The logs of training anew; None for those of `evaluate`."""
        if "delta_norm" not in logs:
            return None
        found = self._results(self._means)
        return {name: found[name] for name in logs}

    def _without_own(self, logs):
        names = {mean.name for mean in self._means.values()} | {self._nonfinite.name}
        return {name: value for name, value in logs.items() if name not in names}


# What `fit` and `evaluate` would ask of a model that is not wrapped.
_REFUSED = "train_step", "test_step", "compute_loss", "compute_metrics"


def _check_arguments(model, method, perturbation_mask, same_dropout, micro_batches):
    if not isinstance(model, keras.Model):
        raise InputError(
            f"AdversarialTraining expected a keras.Model, received {model!r}"
        )
    if not isinstance(method, Method):
        raise InputError(
            f"AdversarialTraining expected a method such as FGM(), received {method!r}"
        )
    if perturbation_mask is not None and not callable(perturbation_mask):
        raise InputError(
            "AdversarialTraining expected perturbation_mask: a function of the "
            f"inputs or None; received a {type(perturbation_mask).__name__}"
        )
    if same_dropout not in (None, True, False):
        raise InputError(
            "AdversarialTraining expected same_dropout: True, False or None; "
            f"received {same_dropout!r}"
        )
    if not is_count(micro_batches):
        raise InputError(
            "AdversarialTraining expected micro_batches: a whole number >= 1; "
            f"received {micro_batches!r}"
        )
    if micro_batches > 1 and method.replays > 1:
        raise InputError(
            f"{type(method).__name__} steps within a batch, which only "
            "micro_batches=1 allows"
        )


def _check_model(model):
    """InputError for a model of which `fit` would do something else than it says."""
    names = _keras.functional(model).output_names  # it tells of what has no graph
    taken = {"clean", "adversarial"} & set(names)
    if taken and len(names) > 1:
        name = min(taken)
        raise InputError(
            f"the loss of the output {name!r} would have the name of a log of "
            f"adversarial training, {name}_loss: give its layer another name"
        )
    for layer in _keras.layers_within(model):
        if isinstance(layer, keras.layers.RNN) and layer.stateful:
            raise InputError(
                f"layer {layer.name!r} is stateful: it would go on with each pass of a "
                "step; build it with stateful=False"
            )
    for name in _REFUSED:
        owner = _keras.overriding_class(model, name) if hasattr(model, name) else None
        if owner is not None:
            raise InputError(
                f"model {model.name!r} has a {name} of its own ({owner.__name__}), "
                "which adversarial training would ignore: wrap a plain functional "
                "model with the same layers, keras.Model(model.inputs, model.outputs)"
            )


def _checked(trained, method):
    """What ``method.train`` gave; InputError when it is something else."""
    if not isinstance(trained, Trained):
        raise InputError(
            f"{type(method).__name__}.train: expected a tiedbert.adversarial.Trained, "
            f"received {trained!r}"
        )
    return trained


def _replays(method, asked):
    """Whether the passes of a step share their random numbers."""
    wanted = method.replays_dropout
    if asked is None:
        return bool(wanted)
    if wanted is not None and asked != wanted:
        kind = type(method).__name__
        raise InputError(
            f"{kind} needs same_dropout={wanted}, received {asked}: it is how "
            f"{kind} is defined"
        )
    return asked
