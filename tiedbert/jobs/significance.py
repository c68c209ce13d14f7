"""Is one classifier better than another on the same texts?"""

import math

import numpy as np

from tiedbert.errors import InputError


def paired_test(first, second) -> float:
    """Two-sided p-value of the exact paired permutation test on right answers.

    If both were equally good, the answers to a text could be exchanged between them:
    among all such exchanges, this is the share in which their accuracies, averaged
    over the seeds, differ at least as much as they do. It speaks of these trained
    models on other texts, not of other seeds; of one seed it is McNemar's exact test.

    Args:
        first: bool ``[seeds, texts]``, where the models of one kind are right.
        second: the same for the other kind.

    Returns:
        p, 0 < p <= 1 (as far as float64 has it).

    Source: Noreen, "Computer-intensive methods for testing hypotheses", 1989; here
    all exchanges are counted, by convolution, and none is drawn.

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
    found = abs(int(differences.sum()))
    # The sum when every difference has a sign at random, over -reach, ..., reach.
    chances = np.ones(1)
    for size, count in enumerate(np.bincount(np.abs(differences))):
        if size and count:
            steps = np.zeros(2 * size * count + 1)
            steps[:: 2 * size] = _binomial(int(count))
            chances = np.convolve(chances, steps)
    reach = len(chances) // 2
    if not found:
        return 1.0
    return min(1.0, 2.0 * float(chances[reach + found :].sum()))


def holm(p_values) -> list:
    """p-values that stay below a level by chance with that probability in all.

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
    """The chances of 0, ..., n heads in n throws."""
    logarithms = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        for k in range(n + 1)
    ]
    return np.exp(np.array(logarithms) - n * math.log(2))
