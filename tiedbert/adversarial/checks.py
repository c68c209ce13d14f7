"""What the numbers of a method may be."""

from numbers import Integral, Real

from tiedbert.adversarial.geometry import NORMS
from tiedbert.errors import InputError


def check_lengths(method, *names):
    """InputError unless these are numbers >= 0.

    ``epsilon`` may be a function of the step too, and ``step_size`` None.
    """
    for name in names:
        value = getattr(method, name)
        also, fits = _ALSO.get(name, ("", lambda value: False))
        if not (_is_length(value) or fits(value)):
            refuse(method, name, "a number >= 0" + also)


def check_share(method, name):
    """InputError unless this is a number from 0 to 1, 1 excluded."""
    value = getattr(method, name)
    if not _is_length(value) or value >= 1:
        refuse(method, name, "a number >= 0 and < 1")


def check_count(method, *names):
    """InputError unless these are whole numbers >= 1."""
    for name in names:
        value = getattr(method, name)
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            refuse(method, name, "a whole number >= 1")


def check_switches(method, *names):
    """InputError unless these are True or False: a norm in their place is a slip."""
    for name in names:
        if not isinstance(getattr(method, name), bool):
            refuse(method, name, "True or False")


def check_choice(method, name, choices):
    """InputError unless this is one of `choices`."""
    if getattr(method, name) not in choices:
        refuse(method, name, " or ".join(map(repr, choices)))


def check_norm(method):
    """InputError unless there is such a norm."""
    check_choice(method, "norm", list(NORMS))


def check_divergence(method):
    """InputError unless this is a function, or None."""
    given = method.divergence
    # A class is callable too: KL for KL().
    if given is not None and (isinstance(given, type) or not callable(given)):
        refuse(method, "divergence", "a function of two outputs such as KL(), or None")


def refuse(method, name, expected):
    """InputError that names the method, the argument, and what it got."""
    kind, value = type(method).__name__, getattr(method, name)
    raise InputError(f"{kind} expected {name}: {expected}; received {value!r}")


_ALSO = {
    "epsilon": (" or a function of the step", callable),
    "step_size": (" or None", lambda value: value is None),
}


def _is_length(value) -> bool:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and 0 <= value < float("inf")
