"""The gradients that the weights learn from in a step, and what is left out of them."""

from typing import Any, NamedTuple

import tensorflow as tf

from tiedbert.adversarial.finite_examples import finite_examples
from tiedbert.adversarial.front_pass import FrontPass
from tiedbert.adversarial.gradient_lists import (
    add_gradients,
    all_finite,
    zero_unless,
)


class _Gradients(NamedTuple):
    """Gradients of a loss.

    Attributes:
        sources: with respect to ``FrontPass.sources``.
        weights: with respect to the weights.
        wanted: with respect to the tensors that the caller asked for.
    """

    sources: list
    weights: list
    wanted: list


class WeightGradients:
    """The gradients of several losses, added up until an optimizer step.

    A loss with a gradient that is not finite adds zeros.

    Args:
        front: the pass through the front on which all losses depend.
        weights: list of the variables that learn.
        perturbed: how many of ``front.sources`` are perturbed: they have the rows of
            the batch.
        optimizer_skips: whether the optimizer leaves out a step that is not finite by
            itself; then nothing is replaced by zeros.
        failed: that of an earlier sum for the same batch; 0.0 by default.

    Attributes:
        failed: float32 ``[batch]``, 1.0 for an example because of which something was
            left out, and for all examples if it is not known which one it was; 0.0
            before any.
    """

    def __init__(
        self,
        front: FrontPass,
        weights: list,
        perturbed: int,
        optimizer_skips: bool,
        failed: tf.Tensor | float = 0.0,
    ):
        self._front, self._weights, self._perturbed = front, weights, perturbed
        self._optimizer_skips = optimizer_skips
        self._of_sources: Any = None
        self._of_weights: Any = None
        self._learned = []
        self.failed = failed

    def add(
        self,
        tape: tf.GradientTape,
        loss: tf.Tensor,
        outputs: Any,
        wanted: list | tuple = (),
        with_rows: int | None = None,
    ) -> list:
        """Add the gradients of a loss.

        Args:
            tape: which recorded the loss.
            loss: float scalar.
            outputs: those of the pass that the loss is of, or None.
            wanted: tensors whose gradient is wanted too; none by default.
            with_rows: how many of them, from the first, have the rows of the batch;
                None (the default): all.

        Returns:
            list of the gradients with respect to `wanted`.
        """
        sources = self._front.sources, self._weights, list(wanted)
        found = _Gradients(*tape.gradient(loss, sources))
        ok = finite_examples(
            loss,
            found.sources[: self._perturbed] + found.wanted[:with_rows],
            found.sources[self._perturbed :],
            outputs,
            self._rows,
        )
        self.failed = tf.maximum(self.failed, tf.cast(~ok, tf.float32))
        # A replica may have no rows: nothing is wrong with them.
        learned = tf.constant(True) if self._optimizer_skips else tf.reduce_all(ok)
        self._learned.append(learned)
        self._of_sources = add_gradients(
            self._of_sources, zero_unless(learned, found.sources)
        )
        self._of_weights = add_gradients(
            self._of_weights, zero_unless(learned, found.weights)
        )
        return found.wanted

    def total(self) -> tuple[list, tf.Tensor]:
        """The sums with the gradients through the front.

        Returns:
            ``(gradients, learned)``: one gradient per weight, or None; and bool scalar,
            whether the weights learn anything.
        """
        learned = tf.reduce_any(self._learned)
        through_front = self._front.weight_gradients(self._of_sources, self._weights)
        # Where nothing is learned, zero times a value that is not finite is left.
        if not self._optimizer_skips:
            through_front = zero_unless(learned, through_front)
        gradients = add_gradients(self._of_weights, through_front)
        given = [g for g in gradients if g is not None]
        if self._optimizer_skips or not given:
            return gradients, learned
        # A weight, or the front, may have no derivative.
        ok = tf.reduce_all([all_finite(g) for g in given])
        failed = tf.fill([self._rows], tf.cast(~ok, tf.float32))
        self.failed = tf.maximum(self.failed, failed)
        return zero_unless(ok, gradients), learned & ok

    @property
    def _rows(self):
        return tf.shape(self._front.crossing[0])[0]
