"""Models in Hugging Face's format: config.json, model.safetensors, vocab.txt."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tensorflow import keras

from tiedbert.bert.early_gather import attentions_of
from tiedbert.bert.hugging_face import config_file, modern_config, modern_tensors
from tiedbert.bert.hugging_face.names import format_of
from tiedbert.bert.hugging_face.safetensors_files import FILE, StoredTensors
from tiedbert.bert.hugging_face.tensors import (
    ROTARY,
    FoundTensors,
    is_transposed,
    named_weights,
    rotary_positions,
)
from tiedbert.bert.hugging_face.vocabulary import check_old_vocabulary, vocabulary
from tiedbert.bert.kind_of import kind_of
from tiedbert.bert.new_head import new_head, warn_of_new_head
from tiedbert.bert.own_weights import check_no_adapters, merged_values
from tiedbert.errors import InputError
from tiedbert.surgery.graph import Graph
from tiedbert.text.files import draft_folder


def save_safetensors(
    model: keras.Model,
    folder: str | os.PathLike,
    vocab: Sequence[str] | str | os.PathLike | None = None,
    lowercase: bool = True,
) -> None:
    """Write a model so that Hugging Face's transformers loads it.

    The configuration is derived from the model: its class is the one of the library
    that computes the same. Adapters (`enable_lora` of Keras) are added to the weights.
    The folder gets ``model.safetensors``,
    ``config.json`` and, with a vocabulary, ``vocab.txt`` and ``tokenizer_config.json``;
    each file appears under its name only when it is complete, the weights last. The
    table of a tied head is stored once.

    Args:
        model: a `keras.Model` of :func:`tiedbert.bert.build_bert`, of a kind that the
            library has (BERT, ALBERT, ELECTRA, RoBERTa, DistilBERT, RoFormer,
            ModernBERT): an encoder (``BertModel``), with a head of `build_bert`
            (``BertForNextSentencePrediction``, ``BertForPreTraining``,
            ``ElectraForPreTraining``), a :func:`tiedbert.bert.masked_lm`
            (``BertForMaskedLM``), a :func:`tiedbert.bert.classifier`
            (``BertForSequenceClassification``). Of an AdversarialTraining save the
            model that it trains. XLM-RoBERTa and CamemBERT are written as RoBERTa, and
            ERNIE as BERT. Under Keras 2 a model that was loaded from a file or copied
            counts as a BERT.
        folder: where to write; made if missing.
        vocab: the WordPiece tokens in the order of their ids, as a list of `str` or as
            the path of a ``vocab.txt`` in UTF-8 (a byte-order mark is not written);
            None (the default) for a tokenizer of another class.
        lowercase: whether that vocabulary is for lower-cased text without accents.

    Raises:
        InputError: the library has no such kind, layer, attention mask, activation,
            positions or head; or the number of tokens in `vocab`, or in an old
            ``vocab.txt`` in the folder, is not the number of rows of the table.
        OSError: the files cannot be written.

    Source: the names are those of transformers' ``models/*/modeling_*.py``.

    Example:
        >>> import json, tempfile, os
        >>> from tiedbert.bert import build_bert, masked_lm
        >>> config = dict(vocab_size=30, hidden_size=8, num_hidden_layers=1,
        ...     num_attention_heads=2, intermediate_size=16, hidden_act="gelu",
        ...     max_position_embeddings=16, type_vocab_size=2)
        >>> path = os.path.join(tempfile.mkdtemp(), "bert_config.json")
        >>> with open(path, "w") as file:
        ...     json.dump(config, file)
        >>> folder = tempfile.mkdtemp()
        >>> save_safetensors(masked_lm(build_bert(path)), folder)
        >>> sorted(os.listdir(folder))
        ['config.json', 'model.safetensors']
    """
    is_modern = kind_of(model) == "modernbert"
    config, tensors = (_modern_contents if is_modern else _contents)(model)
    texts = {"config.json": _json(config_file.file_settings(config))}
    if vocab is not None:
        texts["vocab.txt"] = vocabulary(vocab, config["vocab_size"])
        texts["tokenizer_config.json"] = _json(_tokenizer(config, lowercase))
    else:
        check_old_vocabulary(Path(folder), config["vocab_size"])
    _write(Path(folder), texts, tensors)


def load_safetensors(model: keras.Model, path: str | os.PathLike) -> None:
    """Load the weights of all layers of a model from Hugging Face's format.

    Build the model first; :func:`tiedbert.bert.build_bert` takes Hugging Face's
    ``config.json``. The file may have more than the model, such as a head or further
    blocks, but not less: to add a new head to a pretrained encoder, load the encoder
    first. A tensor of the encoder that the model would not read is refused. Of an ERNIE
    with task types the first one is added to the segments. Half-precision numbers
    become float32. If any check fails, no weight has changed.

    Args:
        model: a model as :func:`save_safetensors` takes it.
        path: a folder with ``model.safetensors`` or the index of several files, or
            one ``.safetensors`` file. A ``config.json`` in the folder must agree with
            the model in what shapes do not show: kind, heads, activation, epsilon.

    Raises:
        InputError: no such file or a damaged one, a tensor missing, of another shape
            (the size of the vocabulary is named as such) or not of floating-point
            numbers, a tensor that would be left unread, a head that is not tied to the
            table, a ``config.json`` of another model, or a model with adapters (load
            the weights first, then `enable_lora`).

    Warns:
        NewHeadWarning: the file has an encoder alone (of `UserWarning`).

    Example:
        >>> import json, tempfile, os
        >>> from tiedbert.bert import build_bert
        >>> config = dict(vocab_size=30, hidden_size=8, num_hidden_layers=1,
        ...     num_attention_heads=2, intermediate_size=16, hidden_act="gelu",
        ...     max_position_embeddings=16, type_vocab_size=2)
        >>> path = os.path.join(tempfile.mkdtemp(), "bert_config.json")
        >>> with open(path, "w") as file:
        ...     json.dump(config, file)
        >>> bert, folder = build_bert(path), tempfile.mkdtemp()
        >>> save_safetensors(bert, folder)
        >>> again = build_bert(os.path.join(folder, "config.json"))
        >>> load_safetensors(again, folder)
        >>> bool((again.get_weights()[0] == bert.get_weights()[0]).all())
        True
    """
    check_no_adapters(model)
    is_modern = kind_of(model) == "modernbert"
    stored = StoredTensors(path)
    values, new = (_modern_values if is_modern else _values)(model, stored)
    for weight, value in values:
        weight.assign(value)
    warn_of_new_head(stored.path, new)


def _contents(model) -> tuple[dict, dict]:
    """The settings of a model, under BERT's names, and its tensors."""
    config = config_file.describe(model)
    form = format_of(kind_of(model))
    _check_shared(model)
    tensors = _tensors(model, form, config["architectures"][0])
    if config["architectures"] == [f"{form.title}Model"]:
        # Its own names have no prefix.
        tensors = {name.removeprefix(form.prefix): v for name, v in tensors.items()}
    return config, tensors


def _modern_contents(model) -> tuple[dict, dict]:
    """As `_contents`: ModernBERT stacks weights in one tensor."""
    return modern_config.describe(model), modern_tensors.stored_tensors(model)


def _values(model, stored) -> tuple[list, list]:
    """(weight, its value) for all that is in a file, and the layers of a new head."""
    own_config = config_file.describe(model)  # raises if it has none
    kind = kind_of(model)
    form = format_of(kind)
    config: dict[str, Any] = {}
    if (beside := stored.path.with_name("config.json")).exists():
        config = config_file.check(own_config, kind, beside)
    found = FoundTensors(stored, form, bool(config.get("use_task_id")))
    named = named_weights(model, form, own_config["architectures"][0])
    names = [(layer.name, [name for name, _ in pairs]) for layer, pairs in named]
    new = new_head(names, found.names)
    own = [pair for layer, pairs in named if layer.name not in new for pair in pairs]
    values = found.values(dict(own))
    if "MLM-Bias" in {layer.name for layer, _ in named}:
        found.check_tie(values)
    found.check_all_read(set(values), own_config["num_hidden_layers"])
    return [(weight, values[name]) for name, weight in own], new


def _modern_values(model, stored) -> tuple[list, list]:
    """As `_values`; ModernBERT has no head that could be new."""
    own_config = modern_config.describe(model)
    if (beside := stored.path.with_name("config.json")).exists():
        modern_config.check(own_config, beside)
    return modern_tensors.read_values(model, stored), []


def _tensors(model, form, architecture) -> dict:
    """Name -> numbers in the layout of PyTorch."""
    values = merged_values(model)
    tensors = {}
    for _, pairs in named_weights(model, form, architecture):
        for name, weight in pairs:
            value = values(weight)
            value = value.T if is_transposed(name, weight) else value
            tensors[name] = np.ascontiguousarray(value, np.float32)
    if form.model_type == "roformer":
        length = config_file.ROFORMER_POSITIONS
        size = attentions_of(Graph(model))[0].layer.head_size
        tensors[ROTARY] = rotary_positions(length, size)
    return tensors


def _check_shared(model):
    if kind_of(model) == "albert_unshared":
        raise InputError(
            "Hugging Face's Albert has one block, this albert_unshared has one for "
            'each layer: write a Google checkpoint (model_kind="bert" names them all)'
        )


def _tokenizer(config, lowercase) -> dict:
    length = config.get("max_position_embeddings")
    if length is not None and config["model_type"] == "roberta":
        length -= config["pad_token_id"] + 1  # positions begin there
    return {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": lowercase,
        **({} if length is None else {"model_max_length": length}),
    }


def _json(content) -> str:
    return json.dumps(content, indent=2) + "\n"


def _write(folder, texts, tensors):
    with draft_folder(folder, last=FILE) as draft:
        for file, text in texts.items():
            (draft / file).write_bytes(text.encode())
        # transformers requires this metadata.
        save_file(tensors, draft / FILE, metadata={"format": "pt"})
        # safetensors makes files that only the owner can read.
        shutil.copymode(draft / "config.json", draft / FILE)
