"""What the arguments of a method may be: each field carries its rule."""

import dataclasses
from collections.abc import Callable
from numbers import Integral, Real
from typing import NamedTuple

from tiedbert.adversarial.norms import NORMS
from tiedbert.errors import InputError


class Rule(NamedTuple):
    """What a value must be, in words, and a function that tells whether it is."""

    expected: str
    fits: Callable


def argument(rule, default=dataclasses.MISSING):
    """A field of a dataclass that :func:`check` holds to a :class:`Rule`.

    Example:
        >>> @dataclasses.dataclass
        ... class Mine:
        ...     steps: int = argument(COUNT, 1)
        >>> check(Mine(0))
        Traceback (most recent call last):
        tiedbert.errors.InputError: Mine expected steps: a whole number >= 1; received 0
    """
    return dataclasses.field(default=default, metadata={_RULE: rule})


def check(method):
    """InputError unless every field of a dataclass that has a rule follows it."""
    for field in dataclasses.fields(method):
        rule = _rule(type(method), field.name)
        if rule is not None and not rule.fits(getattr(method, field.name)):
            kind, value = type(method).__name__, getattr(method, field.name)
            raise InputError(
                f"{kind} expected {field.name}: {rule.expected}; received {value!r}"
            )


_RULE = "tiedbert"


def _rule(kind, name):
    """The rule of a field: a subclass that gives another default inherits it."""
    for owner in kind.__mro__:
        field = vars(owner).get("__dataclass_fields__", {}).get(name)
        if field is not None and _RULE in field.metadata:
            return field.metadata[_RULE]
    return None


def is_count(value) -> bool:
    """Whether it is a whole number >= 1."""
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= 1


def is_length(value) -> bool:
    """Whether it is a finite number >= 0."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and 0 <= value < float("inf")


def _is_divergence(value) -> bool:
    # A class is callable too: KL for KL().
    return value is None or (callable(value) and not isinstance(value, type))


def one_of(*choices) -> Rule:
    """The rule of a value that is one of a few."""
    return Rule(" or ".join(map(repr, choices)), lambda value: value in choices)


LENGTH = Rule("a number >= 0", is_length)
RADIUS = Rule(
    "a number >= 0 or a function of the step",
    lambda value: callable(value) or is_length(value),
)
STEP_SIZE = Rule(
    "a number >= 0 or None", lambda value: value is None or is_length(value)
)
COUNT = Rule("a whole number >= 1", is_count)
# A norm in the place of a switch is a slip.
SWITCH = Rule("True or False", lambda value: isinstance(value, bool))
NORM = one_of(*NORMS)
DIVERGENCE = Rule("a function of two outputs such as KL(), or None", _is_divergence)
