"""Robustness evaluation: how the accuracy falls as activations are attacked."""

from tiedbert.robustness.accuracy_curve import correct_under_attack, curve

__all__ = ["correct_under_attack", "curve"]
