"""GradientPenalty: training with a penalty on the gradient of the activations."""

from dataclasses import dataclass

import tensorflow as tf

from tiedbert import _keras
from tiedbert.adversarial.argument_rules import NON_NEGATIVE, argument
from tiedbert.adversarial.method import Method, Passes
from tiedbert.adversarial.norms import restrict
from tiedbert.adversarial.output_comparison import rows_counted
from tiedbert.adversarial.perturbation_ball import require_gradient
from tiedbert.adversarial.results import Pass, StepResult
from tiedbert.adversarial.step import Step


@dataclass(frozen=True)
class GradientPenalty(Method):
    """The squared norm of the gradient is added to the loss.

    ``loss + weight / 2 * mean(||g_i||^2)``, where ``g_i`` is the gradient of the loss
    of example i with respect to its hidden state. The gradient of the penalty is exact:
    it needs second derivatives of the part behind the cut point. The mean is over the
    examples that count in the loss, not over those without a label (the `ignore_class`
    of the loss) or hidden by the Keras mask of the output.

    Args:
        weight: of the penalty, >= 0; 1.0 by default.

    Source: Drucker and LeCun, "Improving generalization performance using double
    backpropagation", 1992; on embeddings: Su Jianlin, 2020 (kexue.fm/archives/7234).

    Cost: 3 training steps, roughly: the backward pass is differentiated too.

    Example:
        >>> GradientPenalty(weight=0.5).weight
        0.5
    """

    weight: float = argument(NON_NEGATIVE, 1.0)

    def passes(self, first_block: float = 1.0) -> Passes:
        """The cost of one training step: the backward pass is differentiated too."""
        return Passes(3)

    def train(self, step: Step) -> StepResult:
        """Make one training step."""
        step.setup.losses.check_means("GradientPenalty")
        optimizer = step.setup.optimizer
        with step.record() as tape:
            with tf.GradientTape() as inner_tape:
                inner_tape.watch(step.first_hidden)
                done = step.run()
                step.clean_loss = step.loss(done)
                scaled = _keras.scale_loss(optimizer, step.clean_loss)
            gradients = inner_tape.gradient(scaled, done.hidden)
            loss_scale = _keras.scale_loss(optimizer, tf.constant(1.0))
            penalty = _mean_square(step, done, gradients, loss_scale)
            added = tf.cast(self.weight / 2.0 * penalty, step.clean_loss.dtype)
            loss = step.clean_loss + added
        step.learn(tape, loss)
        return StepResult(loss, penalty)


def _mean_square(step: Step, done: Pass, gradients: list, loss_scale) -> tf.Tensor:
    """The mean over examples of the squared norm of their own gradients, float32.

    Args:
        step: the training step.
        done: the pass that `gradients` are of.
        gradients: of the loss of the batch times `loss_scale`, one per cut point.
        loss_scale: float scalar.
    """
    counted = rows_counted(step.setup.losses, done.outputs, step.batch.y)
    chosen = step.chosen or [1.0] * len(gradients)
    total = 0.0
    triples = zip(gradients, step.perturbation_mask, chosen, strict=True)
    for gradient, mask, factor in triples:
        gradient = restrict(tf.cast(require_gradient(gradient), tf.float32), mask)
        here = tf.ones(tf.shape(gradient)[:1]) if counted is None else counted
        # The loss is a mean over rows: this turns its gradient into each row's own.
        rows = tf.reduce_sum(here) * step.replicas
        axes = list(range(1, gradient.shape.rank))
        squares = tf.reduce_sum(tf.square(rows / loss_scale * gradient), axes)
        mean = tf.math.divide_no_nan(tf.reduce_sum(squares * here), rows)
        total += factor * step.replicas * mean
    return total / step.replicas
