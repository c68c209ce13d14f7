"""BERTs of bert4keras' kinds, their heads and their files.

Under Keras 3 the models are of our own layers, under Keras 2
(``TF_USE_LEGACY_KERAS=1``) of bert4keras'. Functions, names of layers, weights, files
and numbers are the same. RoBERTa, DistilBERT and ModernBERT, several texts in a row,
and recomputed activations are of Keras 3 alone.
"""

from tiedbert.bert.checkpoints import (
    load_google_checkpoint,
    save_google_checkpoint,
)
from tiedbert.bert.classifier import classifier
from tiedbert.bert.hugging_face.files import (
    load_safetensors,
    save_safetensors,
)
from tiedbert.bert.masked_lm import masked_lm
from tiedbert.bert.models import build_bert, build_bert_from
from tiedbert.bert.recompute import recompute_activations
from tiedbert.bert.saved_models import (
    load_classifier,
    open_pretrained,
)

__all__ = [
    "build_bert",
    "build_bert_from",
    "classifier",
    "load_classifier",
    "load_google_checkpoint",
    "load_safetensors",
    "masked_lm",
    "open_pretrained",
    "recompute_activations",
    "save_google_checkpoint",
    "save_safetensors",
]
