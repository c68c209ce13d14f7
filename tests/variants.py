"""Cases that repeat another one of their test in a variant: for `make test-all`."""

import pytest


def slow(*values):
    """A case of a parametrized test that is marked slow."""
    return pytest.param(*values, marks=pytest.mark.slow)


def others_slow(wanted, cases):
    """All cases, those that are not wanted in every run marked slow."""
    assert all(case in cases for case in wanted), "no such case"
    return [case if case in wanted else slow(case) for case in cases]


def legacy(*values):
    """A case of a kind that bert4keras alone has, in Keras 2."""
    return pytest.param(*values, marks=pytest.mark.legacy_keras)
