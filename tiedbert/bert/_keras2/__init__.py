"""bert4keras' own models, in Keras 2."""

from typing import Any

from tiedbert.bert._keras2 import environment

environment.prepare()

from bert4keras.layers import (  # noqa: E402
    FeedForward,
    LayerNormalization,
    MultiHeadAttention,
)

from tiedbert.bert._keras2.kinds import KINDS, build, namesake  # noqa: E402
from tiedbert.bert._keras2.layers import ConfiguredNormalization  # noqa: E402

# Activations that Keras does not find by name: bert4keras registers its own.
ACTIVATIONS: dict[str, Any] = {}
# Options of bert4keras that a model of this Keras does not have.
LACKED_OPTIONS: frozenset[str] = frozenset()

__all__ = [
    "ACTIVATIONS",
    "KINDS",
    "LACKED_OPTIONS",
    "ConfiguredNormalization",
    "FeedForward",
    "LayerNormalization",
    "MultiHeadAttention",
    "build",
    "namesake",
]
