"""Methods of adversarial training as command lines name them."""

import dataclasses
import typing
from types import NoneType

from tiedbert.errors import InputError

# Name -> class in tiedbert.adversarial, which is imported late: it needs TensorFlow.
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


def method_of(name, values):
    """A method of adversarial training.

    Args:
        name: one of :data:`METHODS`.
        values: dict of its options, field -> what a command line has for it: str,
            read as the field's type is; other values are taken as they are.

    Raises:
        InputError: no such method, no such option of it, or a value it refuses.

    Example:
        >>> method_of("rdrop", {"weight": "0.5"})
        RDrop(weight=0.5, divergence=None)
    """
    if name not in METHODS:
        raise InputError(f"no method {name!r}: choose from {', '.join(METHODS)}")
    from tiedbert import adversarial

    kind = getattr(adversarial, METHODS[name])
    types = _types(kind)
    for option in values:
        if option not in types:
            raise InputError(
                f"{name} has no option {option!r}: it has {', '.join(types)}"
            )
    return kind(
        **{
            option: _read(name, option, value, types[option])
            for option, value in values.items()
        }
    )


def settings_of(method) -> dict:
    """All options of a method with their values, as JSON has them.

    Example:
        >>> settings_of(method_of("rdrop", {}))
        {'weight': 1.0}
    """
    return {option: getattr(method, option) for option in _types(type(method))}


def pairs(texts) -> dict:
    """``["steps=3", "norm=linf"]`` as a dict; InputError where one is no such pair.

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


def _types(kind) -> dict:
    """Option -> the types that a command line can give it."""
    hints = typing.get_type_hints(kind)
    found = {
        field.name: {*(typing.get_args(hints[field.name]) or [hints[field.name]])}
        & {int, float, bool, str, NoneType}
        for field in dataclasses.fields(kind)
    }
    # A function is for programs.
    return {name: types for name, types in found.items() if types - {NoneType}}


def _read(name, option, text, types):
    if not isinstance(text, str):
        return text
    if NoneType in types and text == "none":
        return None
    (kind,) = types - {NoneType}
    try:
        return _WORDS[text] if kind is bool else kind(text)
    except (KeyError, ValueError):
        expected = "true or false" if kind is bool else kind.__name__
        raise InputError(
            f"{name} expected {option}={expected}, received {text!r}"
        ) from None
