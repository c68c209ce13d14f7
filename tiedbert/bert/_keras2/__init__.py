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
from tiedbert.bert._keras2.layers import (  # noqa: E402
    ConfiguredNormalization,
    attended_by,
)

# Activations that Keras does not find by name: bert4keras registers its own.
ACTIVATIONS: dict[str, Any] = {}
# Options that a model of this Keras does not have.
LACKED_OPTIONS = frozenset({"with_pack"})
Recomputed = None  # Keras 3 alone
# Whether ALBERT may have several blocks, each of some layers.
SEVERAL_GROUPS = False
ELSEWHERE = "our own models, which need Keras 3: start without TF_USE_LEGACY_KERAS"

__all__ = [
    "ACTIVATIONS",
    "ELSEWHERE",
    "KINDS",
    "LACKED_OPTIONS",
    "ConfiguredNormalization",
    "FeedForward",
    "LayerNormalization",
    "MultiHeadAttention",
    "Recomputed",
    "SEVERAL_GROUPS",
    "attended_by",
    "build",
    "namesake",
]
