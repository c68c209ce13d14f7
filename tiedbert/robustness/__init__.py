"""Robustness evaluation: how accuracy falls as activations are perturbed."""

from tiedbert.robustness.curves import correct, curve

__all__ = ["correct", "curve"]
