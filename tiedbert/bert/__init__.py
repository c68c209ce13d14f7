"""bert4keras' models on today's TensorFlow, their heads and their files (Keras 2).

Import it before TensorFlow, or set ``TF_USE_LEGACY_KERAS=1``: bert4keras needs Keras 2.
See :mod:`tiedbert.bert.environment`.
"""

from tiedbert.bert import environment

environment.prepare()

from tiedbert.bert.checkpoints import (  # noqa: E402
    load_google_checkpoint,
    save_google_checkpoint,
)
from tiedbert.bert.classifier import classifier  # noqa: E402
from tiedbert.bert.hugging_face import (  # noqa: E402
    load_safetensors,
    save_safetensors,
)
from tiedbert.bert.masked_lm import masked_lm  # noqa: E402
from tiedbert.bert.models import build_bert, build_bert_from  # noqa: E402
from tiedbert.bert.saved_models import (  # noqa: E402
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
    "save_google_checkpoint",
    "save_safetensors",
]
