"""Radii that change in the course of training."""

from dataclasses import dataclass

import tensorflow as tf

from tiedbert.adversarial.checks import check, refuse
from tiedbert.errors import InputError


@dataclass(frozen=True)
class WarmUp:
    """A radius that grows linearly from 0 to `epsilon` in the first `steps` steps.

    Any function of the step, an int64 tensor, can take its place as an ``epsilon``:
    it gives a number, and a negative one counts as 0.

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
    """A number, or what a function of the step gives, but at least 0, float32."""
    if not callable(number_or_schedule):
        return tf.cast(number_or_schedule, tf.float32)
    given = number_or_schedule(step)
    try:
        value = tf.convert_to_tensor(given)
    except (TypeError, ValueError):
        value = None
    if value is None or value.shape.rank or not _is_number(value.dtype):
        raise InputError(
            f"epsilon: expected a function that gives a number, received {given!r}"
        )
    return tf.maximum(tf.cast(value, tf.float32), 0.0)


def _is_number(dtype) -> bool:
    return dtype.is_floating or dtype.is_integer
