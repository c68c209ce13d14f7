"""From text to token ids: tokenizers, corpus files, masking, labelled text.

Nothing here uses Keras, so all of it serves both generations. Each name is imported
when it is first used: a program that only tokenizes does not import TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiedbert.text.documents import read_documents
    from tiedbert.text.labelled import (
        check_same_labels,
        classification_dataset,
        label_ids,
        label_names,
        read_labelled,
    )
    from tiedbert.text.manifest import read_manifest
    from tiedbert.text.masking import mask_tokens
    from tiedbert.text.pretraining import (
        held_out_batches,
        masked_batches,
        predictions_per_text,
    )
    from tiedbert.text.records import corpus_dataset, find_damage, write_corpus
    from tiedbert.text.tokenizer import Tokenizer, train_tokenizer

__all__ = [
    "Tokenizer",
    "check_same_labels",
    "classification_dataset",
    "corpus_dataset",
    "find_damage",
    "held_out_batches",
    "label_ids",
    "label_names",
    "mask_tokens",
    "masked_batches",
    "predictions_per_text",
    "read_documents",
    "read_labelled",
    "read_manifest",
    "train_tokenizer",
    "write_corpus",
]

# The modules of these names. Those that import no TensorFlow come first.
_MODULES = (
    *("documents", "manifest", "tokenizer", "labelled"),
    *("masking", "records", "pretraining"),
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module_name in _MODULES:
            module = importlib.import_module(f"tiedbert.text.{module_name}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module 'tiedbert.text' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
