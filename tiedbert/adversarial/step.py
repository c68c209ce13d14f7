"""One training step, as a method sees it: passes, losses, gradients."""

import contextlib
import functools
from typing import Any, NamedTuple

import tensorflow as tf

from tiedbert import _keras
from tiedbert.adversarial.cut_model import moved
from tiedbert.adversarial.divergences import divergence_between
from tiedbert.adversarial.norms import finite
from tiedbert.adversarial.perturbation_ball import Ball
from tiedbert.adversarial.schedules import value_at


class Batch(NamedTuple):
    """What `fit` hands over."""

    x: Any
    y: Any
    sample_weight: Any


class Pass(NamedTuple):
    """What a pass through the parts behind the first point gives.

    Attributes:
        outputs: the model's.
        losses: those that layers added on the way.
        points: the tensors at the points, before anything was added to them.
    """

    outputs: Any
    losses: list
    points: list


class Learned(NamedTuple):
    """A pass from which the weights learn.

    Attributes:
        loss: scalar.
        gradient: of the loss with respect to the tensor at each point, times a
            positive number.
    """

    loss: Any
    gradient: list


class Trained(NamedTuple):
    """What a method tells of a step.

    Attributes:
        loss: what was minimized, scalar.
        adversarial: the part of it that comes from perturbation.
        delta_norm: float32 ``[batch]``; None where there is no perturbation.
        failed: float32 ``[batch]``, as in
            :class:`tiedbert.adversarial.perturbation_ball.Moved`.
    """

    loss: Any
    adversarial: Any
    delta_norm: Any = None
    failed: Any = 0.0


class Step:
    """A batch, the tensors at the points, and the gradients gathered so far.

    Args:
        training: the :class:`tiedbert.adversarial.AdversarialTraining`.
        batch: :class:`Batch`.

    Attributes:
        clean: loss of the unperturbed batch, once a pass has found it; or None.
        outputs: those of the first pass.
        failed: float32 ``[batch]``, 1.0 for an example because of which a pass of
            learning, or the step, was left out; 0.0 before any. Where it cannot be
            told which example it was, 1.0 for all.
        chosen: for each point float scalar, 1.0 where it is perturbed in this step and
            0.0 where it is not; None: all are.
    """

    def __init__(self, training, batch):
        self.training, self.batch = training, batch
        self.cut = training.cut
        self.weights = training.trainable_variables
        self.clean = self.outputs = None
        self.failed = 0.0
        self.replicas = tf.distribute.get_strategy().num_replicas_in_sync
        self.chosen = self._choose()
        self._seeds = [_draw_seed() for _ in training.behind]
        self._front_seed = _draw_seed()
        self.begin()

    def begin(self):
        """Run the front with the weights as they are."""
        self._before = _values(self.training.statistics)
        self._front_tape = tf.GradientTape()
        with self._front_tape:
            # Gradients come back through these.
            self.crossing, self._front_losses = self._run_front()
        floats = [tensor for tensor in self.crossing if tensor.dtype.is_floating]
        self._passed = floats + self._front_losses
        self._passed_gradients = self._weight_gradients = None
        self._learned, self._last_outputs = [], None
        self._points = self.perturbation_mask = self._tape = None
        self._called, self._statistics, self._again = set(), [], False

    def _run_front(self) -> tuple:
        """What crosses the first cut, and the losses that layers added before it."""
        if self.training.front is not None:
            return self.training.front(self.batch.x, self._front_seed)
        crossing = _keras.call(self.cut.front, self.batch.x, training=True)
        return crossing, _keras.losses_of_calls(self.cut.front)

    def ball(self, method):
        """The perturbations that `method` allows in this step."""
        if self._points is None:
            self._points, self.perturbation_mask = self._first_points()
        return Ball(
            method.norm,
            self.value(method.epsilon),
            method.relative,
            self._points,
            self.perturbation_mask,
            self.chosen,
        )

    def value(self, number_or_schedule):
        """A number, or what a schedule says for this step."""
        return value_at(number_or_schedule, self.training.optimizer.iterations)

    def run(self, delta=None) -> Pass:
        """A pass at `delta`: list of float32 tensors, one per point; None: zero."""
        losses = []

        def call(i, crossing):
            called = self._call(i, crossing)
            losses.extend(called.losses)
            return called.outputs

        outputs, points, perturbation_mask = self.cut.run(
            self.batch.x, self.crossing, delta, call
        )
        if self._points is None:
            self._points, self.perturbation_mask = points, perturbation_mask
        return Pass(outputs, losses, points)

    def run_first(self, delta=None):
        """The first part behind the front alone, at `delta`: its ``Called``."""
        return self._call(0, moved(self.crossing, delta))

    def run_rest(self, called) -> Pass:
        """What is behind the first part, on what that gave."""
        crossing, losses = called.outputs, list(called.losses)
        for i in range(1, len(self.cut.widths)):
            called = self._call(i, crossing)
            crossing, losses = called.outputs, losses + called.losses
        return Pass(crossing, losses, [])

    def _call(self, i, crossing):
        """Call a part. The first call tells what statistics are kept."""
        part = self.training.behind[i]
        replays = self.training.replays_dropout
        called = part(crossing, self._seeds[i] if replays else _draw_seed())
        if i in self._called:
            self._again = True
        else:
            self._called.add(i)
            self._statistics += _values(part.statistics)
        return called

    def loss(self, done):
        """The supervised loss of a pass, with the penalties of `add_loss`."""
        batch, self._last_outputs = self.batch, done.outputs
        first = self.outputs is None
        if first:
            self.outputs = done.outputs
        quiet = contextlib.nullcontext if first else _keras.losses_not_counted
        with quiet(self.training):
            return self.training.loss_of(
                batch, done.outputs, self._front_losses + done.losses
            )

    def divergence(self, p, q, weighted=True, given=None, symmetric=True):
        """How far two outputs are apart, a scalar: see :mod:`.divergences`.

        Args:
            p: outputs of a pass.
            q: the same of another.
            weighted: whether the sample weights of rows count, and that a token has no
                label.
            given: the measure; None: by the loss.
            symmetric: whether a KL is.
        """
        weights, labels = self.batch.sample_weight, self.batch.y
        if not weighted:
            weights, labels = tf.nest.map_structure(_unless_of_rows, weights), None
        return divergence_between(
            self.training, p, q, weights, given, symmetric, labels
        )

    def average_outputs(self):
        """The outputs of the model with the moving average of its weights."""
        return _keras.call(self.training.average, self.batch.x, training=False)

    def gradient(self, delta=None, objective=None) -> list:
        """The gradient with respect to the perturbation, times a positive number.

        Args:
            delta: where; None: at zero.
            objective: function of a :class:`Pass` -> scalar; None: the loss.
        """
        # Weights are not watched: their gradients cost a third of a pass.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._passed)
            done = self.run(delta)
            value = (
                self._clean_loss(delta, done)
                if objective is None
                else (objective(done))
            )
            value = _keras.scale_loss(self.training.optimizer, value)
        return tape.gradient(value, done.points)

    def learn_at(self, delta, share=1.0) -> Learned:
        """Let the weights learn from ``share`` times the loss at a perturbation."""
        kept = []

        def loss():
            kept.append(self.run(delta))
            return self._clean_loss(delta, kept[0])

        return self.learn(loss, share, lambda: kept[0].points)

    def learn(self, function, share=1.0, points=list, watch=()) -> Learned:
        """Let the weights learn from ``share`` times what `function` gives, a scalar.

        What it does within :meth:`pause` counts as a constant.

        Args:
            function: without arguments.
            share: float.
            points: function that gives, afterwards, the tensors whose gradient is
                wanted.
            watch: those of them that are there already.
        """
        losses = []

        def scaled():
            losses.append(function())
            return _keras.scale_loss(self.training.optimizer, share * losses[0])

        gradient = self.learn_scaled(scaled, points, watch)
        return Learned(losses[0], gradient)

    def learn_scaled(self, function, points=list, watch=()) -> list:
        """The same for a loss that has its share and its scale; the gradients."""
        self._last_outputs = None
        with tf.GradientTape() as tape:
            tape.watch([*self._passed, *watch])
            self._tape = tape
            loss = function()
        sources = self._passed, self.weights, points()
        passed, weights, at_points = tape.gradient(loss, sources)
        # Of what crosses to a part, the rest may have no rows.
        at_rows = at_points[:1] if watch else at_points
        learned = self._is_learned(loss, passed, at_rows)
        self._learned.append(learned)
        passed, weights = _zero_unless(learned, passed), _zero_unless(learned, weights)
        self._passed_gradients = _sum(self._passed_gradients, passed)
        self._weight_gradients = _sum(self._weight_gradients, weights)
        return at_points

    @contextlib.contextmanager
    def pause(self):
        """Context within :meth:`learn` in which nothing is learned from."""
        with self._tape.stop_recording():
            yield

    def gradients(self) -> list:
        """Those gathered, one per trainable variable; None where there is none.

        The statistics of the step are settled here: of several passes those of the
        first, and those of before the step where the weights learn nothing from it.
        """
        learned = tf.reduce_any(self._learned)
        through_front = _pull_back(
            self._front_tape, self._passed, self._passed_gradients, self.weights
        )
        # Where no pass is learned from, zero times a value that is not finite is left.
        if not self._skipped_by_optimizer:
            through_front = _zero_unless(learned, through_front)
        if self._again:
            for variable, value in self._statistics:
                variable.assign(value)
        total, ok = self._finite(_sum(self._weight_gradients, through_front))
        _keep_finite(self._before, learned & ok)
        return total

    def update(self):
        """Apply the gradients that were gathered, and begin anew with those weights."""
        self.training.apply(self.gradients())
        self.begin()

    @property
    def _skipped_by_optimizer(self) -> bool:
        """Whether the optimizer leaves out a step that is not finite by itself."""
        return _keras.skips_nonfinite_gradients(self.training.optimizer)

    def _is_learned(self, loss, passed, at_points):
        """Whether the weights learn from a pass, bool scalar: all of it is finite.

        Within a batch what one example does to the weights cannot be told apart.
        """
        width = self.cut.widths[0]
        checks = [finite(g) for g in passed[:width] + at_points if g is not None]
        checks += [_all_finite(g) for g in passed[width:] if g is not None]
        ok = functools.reduce(tf.logical_and, checks, tf.fill([self._rows], True))
        culprit_known = tf.reduce_all(tf.math.is_finite(loss)) | ~tf.reduce_all(ok)
        ok = tf.cond(culprit_known, lambda: ok, self._last_outputs_finite)
        self.failed = tf.maximum(self.failed, tf.cast(~ok, tf.float32))
        # A replica may have no rows: nothing is wrong with them.
        return tf.constant(True) if self._skipped_by_optimizer else tf.reduce_all(ok)

    def _finite(self, gradients) -> tuple:
        """The gradients of a step, or zeros of all where one of them is not finite.

        As where a weight, or the part before the cut, has no derivative. And whether
        all are finite, or the optimizer judges that by itself.
        """
        given = [g for g in gradients if g is not None]
        if self._skipped_by_optimizer or not given:
            return gradients, True
        ok = tf.reduce_all([_all_finite(g) for g in given])
        failed = tf.fill([self._rows], tf.cast(~ok, tf.float32))
        self.failed = tf.maximum(self.failed, failed)
        return _zero_unless(ok, gradients), ok

    @property
    def _rows(self):
        return tf.shape(self.crossing[0])[0]

    def _last_outputs_finite(self):
        """Which examples of a pass with a loss that is not finite have finite outputs.

        Bool ``[batch]``: none where all have, and it cannot be told.
        """
        outputs = [x for x in tf.nest.flatten(self._last_outputs) if x is not None]
        ok = tf.fill([self._rows], True)
        for output in outputs:
            here = finite(output) if output.shape.rank else tf.fill([1], False)
            # An output may have other rows than the batch.
            fits = tf.equal(tf.size(here), self._rows)
            ok &= tf.cond(fits, lambda: here, lambda: tf.fill([self._rows], True))  # noqa: B023
        return ok & ~tf.reduce_all(ok)

    def _clean_loss(self, delta, done):
        loss = self.loss(done)
        if delta is None and self.clean is None:
            self.clean = loss
        return loss

    def _first_points(self) -> tuple:
        """The tensors at the points, and where they may be perturbed."""
        if len(self.cut.widths) > 1 and any(self.cut.widths[1:]):
            # Only a pass through the first parts tells what is at later points.
            self.run()
            return self._points, self.perturbation_mask
        perturbation_mask = self.cut.perturbation_mask(self.batch.x, 0, self.crossing)
        return self.crossing[: self.cut.widths[0]], perturbation_mask

    def _choose(self):
        """For each point whether it is perturbed in this step; None: all are."""
        if not self.cut.one_of:
            return None
        count = sum(self.cut.widths)
        index = tf.random.uniform([], maxval=count, dtype=tf.int32)
        return tf.unstack(tf.one_hot(index, count))


def _unless_of_rows(weights):
    """Sample weights; none, or ones, where there is one for each example."""
    if weights is None:
        return None
    weights = tf.convert_to_tensor(weights)
    if weights.shape.rank is None:
        of_rows = tf.equal(tf.size(weights), tf.shape(weights)[0])
        return tf.where(of_rows, tf.ones_like(weights), weights)
    return None if weights.shape[1:].num_elements() == 1 else weights


def _values(variables) -> list:
    """Pairs of a variable and its value now."""
    return [(variable, tf.convert_to_tensor(variable)) for variable in variables]


def _keep_finite(statistics, learned):
    """Give back their earlier values to statistics that are not finite now.

    To all of them unless `learned`, bool scalar.
    """
    for variable, before in statistics:
        now = tf.convert_to_tensor(variable)
        ok = learned & tf.reduce_all(tf.math.is_finite(now))
        variable.assign(tf.where(ok, now, before))


def _draw_seed():
    return tf.random.uniform([2], maxval=2**31 - 1, dtype=tf.int32)


def _pull_back(front_tape, passed, gradients, weights):
    """The gradients that reach the weights through the part before the cut."""
    pairs = zip(passed, gradients, strict=True)
    reached = [(tensor, gradient) for tensor, gradient in pairs if gradient is not None]
    tensors = [tensor for tensor, _ in reached]
    values = [gradient for _, gradient in reached]
    return front_tape.gradient(tensors, weights, output_gradients=values)


def _all_finite(gradient):
    """Whether it holds only finite numbers, bool ``[1]``."""
    values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
    if values.dtype.size < 4:
        values = tf.cast(values, tf.float32)
    # One pass over it: a sum with what is not finite is not finite.
    return tf.math.is_finite(tf.reduce_sum(values))[None]


def _zero_unless(ok, gradients) -> list:
    """Gradients where `ok`, bool scalar, else zeros in their places."""
    given = [g for g in gradients if g is not None]
    left = iter(tf.cond(ok, lambda: given, lambda: [_zeros(g) for g in given]))
    return [None if g is None else next(left) for g in gradients]


def _zeros(gradient):
    if isinstance(gradient, tf.IndexedSlices):
        zeros = tf.zeros_like(gradient.values)
        return tf.IndexedSlices(zeros, gradient.indices, gradient.dense_shape)
    return tf.zeros_like(gradient)


def _sum(left, right) -> list:
    """Add lists of gradients entry by entry; None counts as zero."""
    if left is None:
        return list(right)
    return [_sum_entries(*entries) for entries in zip(left, right, strict=True)]


def _sum_entries(left, right):
    if left is None or right is None:
        return right if left is None else left
    # A tied table has a sparse gradient from the input and a dense one from the head.
    return tf.convert_to_tensor(left) + tf.convert_to_tensor(right)
