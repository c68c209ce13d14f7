"""What passes, gradients and training steps give."""

from typing import Any, NamedTuple

import tensorflow as tf


class Pass(NamedTuple):
    """The result of one pass through the parts behind the first cut point.

    Attributes:
        outputs: those of the model, in its structure.
        losses: list of scalars: the losses that layers added in this pass.
        hidden: list of the tensors at the cut points, before anything was added.
    """

    outputs: Any
    losses: list[tf.Tensor]
    hidden: list[tf.Tensor]


class LossGradient(NamedTuple):
    """A loss from which the weights learn, and its gradient.

    Attributes:
        loss: float scalar.
        gradient: list: of the loss with respect to the tensor at each cut point, times
            a positive number; None where the loss does not depend on it.
    """

    loss: tf.Tensor
    gradient: list[tf.Tensor | None]


class StepResult(NamedTuple):
    """The result of one training step of a method, from which the logs are made.

    Attributes:
        loss: float scalar: what was minimized.
        adversarial: float scalar: the part of it that comes from the perturbation.
        delta_norm: float32 ``[batch]``: the norm of the perturbation of each example;
            None (the default) where there is no perturbation.
        failed: float32 ``[batch]`` or 0.0 (the default): 1.0 for an example of which a
            gradient was not finite, as in
            :class:`tiedbert.adversarial.perturbation_ball.Perturbation`.
    """

    loss: tf.Tensor
    adversarial: tf.Tensor
    delta_norm: tf.Tensor | None = None
    failed: tf.Tensor | float = 0.0
