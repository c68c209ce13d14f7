"""Adversarial training of the activations of a model, as ordinary Keras `fit`."""

from tiedbert.adversarial.attacks import FGM, PGD, RandomNoise
from tiedbert.adversarial.cut_model import OneOf
from tiedbert.adversarial.divergences import KL, SquaredError
from tiedbert.adversarial.free_training import FreeAT, FreeLB
from tiedbert.adversarial.gradient_penalty import GradientPenalty
from tiedbert.adversarial.method import Method, Passes
from tiedbert.adversarial.noise_consistency import R3F, RDrop
from tiedbert.adversarial.perturbation_mask import except_tokens
from tiedbert.adversarial.results import StepResult
from tiedbert.adversarial.schedules import WarmUp
from tiedbert.adversarial.smart import ALUM, SMART
from tiedbert.adversarial.training import AdversarialTraining
from tiedbert.adversarial.vat import VAT
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
    "StepResult",
    "WarmUp",
    "except_tokens",
]
