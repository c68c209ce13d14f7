"""Robustness evaluation: how accuracy falls as activations are perturbed."""

from tiedbert.robustness.accuracy_curve import correct, curve

__all__ = ["correct", "curve"]
