"""Losses of a tied head."""

from tiedbert.losses.tied_cross_entropy import (
    CrossEntropyResult,
    tied_cross_entropy,
    tied_cross_entropy_by_position,
)

__all__ = [
    "CrossEntropyResult",
    "tied_cross_entropy",
    "tied_cross_entropy_by_position",
]
