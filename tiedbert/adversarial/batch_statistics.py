"""Moving averages in a training step of several passes."""

import tensorflow as tf


class BatchStatistics:
    """The statistics of a model within one training step.

    Every pass through a part updates the moving averages in it. Of several passes the
    first one counts; the updates of the others are undone.

    Args:
        variables: the float statistics of the whole model.
    """

    def __init__(self, variables: list):
        self._before = _with_values(variables)
        self._after_first_pass = []
        self._called = set()
        self._called_again = False

    def record_call(self, index: int, variables: list) -> None:
        """Tell that part `index`, with the statistics `variables`, was called."""
        if index in self._called:
            self._called_again = True
        else:
            self._called.add(index)
            self._after_first_pass += _with_values(variables)

    def undo_later_passes(self) -> None:
        """Restore the values after the first pass."""
        if self._called_again:
            for variable, value in self._after_first_pass:
                variable.assign(value)

    def restore_nonfinite(self, learned: tf.Tensor) -> None:
        """Restore the values before the step where those of now are not finite.

        All of them where no weight learned: `learned`, bool scalar, is False.
        """
        for variable, before in self._before:
            now = tf.convert_to_tensor(variable)
            ok = learned & tf.reduce_all(tf.math.is_finite(now))
            variable.assign(tf.where(ok, now, before))


def _with_values(variables) -> list:
    """Pairs of a variable and its value now."""
    return [(variable, tf.convert_to_tensor(variable)) for variable in variables]
