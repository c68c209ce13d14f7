"""The folder ``model`` of a run: an encoder or a classifier on disk."""

import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorflow import keras

from tiedbert.bert.checkpoints import (
    load_google_checkpoint,
    save_google_checkpoint,
    stores_pooler,
)
from tiedbert.bert.classifier import classifier
from tiedbert.bert.hugging_face.files import save_safetensors
from tiedbert.bert.models import build_bert, read_config
from tiedbert.errors import InputError, NewHeadWarning
from tiedbert.text.files import write_json
from tiedbert.text.tokenizer import Tokenizer

_MODEL = "model"
_CONFIG = "bert_config.json"
_CHECKPOINT = "bert_model.ckpt"
_TOKENIZER = "tokenizer.model"
_LABELS = "labels.json"


@dataclass(frozen=True)
class SavedModel:
    """A model on disk, as :func:`open_pretrained` finds it.

    Attributes:
        config: ``bert_config.json``, in Google's format.
        checkpoint: prefix of the Google checkpoint.
        tokenizer: the tokenizer that the model was trained with.
    """

    config: Path
    checkpoint: Path
    tokenizer: Tokenizer

    def encoder(self, random_init: bool = False, **options: Any) -> keras.Model:
        """The encoder, with its pooler if the checkpoint has one.

        Args:
            random_init: build the architecture, but do not load the weights.
            **options: of :func:`tiedbert.bert.build_bert`.
        """
        checkpoint = None if random_init else self.checkpoint
        if checkpoint is not None and stores_pooler(checkpoint):
            options = {"with_pool": True, **options}
        return build_bert(self.config, checkpoint, **options)


def open_pretrained(folder: str | os.PathLike) -> SavedModel:
    """The model that ``tiedbert pretrain`` or ``tiedbert finetune`` wrote into a run.

    Args:
        folder: the run, that is the folder that contains ``model``.

    Raises:
        InputError: there is no model in it, a file is missing, or the tokenizer is
            not the one that the model was pretrained with.
    """
    model = Path(folder) / _MODEL
    if not model.is_dir():
        raise InputError(
            f"{folder} holds no model: expected a run of `tiedbert pretrain` or "
            "`tiedbert finetune`"
        )
    config = model / _CONFIG
    tokenizer = Tokenizer(model / _TOKENIZER)
    _check_vocabulary(tokenizer, read_config(config))
    return SavedModel(config, model / _CHECKPOINT, tokenizer)


def save_description(
    folder: str | os.PathLike, config: dict[str, Any], tokenizer: Tokenizer
) -> Path:
    """Write the configuration and the tokenizer of a model that is to be trained.

    Args:
        folder: the run; its folder ``model`` is made if missing.
        config: settings in Google's format.
        tokenizer: the tokenizer of the training text.

    Returns:
        The path of the configuration, for :func:`tiedbert.bert.build_bert`.
    """
    model = Path(folder) / _MODEL
    write_json(model / _CONFIG, config)
    tokenizer.save(model / _TOKENIZER)
    return model / _CONFIG


def save_weights(folder: str | os.PathLike, model: keras.Model) -> None:
    """Write the weights of a model into a run, for Google's format and Hugging Face."""
    save_google_checkpoint(model, Path(folder) / _MODEL / _CHECKPOINT)
    save_safetensors(model, Path(folder) / _MODEL)


def saved_tokenizer(folder: str | os.PathLike) -> Tokenizer | None:
    """The tokenizer of the model in a run; None if there is no such file yet."""
    path = Path(folder) / _MODEL / _TOKENIZER
    return Tokenizer(path) if path.is_file() else None


def save_classifier(
    folder: str | os.PathLike,
    model: keras.Model,
    label_names: list[str],
    pretrained: SavedModel,
) -> None:
    """Write a classifier and the tokenizer of its encoder into a run.

    Args:
        folder: the run; its folder ``model`` is made if missing.
        model: of :func:`tiedbert.bert.classifier`.
        label_names: the names of the classes, in the order of the logits.
        pretrained: what :func:`open_pretrained` returned for its encoder.
    """
    save_description(folder, read_config(pretrained.config), pretrained.tokenizer)
    write_json(Path(folder) / _MODEL / _LABELS, label_names)
    save_weights(folder, model)


def load_classifier(
    folder: str | os.PathLike,
) -> tuple[keras.Model, list[str], Tokenizer]:
    """The classifier that ``tiedbert finetune`` wrote into a run.

    Args:
        folder: the run, that is the folder that contains ``model``.

    Returns:
        ``(model, label_names, tokenizer)``: `model` maps token ids and segment ids,
        int ``[batch, time]`` each, to float logits ``[batch, classes]``, in the order
        of `label_names`.

    Raises:
        InputError: there is no classifier in it, or a file is missing or damaged.
    """
    saved = open_pretrained(folder)
    names = _label_names(Path(folder) / _MODEL / _LABELS)
    model = classifier(build_bert(saved.config), len(names))
    _load_with_head(model, saved.checkpoint)
    return model, names, saved.tokenizer


def _check_vocabulary(tokenizer, config):
    pairs = {
        "tokens": (config["vocab_size"], tokenizer.vocab_size),
        "as the id of padding": (config.get("pad_token_id") or 0, tokenizer.pad_id),
        # A model from elsewhere tells the size only.
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


def _load_with_head(model, checkpoint):
    """Load a checkpoint that must have the head of the classifier too."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", NewHeadWarning)
        try:
            load_google_checkpoint(model, checkpoint)
        except NewHeadWarning as warning:
            raise InputError(f"expected a classifier: {warning}") from None


def _label_names(path) -> list[str]:
    try:
        names = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(
            f"{path.parent}: expected a classifier, as `tiedbert finetune` writes it, "
            f"found no {path.name}"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise InputError(f"{path}: expected a JSON list of label names")
    return names
