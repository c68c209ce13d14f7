"""Tied BERT heads, exact surgery on Keras models, adversarial training."""

__version__ = "0.1.0"
