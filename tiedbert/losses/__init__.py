"""Losses of a tied head."""

from tiedbert.losses.tied_cross_entropy import (
    ByPosition,
    tied_cross_entropy,
    tied_cross_entropy_by_position,
)

__all__ = [
    "ByPosition",
    "tied_cross_entropy",
    "tied_cross_entropy_by_position",
]
