"""Adversarial training of the activations of a model, as ordinary Keras `fit`."""

from tiedbert.adversarial.methods import FGM
from tiedbert.adversarial.training import AdversarialTraining

__all__ = ["FGM", "AdversarialTraining"]
