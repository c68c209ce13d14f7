"""Training with a penalty on the gradient itself."""

from dataclasses import dataclass

import tensorflow as tf

from tiedbert import _keras
from tiedbert.adversarial.argument_rules import LENGTH, argument
from tiedbert.adversarial.divergences import check_means, rows_counted
from tiedbert.adversarial.method import Method, Passes
from tiedbert.adversarial.norms import restrict
from tiedbert.adversarial.perturbation_ball import checked
from tiedbert.adversarial.step import Trained


@dataclass(frozen=True)
class GradientPenalty(Method):
    """The squared length of the gradient is added to the loss.

    ``loss + weight / 2 * mean(||g_i||^2)``, where ``g_i`` is the gradient of the loss
    of example i with respect to its hidden state. Its own gradient is exact, through
    second derivatives of what is after the cut point. The mean is over the examples
    that count in the loss: not those without a label (the `ignore_class` of the loss),
    or hidden by the Keras mask of the output.

    Args:
        weight: of the penalty.

    Source: Drucker and LeCun, "Improving generalization performance using double
    backpropagation", 1992; on embeddings: Su Jianlin, 2020 (kexue.fm/archives/7234).

    Cost: 3 training steps, roughly: the backward pass is differentiated too.

    Example:
        >>> GradientPenalty(weight=0.5).weight
        0.5
    """

    weight: float = argument(LENGTH, 1.0)

    def passes(self, first_block=1.0) -> Passes:
        """What a step costs: a pass whose backward pass is differentiated."""
        return Passes(3)

    def train(self, step) -> Trained:
        """One training step."""
        check_means(step.training, "GradientPenalty")
        penalties = []

        def loss():
            with tf.GradientTape() as tape:
                tape.watch(step.crossing[: step.cut.widths[0]])
                done = step.run()
                value = step.loss(done)
                scaled = _keras.scale_loss(step.training.optimizer, value)
            step.clean = value
            gradients = tape.gradient(scaled, done.points)
            penalties.append(self._penalty(step, done, gradients))
            return value + tf.cast(self.weight / 2.0 * penalties[0], value.dtype)

        return Trained(step.learn(loss).loss, penalties[0])

    def _penalty(self, step, done, gradients):
        counted = rows_counted(step.training, done.outputs, step.batch.y)
        scale = _keras.scale_loss(step.training.optimizer, tf.constant(1.0))
        total = 0.0
        chosen = step.chosen or [1.0] * len(gradients)
        places = zip(gradients, step.perturbation_mask, chosen, strict=True)
        for gradient, perturbation_mask, share in places:
            gradient = restrict(
                tf.cast(checked(gradient), tf.float32), perturbation_mask
            )
            here = tf.ones(tf.shape(gradient)[:1]) if counted is None else counted
            # The loss is a mean: an example has only a share of its own gradient.
            rows = tf.reduce_sum(here) * step.replicas
            axes = list(range(1, gradient.shape.rank))
            squares = tf.reduce_sum(tf.square(rows / scale * gradient), axes)
            mean = tf.math.divide_no_nan(tf.reduce_sum(squares * here), rows)
            total += share * step.replicas * mean
        return total / step.replicas
