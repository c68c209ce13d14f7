"""The paired test against the sign test, and against counting all exchanges."""

import itertools
import math

import numpy as np
import pytest

from tiedbert.errors import InputError
from tiedbert.jobs.significance import holm, paired_test


def binomial_tail(least, n):
    """The chance of `least` heads or more in n throws of a fair coin."""
    return sum(math.comb(n, k) for k in range(least, n + 1)) / 2**n


@pytest.mark.parametrize(("wins", "losses"), [(5, 0), (9, 2), (7, 7), (40, 12)])
def test_one_seed_is_the_exact_test_of_mcnemar(wins, losses):
    first = [True] * wins + [False] * losses + [True] * 30
    second = [False] * wins + [True] * losses + [True] * 30
    expected = min(1.0, 2 * binomial_tail(max(wins, losses), wins + losses))
    assert paired_test(first, second) == pytest.approx(expected)
    assert paired_test(second, first) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_several_seeds_count_all_exchanges(seed):
    """Of a text, the answers of all seeds are exchanged together."""
    draw = np.random.default_rng(seed)
    first, second = draw.random((2, 3, 9)) < [[[0.8]], [[0.4]]]
    differences = first.sum(0).astype(int) - second.sum(0)
    found = abs(differences.sum())
    sums = [
        abs(np.dot(signs, differences))
        for signs in itertools.product([-1, 1], repeat=len(differences))
    ]
    expected = np.mean(np.array(sums) >= found)
    assert paired_test(first, second) == pytest.approx(expected)


def test_equal_answers_are_no_difference():
    answers = np.random.default_rng(0).random((2, 50)) < 0.5
    assert paired_test(answers, answers) == 1.0
    assert paired_test([[True, False]], [[False, True]]) == 1.0


def test_many_texts_are_exact_too():
    first, second = [[True] * 4000 + [False] * 3800], [[False] * 4000 + [True] * 3800]
    z = 200 / math.sqrt(7800)
    normal = math.erfc(z / math.sqrt(2))
    assert paired_test(first, second) == pytest.approx(normal, rel=0.05)
    assert 0 < paired_test([[True] * 900], [[False] * 900]) < 1e-200


def test_answers_to_other_texts_are_refused():
    with pytest.raises(InputError, match=r"received \(1, 2\) and \(1, 3\)"):
        paired_test([[True, False]], [[True, False, True]])


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([], []),
        ([0.2], [0.2]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.5, 0.9], [1.0, 1.0]),
        ([0.04, 0.01], [0.04, 0.02]),
    ],
)
def test_holm(p_values, adjusted):
    assert holm(p_values) == pytest.approx(adjusted)
