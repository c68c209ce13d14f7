"""Encoders of bert4keras' kinds, of our own layers, in Keras 3."""

from tiedbert.bert._keras3.activations import ACTIVATIONS
from tiedbert.bert._keras3.attention import MultiHeadAttention, attended_by
from tiedbert.bert._keras3.encoder import KINDS
from tiedbert.bert._keras3.feed_forward import FeedForward
from tiedbert.bert._keras3.normalization import (
    ConfiguredNormalization,
    LayerNormalization,
)
from tiedbert.bert._keras3.recomputed import Recomputed
from tiedbert.bert._keras3.transformer import build, namesake

# Options of bert4keras that a model of this Keras does not have.
LACKED_OPTIONS = frozenset(
    {
        *("layers", "residual_attention_scores", "attention_caches"),
        *("additional_input_layers", "layer_norm_cond", "layer_norm_cond_hidden_size"),
        *("layer_norm_cond_hidden_act", "shared_segment_embeddings"),
    }
)
# Whether ALBERT may have several blocks, each of some layers.
SEVERAL_GROUPS = True
ELSEWHERE = "bert4keras alone, which needs Keras 2: start with TF_USE_LEGACY_KERAS=1"

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
