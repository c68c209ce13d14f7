"""Cases that repeat another one of their test in a variant: for `make test-all`."""

import pytest


def slow(*values):
    """A case of a parametrized test that is marked slow."""
    return pytest.param(*values, marks=pytest.mark.slow)


def first_of(wanted, cases):
    """All cases, those that are not wanted in every run marked slow."""
    return [case if case in wanted else slow(case) for case in cases]
