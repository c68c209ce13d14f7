"""Radii that change during training."""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from tiedbert.adversarial.argument_rules import COUNT, NON_NEGATIVE, argument, check
from tiedbert.errors import InputError, reason


@dataclass(frozen=True)
class WarmUp:
    """A radius that grows linearly from 0 to `epsilon` in the first `steps` steps.

    Any function of the step, an int64 scalar tensor, is accepted as an ``epsilon`` too:
    it returns a number, and a negative one counts as 0. `fit` traces it once, so it
    must be made of TensorFlow operations: ``tf.where`` or ``tf.cond`` instead of
    ``if``, ``tf.minimum`` instead of ``min``.

    Args:
        epsilon: the radius after the warm-up, >= 0.
        steps: optimizer steps until then, >= 1.

    Raises:
        InputError: an argument that does not follow its rule.

    Example:
        >>> radius = WarmUp(2.0, steps=100)
        >>> [float(radius(step)) for step in (0, 25, 1000)]
        [0.0, 0.5, 2.0]
    """

    epsilon: float = argument(NON_NEGATIVE)
    steps: int = argument(COUNT)

    def __post_init__(self):
        check(self)

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """The radius in a step, float32 scalar."""
        done = tf.cast(step, tf.float32) / self.steps
        return self.epsilon * tf.minimum(done, 1.0)


def value_at(number_or_schedule: float | Callable, step: tf.Tensor) -> tf.Tensor:
    """A number, or what a function of the step gives, at least 0: float32 scalar.

    Raises:
        InputError: a function that does not give a number, or needs Python values.
    """
    if not callable(number_or_schedule):
        return tf.cast(number_or_schedule, tf.float32)
    given = _given(number_or_schedule, step)
    try:
        value = tf.convert_to_tensor(given)
    except (TypeError, ValueError):
        value = None
    if value is None or value.shape.rank or not _is_number(value.dtype):
        raise InputError(
            f"epsilon: expected a function that gives a number, received {given!r}"
        )
    return tf.maximum(tf.cast(value, tf.float32), 0.0)


def _given(schedule, step):
    """The value of a schedule; InputError where it needs Python values in a trace."""
    try:
        return schedule(step)
    except (AttributeError, NotImplementedError, TypeError) as error:
        if tf.executing_eagerly():
            raise
        raise InputError(
            "epsilon: expected a function of the step made of TensorFlow operations, "
            "as fit traces it once: tf.where or tf.cond instead of `if`, "
            f"tf.minimum instead of min; it raised {type(error).__name__}: "
            f"{reason(error)}"
        ) from error


def _is_number(dtype) -> bool:
    return dtype.is_floating or dtype.is_integer
