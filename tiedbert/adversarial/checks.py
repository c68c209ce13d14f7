"""What the numbers of a method may be."""

from numbers import Integral, Real

from tiedbert.adversarial.geometry import NORMS
from tiedbert.errors import InputError


def check_lengths(method, *names):
    """InputError unless these are numbers >= 0; a schedule as ``epsilon``; or None."""
    for name in names:
        value = getattr(method, name)
        if value is None and name != "epsilon" or name == "epsilon" and callable(value):
            continue
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or not 0 <= value < float("inf"):
            expected = "a number >= 0"
            if name == "epsilon":
                expected += " or a function of the step"
            _refuse(method, name, expected)


def check_count(method, *names):
    """InputError unless these are whole numbers >= 1."""
    for name in names:
        value = getattr(method, name)
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            _refuse(method, name, "a whole number >= 1")


def check_choice(method, name, choices):
    """InputError unless this is one of `choices`."""
    if getattr(method, name) not in choices:
        _refuse(method, name, " or ".join(map(repr, choices)))


def check_norm(method):
    """InputError unless there is such a norm."""
    check_choice(method, "norm", list(NORMS))


def _refuse(method, name, expected):
    kind, value = type(method).__name__, getattr(method, name)
    raise InputError(f"{kind} expected {name}: {expected}; received {value!r}")
