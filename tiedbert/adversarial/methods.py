"""What perturbation to train on: small frozen objects."""

from dataclasses import dataclass

import tensorflow as tf

from tiedbert.adversarial.geometry import l2_direction
from tiedbert.errors import InputError


@dataclass(frozen=True)
class FGM:
    """Fast gradient method: one step of length `epsilon` along the gradient.

    ``delta = epsilon * g / ||g||``, where ``g`` is the gradient of the loss with
    respect to the hidden state and the norm is that of each example.

    Args:
        epsilon: L2 radius per example, in units of the hidden state.
        clean: whether to train on the mean of the clean and the adversarial loss (the
            gradient ``g`` then comes for free), or on the adversarial loss alone.

    Source: Miyato, Dai and Goodfellow, "Adversarial training methods for
    semi-supervised text classification", 2017, section 3.

    Cost: two forward and two backward passes of the part after the cut (without
    `clean` the first backward pass stops at the hidden state and needs no gradients of
    weights); the part before it runs once.

    Example:
        >>> import tensorflow as tf
        >>> gradient = lambda delta: tf.constant([[3.0, 4.0]])
        >>> delta = FGM(epsilon=10.0).delta(gradient, tf.zeros([1, 2]))
        >>> delta.numpy().round(3).tolist()
        [[6.0, 8.0]]
    """

    epsilon: float = 1.0
    clean: bool = True

    def __post_init__(self):
        if not 0 <= self.epsilon < float("inf"):
            raise InputError(f"FGM expected epsilon >= 0, received {self.epsilon}")

    def delta(self, gradient, hidden, positions=None):
        """The perturbation of `hidden`.

        Args:
            gradient: function of a delta (None: zero) that gives the gradient of the
                loss at that delta, up to a positive factor.
            hidden: the tensor to perturb, float ``[batch, ...]``.
            positions: bool ``[batch, time]``, where a perturbation may be; or None.
        """
        step = self.epsilon * l2_direction(gradient(None), positions)
        return tf.cast(step, hidden.dtype)
