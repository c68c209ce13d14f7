"""Methods of adversarial training from options of a command line."""

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any

from tiedbert.errors import InputError

# Name -> class in tiedbert.adversarial, imported late because it needs TensorFlow.
METHODS = {
    "fgm": "FGM",
    "pgd": "PGD",
    "freeat": "FreeAT",
    "freelb": "FreeLB",
    "yopo": "YOPO",
    "vat": "VAT",
    "smart": "SMART",
    "alum": "ALUM",
    "r3f": "R3F",
    "rdrop": "RDrop",
    "gradient_penalty": "GradientPenalty",
    "random_noise": "RandomNoise",
}
_WORDS = {"true": True, "false": False}


def method_of(name: str, values: Mapping[str, Any]) -> Any:
    """A method of adversarial training.

    Args:
        name: one of :data:`METHODS`.
        values: its options, field -> value. A `str` is converted to the type of the
            field; other values are passed on.

    Raises:
        InputError: no such method, no such option, or a value that the method refuses.

    Example:
        >>> method_of("rdrop", {"weight": "0.5"})
        RDrop(weight=0.5, divergence=None)
    """
    if name not in METHODS:
        raise InputError(f"no method {name!r}: choose from {', '.join(METHODS)}")
    from tiedbert import adversarial

    method_class = getattr(adversarial, METHODS[name])
    types = _types(method_class)
    for option in values:
        if option not in types:
            raise InputError(
                f"{name} has no option {option!r}: it has {', '.join(types)}"
            )
    return method_class(
        **{
            option: _read(name, option, value, types[option])
            for option, value in values.items()
        }
    )


def settings_of(method: Any) -> dict[str, Any]:
    """All options of a method with their values, for JSON.

    Example:
        >>> settings_of(method_of("rdrop", {}))
        {'weight': 1.0}
    """
    return {option: getattr(method, option) for option in _types(type(method))}


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """``["steps=3", "norm=linf"]`` as a dict; InputError for another form.

    Example:
        >>> pairs(["steps=3", "norm=linf"])
        {'steps': '3', 'norm': 'linf'}
    """
    found = {}
    for text in texts:
        option, equals, value = text.partition("=")
        if not (option and equals and value):
            raise InputError(f"expected option=value, received {text!r}")
        if option in found:
            raise InputError(f"option {option!r} is given twice")
        found[option] = value
    return found


def _types(method_class: type) -> dict[str, set[type]]:
    """Option -> the types that its values on a command line can have."""
    hints = typing.get_type_hints(method_class)
    found = {
        field.name: {*(typing.get_args(hints[field.name]) or [hints[field.name]])}
        & {int, float, bool, str, NoneType}
        for field in dataclasses.fields(method_class)
    }
    # A field that takes a function is not an option of a command line.
    return {name: types for name, types in found.items() if types - {NoneType}}


def _read(name: str, option: str, text: Any, types: set[type]) -> Any:
    if not isinstance(text, str):
        return text
    if NoneType in types and text == "none":
        return None
    (value_type,) = types - {NoneType}
    try:
        return _WORDS[text] if value_type is bool else value_type(text)
    except (KeyError, ValueError):
        expected = "true or false" if value_type is bool else value_type.__name__
        raise InputError(
            f"{name} expected {option}={expected}, received {text!r}"
        ) from None
