"""Layers of a masked language model."""

from tiedbert.layers.embedding_dense import EmbeddingDense
from tiedbert.layers.gather_positions import GatherPositions

__all__ = ["EmbeddingDense", "GatherPositions"]
