"""The one choice between bert4keras, in Keras 2, and our own encoders, in Keras 3.

Both have the same names: the layers that others look for, the kinds, and `build` and
`namesake`, which give the layers of a model and their names in checkpoints.
"""

from tiedbert._keras.internals import PACKAGE

if PACKAGE == "tf_keras":
    from tiedbert.bert import _keras2 as backend
else:
    from tiedbert.bert import _keras3 as backend  # type: ignore[no-redef]

ACTIVATIONS = backend.ACTIVATIONS
ConfiguredNormalization = backend.ConfiguredNormalization
FeedForward = backend.FeedForward
KINDS = backend.KINDS
ELSEWHERE = backend.ELSEWHERE
LACKED_OPTIONS = backend.LACKED_OPTIONS
LayerNormalization = backend.LayerNormalization
MultiHeadAttention = backend.MultiHeadAttention
SEVERAL_GROUPS = backend.SEVERAL_GROUPS
Recomputed = backend.Recomputed
attended_by = backend.attended_by
build = backend.build
namesake = backend.namesake

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
