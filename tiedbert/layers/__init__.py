"""Layers of a masked language model."""

from tiedbert.layers.embedding_dense import EmbeddingDense
from tiedbert.layers.gather_positions import GatherPositions
from tiedbert.layers.tied_cross_entropy import TiedCrossEntropy
from tiedbert.layers.ties import Tie, check_tied

__all__ = ["EmbeddingDense", "GatherPositions", "Tie", "TiedCrossEntropy", "check_tied"]
