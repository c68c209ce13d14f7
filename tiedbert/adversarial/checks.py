"""What the arguments of a method may be: one rule for each name, in all methods."""

import dataclasses
from numbers import Integral, Real

from tiedbert.adversarial.geometry import NORMS
from tiedbert.errors import InputError


def check(method):
    """InputError unless every field of a method, a dataclass, is what its name says."""
    for field in dataclasses.fields(method):
        expected, fits = _RULES[field.name]
        if not fits(getattr(method, field.name)):
            refuse(method, field.name, expected)


def refuse(method, name, expected):
    """InputError that names the method, the argument, and what it got."""
    kind, value = type(method).__name__, getattr(method, name)
    raise InputError(f"{kind} expected {name}: {expected}; received {value!r}")


def _is_length(value) -> bool:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and 0 <= value < float("inf")


def is_count(value) -> bool:
    """Whether it is a whole number >= 1."""
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= 1


def _is_divergence(value) -> bool:
    # A class is callable too: KL for KL().
    return value is None or (callable(value) and not isinstance(value, type))


def _one_of(*choices):
    return " or ".join(map(repr, choices)), lambda value: value in choices


_LENGTH = "a number >= 0", _is_length
_COUNT = "a whole number >= 1", is_count
# A norm in the place of a switch is a slip.
_SWITCH = "True or False", lambda value: isinstance(value, bool)
_RULES = {
    "epsilon": (
        "a number >= 0 or a function of the step",
        lambda value: callable(value) or _is_length(value),
    ),
    "step_size": (
        "a number >= 0 or None",
        lambda value: value is None or _is_length(value),
    ),
    "xi": ("a number > 0", lambda value: _is_length(value) and value > 0),
    "weight": _LENGTH,
    "proximal": _LENGTH,
    "momentum": (
        "a number >= 0 and < 1",
        lambda value: _is_length(value) and value < 1,
    ),
    "steps": _COUNT,
    "replays": _COUNT,
    "outer": _COUNT,
    "inner": _COUNT,
    "clean": _SWITCH,
    "random_start": _SWITCH,
    "relative": _SWITCH,
    "norm": _one_of(*NORMS),
    "noise": _one_of("uniform", "normal"),
    "divergence": ("a function of two outputs such as KL(), or None", _is_divergence),
    "until": (
        "the name of a cut point or None",
        lambda value: value is None or isinstance(value, str),
    ),
}
