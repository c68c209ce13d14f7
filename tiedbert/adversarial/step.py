"""One training step, as a method sees it: passes, losses, gradients."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from tiedbert import _keras
from tiedbert.adversarial.batch_statistics import BatchStatistics
from tiedbert.adversarial.cut_model import add_delta
from tiedbert.adversarial.front_pass import FrontPass
from tiedbert.adversarial.output_comparison import divergence_between
from tiedbert.adversarial.perturbation_ball import Ball
from tiedbert.adversarial.results import LossGradient, Pass
from tiedbert.adversarial.schedules import value_at
from tiedbert.adversarial.seeded_function import PartResult
from tiedbert.adversarial.step_setup import Batch, StepSetup
from tiedbert.adversarial.weight_gradients import WeightGradients


class Step:
    """A batch in training, and the gradients that the weights learn from.

    A method makes passes by :meth:`run`, asks for the gradient of a perturbation by
    :meth:`gradient`, and lets the weights learn by :meth:`learn_at`, or by
    :meth:`record` and :meth:`learn`.

    Args:
        setup: what all steps of the training have in common.
        batch: the batch.

    Attributes:
        setup: as given.
        batch: as given.
        crossing: list of the tensors that cross the first cut.
        clean_loss: float scalar, the loss of the unperturbed batch; None until a pass
            has found it. A method that calls :meth:`loss` itself sets it.
        outputs: those of the first pass; None before it.
        replicas: int, the number of replicas in `tf.distribute`.
        chosen: for each cut point a float scalar, 1.0 where it is perturbed in this
            step and 0.0 where it is not; None: all are.
        perturbation_mask: for each cut point bool ``[batch, time]``, True where it may
            be perturbed, or None; known after a pass or :meth:`ball`.
    """

    _hidden: Any
    perturbation_mask: Any
    _last_outputs: Any

    def __init__(self, setup: StepSetup, batch: Batch):
        self.setup, self.batch = setup, batch
        self._cut = setup.cut
        self.clean_loss: Any = None
        self.outputs: Any = None
        self.replicas = tf.distribute.get_strategy().num_replicas_in_sync
        self.chosen = _choose_point(self._cut)
        self._seeds = [_draw_seed() for _ in setup.parts]
        self._front_seed = _draw_seed()
        self._begin()

    @property
    def failed(self) -> tf.Tensor | float:
        """Which examples made a pass of learning, or the step, be left out.

        float32 ``[batch]``, 1.0 for such an example, and for all if it is not known
        which one it was; 0.0 before any.
        """
        return self._gradients.failed

    # Passes

    def run(self, delta: list | None = None) -> Pass:
        """Make a pass through all that is behind the first cut point.

        Args:
            delta: list of float32 tensors, one per cut point; None (the default): zero.
        """
        losses = []

        def call(i, crossing):
            called = self._call(i, crossing)
            losses.extend(called.losses)
            return called.outputs

        outputs, hidden, masks = self._cut.run(self.batch.x, self.crossing, delta, call)
        if self._hidden is None:
            self._hidden, self.perturbation_mask = hidden, masks
        return Pass(outputs, losses, hidden)

    def run_first(self, delta: list | None = None) -> PartResult:
        """Call the first part behind the first cut point alone, at `delta`."""
        return self._call(0, add_delta(self.crossing, delta))

    def run_rest(self, first: PartResult) -> Pass:
        """Call the parts behind the first one on what that gave."""
        crossing, losses = first.outputs, list(first.losses)
        for i in range(1, len(self.setup.parts)):
            called = self._call(i, crossing)
            crossing, losses = called.outputs, losses + called.losses
        return Pass(crossing, losses, [])

    def average_outputs(self) -> Any:
        """The outputs of the moving average of the model, in inference mode."""
        average = self.setup.average
        assert average is not None, "the method has an average_momentum()"
        return average.outputs(self.batch.x)

    # What is perturbed

    @property
    def first_hidden(self) -> list[tf.Tensor]:
        """The tensors at the cut points before the first part."""
        return self.crossing[: self._cut.counts[0]]

    @property
    def later_points(self) -> int:
        """How many of the cut points depend on another one."""
        return sum(self._cut.counts[1:])

    def ball(self, method: Any) -> Ball:
        """The perturbations that a method allows in this step.

        Args:
            method: with ``norm``, ``epsilon`` (a number, or a function of the step) and
                ``relative``.
        """
        if self._hidden is None:
            self._hidden, self.perturbation_mask = self._find_hidden()
        return Ball(
            method.norm,
            value_at(method.epsilon, self.setup.optimizer.iterations),
            method.relative,
            self._hidden,
            self.perturbation_mask,
            self.chosen,
        )

    # Losses

    def loss(self, done: Pass) -> tf.Tensor:
        """The supervised loss of a pass, regularization included: a float scalar."""
        self._last_outputs = done.outputs
        is_first = self.outputs is None
        if is_first:
            self.outputs = done.outputs
        losses = self._front.losses + done.losses
        return self.setup.loss_of(self.batch, done.outputs, losses, is_first)

    def divergence(
        self,
        p: Any,
        q: Any,
        weighted: bool = True,
        given: Callable | None = None,
        symmetric: bool = True,
    ) -> tf.Tensor:
        """The divergence between the outputs of two passes: a float32 scalar.

        Args:
            p: outputs, in the structure of the model.
            q: outputs.
            weighted: True (the default): the sample weights of rows count, and tokens
                without a label do not. False: all rows and tokens count alike.
            given: function of two outputs -> ``[batch, ...]``; None (the default): the
                one that goes with the loss (see
                :mod:`tiedbert.adversarial.output_comparison`).
            symmetric: whether a KL is the symmetric one; True by default.
        """
        weights, labels = self.batch.sample_weight, self.batch.y
        if not weighted:
            weights, labels = tf.nest.map_structure(_unless_per_row, weights), None
        return divergence_between(
            self.setup.losses, p, q, weights, given, symmetric, labels
        )

    # Gradients

    def gradient(
        self,
        delta: list | None = None,
        objective: Callable[[Pass], tf.Tensor] | None = None,
    ) -> list:
        """The gradient with respect to the perturbation, times a positive number.

        Args:
            delta: the perturbation; None (the default): zero.
            objective: function of a :class:`Pass` -> scalar; None (the default): the
                supervised loss.

        Returns:
            list of tensors, one per cut point; None where there is no gradient.
        """
        # Weights are not watched: their gradients cost a third of a pass.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._front.sources)
            done = self.run(delta)
            value = objective(done) if objective else self._loss_at(delta, done)
            value = _keras.scale_loss(self.setup.optimizer, value)
        return tape.gradient(value, done.hidden)

    def learn_at(self, delta: list | None, scale: float = 1.0) -> LossGradient:
        """Let the weights learn from the loss at a perturbation, times `scale`.

        Args:
            delta: the perturbation; None: zero.
            scale: 1.0 by default.
        """
        with self.record() as tape:
            done = self.run(delta)
            loss = self._loss_at(delta, done)
        return LossGradient(loss, self.learn(tape, loss, scale, done.hidden))

    @contextlib.contextmanager
    def record(self) -> Iterator[tf.GradientTape]:
        """Context that gives a tape, from which :meth:`learn` takes gradients.

        No gradient flows through what is computed inside ``tape.stop_recording()``.
        """
        self._last_outputs = None
        with tf.GradientTape() as tape:
            tape.watch(self._front.sources)
            yield tape

    def learn(
        self,
        tape: tf.GradientTape,
        loss: tf.Tensor,
        scale: float = 1.0,
        wanted: list | tuple = (),
    ) -> list:
        """Let the weights learn from a loss, times `scale`.

        Args:
            tape: that of :meth:`record`.
            loss: float scalar, computed while the tape recorded.
            scale: 1.0 by default.
            wanted: tensors ``[batch, ...]`` whose gradient is wanted, e.g. the
                ``hidden`` of a pass; none by default.

        Returns:
            list of the gradients with respect to `wanted`, times a positive number.
        """
        return self.learn_scaled(tape, self._scaled(tape, loss, scale), wanted)

    def learn_scaled(
        self, tape: tf.GradientTape, loss: tf.Tensor, wanted: list | tuple = ()
    ) -> list:
        """:meth:`learn` for a loss that the optimizer's loss scale is in already."""
        return self._gradients.add(tape, loss, self._last_outputs, wanted)

    def learn_rest(
        self, first: PartResult, delta: list | None, scale: float = 1.0
    ) -> LossGradient:
        """Let the weights behind the first part learn from the loss, times `scale`.

        The first part and the front learn nothing.

        Args:
            first: what :meth:`run_first` gave.
            delta: the perturbation there; None: zero.
            scale: 1.0 by default.

        Returns:
            the loss, and its gradient with respect to ``first.differentiable()``.
        """
        inputs = first.differentiable()
        with self.record() as tape:
            tape.watch(inputs)
            loss = self._loss_at(delta, self.run_rest(first))
        scaled = self._scaled(tape, loss, scale)
        # Only the cut tensor is sure to have the rows of the batch.
        gradient = self._gradients.add(
            tape, scaled, self._last_outputs, inputs, with_rows=1
        )
        return LossGradient(loss, gradient)

    def gradients(self) -> list:
        """The gradients of the step, one per trainable variable; None: no gradient.

        The statistics of the model are settled too: those of the first pass are kept,
        and those of before the step where the weights learn nothing from it.
        """
        gradients, learned = self._gradients.total()
        self._statistics.undo_later_passes()
        self._statistics.restore_nonfinite(learned)
        return gradients

    def update(self) -> None:
        """Apply the gradients of the step, and begin a new one on the same batch."""
        self.setup.apply(self.gradients())
        self._begin(self.failed)

    def _begin(self, failed: tf.Tensor | float = 0.0) -> None:
        """Run the front with the weights as they are."""
        self._statistics = BatchStatistics(self.setup.statistics)
        self._front = FrontPass(self._run_front)
        self.crossing = self._front.crossing
        self._gradients = WeightGradients(
            self._front,
            self.setup.model.trainable_variables,
            self._cut.counts[0],
            _keras.skips_nonfinite_gradients(self.setup.optimizer),
            failed,
        )
        self._hidden = self.perturbation_mask = self._last_outputs = None

    def _run_front(self) -> tuple:
        """What crosses the first cut, and the losses that layers added before it."""
        if self.setup.front is not None:
            return self.setup.front(self.batch.x, self._front_seed)
        crossing = _keras.call(self._cut.front, self.batch.x, training=True)
        return crossing, _keras.losses_of_calls(self._cut.front)

    def _call(self, i, crossing) -> PartResult:
        part = self.setup.parts[i]
        seed = self._seeds[i] if self.setup.same_dropout else _draw_seed()
        called = part(crossing, seed)
        self._statistics.record_call(i, part.statistics)
        return called

    def _find_hidden(self) -> tuple:
        """The tensors at the cut points, and where they may be perturbed."""
        if self.later_points:
            # Only a pass through the first parts gives the tensors at later points.
            done = self.run()
            return done.hidden, self.perturbation_mask
        mask = self._cut.perturbation_mask(self.batch.x, 0, self.crossing)
        return self.first_hidden, mask

    def _loss_at(self, delta, done):
        loss = self.loss(done)
        if delta is None and self.clean_loss is None:
            self.clean_loss = loss
        return loss

    def _scaled(self, tape, loss, scale):
        """A loss times `scale` and the loss scale of the optimizer, on the tape."""
        with tape:
            return _keras.scale_loss(self.setup.optimizer, scale * loss)


def _choose_point(cut):
    """For each cut point whether it is perturbed in this step; None: all are."""
    if not cut.one_of:
        return None
    count = sum(cut.counts)
    index = tf.random.uniform([], maxval=count, dtype=tf.int32)
    return tf.unstack(tf.one_hot(index, count))


def _unless_per_row(weights):
    """Sample weights; None, or ones, where there is one for each example."""
    if weights is None:
        return None
    weights = tf.convert_to_tensor(weights)
    if weights.shape.rank is None:
        per_row = tf.equal(tf.size(weights), tf.shape(weights)[0])
        return tf.where(per_row, tf.ones_like(weights), weights)
    return None if weights.shape[1:].num_elements() == 1 else weights


def _draw_seed():
    return tf.random.uniform([2], maxval=2**31 - 1, dtype=tf.int32)
