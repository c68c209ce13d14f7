"""Models of a run on disk: the pretrained encoder, and the classifier made from it."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

from tiedbert.bert import (
    build_bert,
    classifier,
    load_google_checkpoint,
    save_google_checkpoint,
    save_safetensors,
)
from tiedbert.bert.checkpoints import stores_pooler
from tiedbert.bert.models import read_config
from tiedbert.errors import InputError, NewHeadWarning
from tiedbert.jobs.runs import MODEL, read_run, write_json
from tiedbert.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class SavedModel:
    """The ``model`` folder of a run: configuration, checkpoint and tokenizer."""

    config: Path
    checkpoint: Path
    tokenizer: Tokenizer

    def encoder(self, random_init=False, **options):
        """Its encoder, for a classifier: with its pooler, where it has one.

        Args:
            random_init: take the shape of it, not the weights.
            **options: of :func:`tiedbert.bert.build_bert`.
        """
        checkpoint = None if random_init else self.checkpoint
        with_pool = checkpoint is not None and stores_pooler(checkpoint)
        return build_bert(self.config, checkpoint, with_pool=with_pool, **options)


def open_pretrained(run_folder) -> SavedModel:
    """The model of a run of any job that saves one.

    Raises:
        InputError: not a run, no model in it, or another vocabulary than the one that
            the model was pretrained with.
    """
    read_run(run_folder)
    folder = Path(run_folder) / MODEL
    if not folder.is_dir():
        raise InputError(
            f"{run_folder} holds no model: expected a run of scripts/pretrain.py or "
            "scripts/finetune.py"
        )
    config = folder / "bert_config.json"
    tokenizer = Tokenizer(folder / "tokenizer.model")
    _check_vocabulary(tokenizer, read_config(config))
    return SavedModel(config, folder / "bert_model.ckpt", tokenizer)


def _check_vocabulary(tokenizer, config):
    pairs = {
        "tokens": (config["vocab_size"], tokenizer.vocab_size),
        "as the id of padding": (config.get("pad_token_id") or 0, tokenizer.pad_id),
        # Of a model from elsewhere only the size is known.
        "as SHA-256": (
            config.get("tokenizer_sha256", tokenizer.fingerprint),
            tokenizer.fingerprint,
        ),
    }
    for what, (expected, found) in pairs.items():
        if expected != found:
            raise InputError(
                f"{tokenizer.model_file}: the vocabulary does not belong to this "
                f"model: expected {expected} {what}, found {found}"
            )


def check_length(model, max_length):
    """InputError when texts of `max_length` tokens are longer than a BERT can take."""
    positions = model.get_layer("Embedding-Position").input_dim
    if max_length > positions:
        raise InputError(
            f"--max_length {max_length}: the model has {positions} positions; "
            f"choose {positions} or less"
        )


def save_classifier(model, label_names, pretrained, folder):
    """Write a classifier in open formats, with the tokenizer of its encoder.

    Args:
        model: of :func:`tiedbert.bert.classifier`.
        label_names: list of str, in the order of the logits.
        pretrained: what :func:`open_pretrained` gave for its encoder.
        folder: the folder to write; made if missing.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "bert_config.json", read_config(pretrained.config))
    write_json(folder / "labels.json", label_names)
    pretrained.tokenizer.save(folder / "tokenizer.model")
    save_google_checkpoint(model, folder / "bert_model.ckpt")
    save_safetensors(model, folder)


def load_classifier(run_folder) -> tuple:
    """The classifier of a run of ``scripts/finetune.py``.

    Returns:
        ``(model, label_names, tokenizer)``.

    Raises:
        InputError: not such a run, or a file of it is missing or damaged.
    """
    read_run(run_folder, "finetune")
    saved = open_pretrained(run_folder)
    names = _label_names(Path(run_folder) / MODEL / "labels.json")
    model = classifier(build_bert(saved.config), len(names))
    _load_whole(model, saved.checkpoint)
    return model, names, saved.tokenizer


def _load_whole(model, checkpoint):
    """Load a checkpoint that must have the head of the classifier too."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", NewHeadWarning)
        try:
            load_google_checkpoint(model, checkpoint)
        except NewHeadWarning as warning:
            raise InputError(f"expected a classifier: {warning}") from None


def _label_names(path) -> list:
    try:
        names = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise InputError(f"{path}: expected a JSON list of label names")
    return names
