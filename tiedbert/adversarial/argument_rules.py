"""Rules for the arguments of methods: each field of a dataclass carries its own."""

import dataclasses
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, NamedTuple

from tiedbert.adversarial.norms import NORMS
from tiedbert.errors import InputError


class Rule(NamedTuple):
    """What a value must be.

    Attributes:
        expected: the rule in words, for messages.
        fits: function of a value -> whether it follows the rule.
    """

    expected: str
    fits: Callable[[Any], bool]


def argument(rule: Rule, default: Any = dataclasses.MISSING) -> Any:
    """A field of a dataclass with a :class:`Rule`, which :func:`check` applies.

    Args:
        rule: kept in the metadata of the field.
        default: of the field; without it the argument is required.

    Example:
        >>> @dataclasses.dataclass
        ... class Mine:
        ...     steps: int = argument(COUNT, 1)
        >>> check(Mine(0))
        Traceback (most recent call last):
        tiedbert.errors.InputError: Mine expected steps: a whole number >= 1; received 0
    """
    return dataclasses.field(default=default, metadata={_RULE: rule})


def check(instance: Any) -> None:
    """InputError unless every field of a dataclass that has a rule follows it."""
    for field in dataclasses.fields(instance):
        rule, value = _rule(type(instance), field.name), getattr(instance, field.name)
        if rule is not None and not rule.fits(value):
            raise InputError(
                f"{type(instance).__name__} expected {field.name}: {rule.expected}; "
                f"received {value!r}"
            )


_RULE = "tiedbert"


def _rule(cls, name):
    """The rule of a field: a subclass that gives another default inherits it."""
    for owner in cls.__mro__:
        field = vars(owner).get("__dataclass_fields__", {}).get(name)
        if field is not None and _RULE in field.metadata:
            return field.metadata[_RULE]
    return None


def is_count(value: Any) -> bool:
    """Whether it is a whole number >= 1."""
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    return is_whole and int(value) >= 1


def is_non_negative(value: Any) -> bool:
    """Whether it is a finite number >= 0."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and 0 <= value < float("inf")


def _is_divergence(value) -> bool:
    # A class is callable too: KL for KL().
    return value is None or (callable(value) and not isinstance(value, type))


def one_of(*choices: Any) -> Rule:
    """The rule of a value that is one of a few."""
    return Rule(" or ".join(map(repr, choices)), lambda value: value in choices)


NON_NEGATIVE = Rule("a number >= 0", is_non_negative)
RADIUS = Rule(
    "a number >= 0 or a function of the step",
    lambda value: callable(value) or is_non_negative(value),
)
STEP_SIZE = Rule(
    "a number >= 0 or None", lambda value: value is None or is_non_negative(value)
)
COUNT = Rule("a whole number >= 1", is_count)
# Only a bool: a norm given in the place of a switch is a mistake.
SWITCH = Rule("True or False", lambda value: isinstance(value, bool))
NORM = one_of(*NORMS)
DIVERGENCE = Rule("a function of two outputs such as KL(), or None", _is_divergence)
