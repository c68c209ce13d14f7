"""Radii that change in the course of training."""

from dataclasses import dataclass

import tensorflow as tf

from tiedbert.adversarial.checks import check, refuse


@dataclass(frozen=True)
class WarmUp:
    """A radius that grows linearly from 0 to `epsilon` in the first `steps` steps.

    Any function of the step, an int64 tensor, can take its place as an ``epsilon``.

    Args:
        epsilon: the radius after the warm-up.
        steps: optimizer steps until then.

    Example:
        >>> radius = WarmUp(2.0, steps=100)
        >>> [float(radius(step)) for step in (0, 25, 1000)]
        [0.0, 0.5, 2.0]
    """

    epsilon: float
    steps: int

    def __post_init__(self):
        if callable(self.epsilon):
            refuse(self, "epsilon", "a number >= 0")
        check(self)

    def __call__(self, step):
        """The radius in a step, float32 scalar."""
        done = tf.cast(step, tf.float32) / self.steps
        return self.epsilon * tf.minimum(done, 1.0)


def value_at(number_or_schedule, step):
    """A number as it is, or what a function of the step gives, float32."""
    if callable(number_or_schedule):
        number_or_schedule = number_or_schedule(step)
    return tf.cast(number_or_schedule, tf.float32)
