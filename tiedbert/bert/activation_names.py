"""Hugging Face's names of activations, by Keras' and bert4keras' names."""

from typing import Any

_THEIRS = {
    "gelu": "gelu",
    "gelu_erf": "gelu",
    "gelu_tanh": "gelu_new",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
_SYNONYMS = {
    "gelu_python": "gelu",
    **dict.fromkeys(("gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast"), "gelu_new"),
    "swish": "silu",
}
OURS = tuple(_THEIRS)


def keras_activation(name: Any) -> Any:
    """Keras' name for an activation of a config.json; other values are unchanged."""
    if not isinstance(name, str):
        return name  # bert4keras takes a list of two for a gated layer
    theirs = {their: ours for ours, their in reversed(_THEIRS.items())}
    return theirs.get(usual_name(name), name)


def usual_name(name: str) -> str:
    """The name of an activation that has several in Hugging Face's library."""
    return _SYNONYMS.get(name, name)


def their_activation(activation: Any) -> str | None:
    """Hugging Face's name of an activation that a configuration may have, or None."""
    return _THEIRS.get(name_of(activation))


def name_of(activation: Any) -> str:
    """The name of a function, or what is none, as text."""
    if isinstance(activation, str):
        return activation
    return getattr(activation, "__name__", str(activation))
