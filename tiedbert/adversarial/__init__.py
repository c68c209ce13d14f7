"""Adversarial training of the activations of a model, as ordinary Keras `fit`."""

from tiedbert.adversarial.methods import FGM
from tiedbert.adversarial.positions import except_tokens
from tiedbert.adversarial.training import AdversarialTraining

__all__ = ["FGM", "AdversarialTraining", "except_tokens"]
