"""Adversarial training of the activations of a model, as ordinary Keras `fit`."""

from tiedbert.adversarial.attacks import FGM, PGD, RandomNoise
from tiedbert.adversarial.consistency import ALUM, R3F, SMART, VAT, RDrop
from tiedbert.adversarial.cut_model import OneOf
from tiedbert.adversarial.divergences import KL, SquaredError
from tiedbert.adversarial.free_training import FreeAT, FreeLB
from tiedbert.adversarial.gradient_penalty import GradientPenalty
from tiedbert.adversarial.method import Method, Passes
from tiedbert.adversarial.perturbation_mask import except_tokens
from tiedbert.adversarial.schedules import WarmUp
from tiedbert.adversarial.step import Trained
from tiedbert.adversarial.training import AdversarialTraining
from tiedbert.adversarial.yopo import YOPO

__all__ = [
    "ALUM",
    "FGM",
    "KL",
    "PGD",
    "R3F",
    "SMART",
    "VAT",
    "YOPO",
    "AdversarialTraining",
    "FreeAT",
    "FreeLB",
    "GradientPenalty",
    "Method",
    "OneOf",
    "Passes",
    "RDrop",
    "RandomNoise",
    "SquaredError",
    "Trained",
    "WarmUp",
    "except_tokens",
]
