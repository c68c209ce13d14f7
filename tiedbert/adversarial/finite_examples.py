"""Which examples of a batch have only finite numbers in a pass."""

import functools
from typing import Any

import tensorflow as tf

from tiedbert.adversarial.gradient_lists import all_finite
from tiedbert.adversarial.norms import finite


def finite_examples(
    loss: tf.Tensor, per_example: list, others: list, outputs: Any, rows: tf.Tensor
) -> tf.Tensor:
    """Which examples the weights can learn from, bool ``[batch]``.

    All of them where loss and gradients are finite. Within a batch the weights cannot
    learn from some examples alone: if one is False, the pass is left out.

    Args:
        loss: float scalar.
        per_example: gradients ``[batch, ...]``, None among them.
        others: gradients that do not tell examples apart, None among them.
        outputs: those of the pass, or None: they tell which example made a loss that is
            not finite, if gradients do not.
        rows: int32 scalar: the size of the batch.

    Returns:
        bool ``[batch]``; all False if it is not known which example it was.
    """
    checks = [finite(g) for g in per_example if g is not None]
    checks += [all_finite(g) for g in others if g is not None]
    ok = functools.reduce(tf.logical_and, checks, tf.fill([rows], True))
    culprit_known = tf.reduce_all(tf.math.is_finite(loss)) | ~tf.reduce_all(ok)
    return tf.cond(culprit_known, lambda: ok, lambda: _finite_outputs(outputs, rows))


def _finite_outputs(outputs, rows):
    """Which examples have finite outputs, bool ``[batch]``; none where all have."""
    ok = tf.fill([rows], True)
    for output in tf.nest.flatten(outputs):
        if output is not None:
            here = finite(output) if output.shape.rank else tf.fill([1], False)
            # An output may have other rows than the batch.
            fits = tf.equal(tf.size(here), rows)
            ok &= tf.cond(fits, lambda: here, lambda: tf.fill([rows], True))  # noqa: B023
    return ok & ~tf.reduce_all(ok)
