"""Tests whether one classifier is better than another on the same texts."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from tiedbert.errors import InputError


def paired_test(first: ArrayLike, second: ArrayLike) -> float:
    """Two-sided p-value of the exact paired permutation test on correct answers.

    Under the null hypothesis the answers of both classifiers to a text can be
    exchanged. p is the fraction of all such exchanges for which the accuracies,
    averaged over the seeds, differ at least as much as observed. It generalizes to
    other texts, not to other seeds. For one seed it is McNemar's exact test.

    Args:
        first: bool ``[seeds, texts]``, whether the answers of one classifier are
            correct.
        second: the same for the other classifier.

    Returns:
        p, 0 < p <= 1 (in the precision of float64).

    Raises:
        InputError: the shapes differ.

    Source: Noreen, "Computer-intensive methods for testing hypotheses", 1989. All
    exchanges are counted, by convolution; none is drawn at random.

    Example:
        >>> paired_test([[True] * 5 + [False]], [[False] * 5 + [False]])
        0.0625
    """
    first, second = np.atleast_2d(first), np.atleast_2d(second)
    if first.shape != second.shape:
        raise InputError(
            f"paired_test expected answers to the same texts, received {first.shape} "
            f"and {second.shape}"
        )
    differences = first.sum(0, dtype=np.int64) - second.sum(0, dtype=np.int64)
    observed = abs(int(differences.sum()))
    # Distribution of the sum over -largest, ..., largest, if the signs are random.
    chances = np.ones(1)
    for size, count in enumerate(np.bincount(np.abs(differences))):
        if size and count:
            steps = np.zeros(2 * size * count + 1)
            steps[:: 2 * size] = _binomial(int(count))
            chances = np.convolve(chances, steps)
    largest = len(chances) // 2
    if not observed:
        return 1.0
    return min(1.0, 2.0 * float(chances[largest + observed :].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values, which control the family-wise error rate.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(order), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, (len(order) - rank) * p_values[i])
        adjusted[i] = min(1.0, largest)
    return adjusted


def _binomial(n):
    """The probabilities of 0, ..., n heads in n throws of a coin."""
    logarithms = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        for k in range(n + 1)
    ]
    return np.exp(np.array(logarithms) - n * math.log(2))
