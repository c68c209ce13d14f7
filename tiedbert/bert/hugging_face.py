"""BERTs in Hugging Face's format: config.json, model.safetensors, vocab.txt."""

import codecs
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tensorflow import keras

from tiedbert.bert import hugging_face_config
from tiedbert.bert.new_head import new_head, warn_of_new_head
from tiedbert.bert.own_weights import own_weights
from tiedbert.bert.safetensors_files import FILE, StoredTensors
from tiedbert.errors import InputError, lfs_hint
from tiedbert.text.files import draft_folder

_TABLE = "bert.embeddings.word_embeddings.weight"
_HEAD_BIAS = "cls.predictions.bias"
# PyTorch stores both under these names too.
_DECODER = "cls.predictions.decoder"
_BYTE_ORDER_MARK = "\ufeff"


def save_safetensors(
    model: keras.Model,
    folder: str | os.PathLike,
    vocab: Sequence[str] | str | os.PathLike | None = None,
    lowercase: bool = True,
) -> None:
    """Write a BERT so that Hugging Face's transformers loads it.

    The configuration is derived from the model. The folder gets ``model.safetensors``,
    ``config.json`` and, with a vocabulary, ``vocab.txt`` and ``tokenizer_config.json``;
    each file appears under its name only when it is complete, the weights last. The
    table of a tied head is stored once.

    Args:
        model: a `keras.Model` of bert4keras' layers for BERT: an encoder, with
            pooler or next-sentence head (``BertModel``,
            ``BertForNextSentencePrediction``),
            a :func:`tiedbert.bert.masked_lm` (``BertForMaskedLM``), both heads
            (``BertForPreTraining``), a :func:`tiedbert.bert.classifier`
            (``BertForSequenceClassification``). Of an AdversarialTraining save the
            model that it trains.
        folder: where to write; made if missing.
        vocab: the WordPiece tokens in the order of their ids, as a list of `str` or as
            the path of a ``vocab.txt`` in UTF-8 (a byte-order mark is not written);
            None (the default) for a tokenizer of another class.
        lowercase: whether that vocabulary is for lower-cased text without accents.

    Raises:
        InputError: Hugging Face's BERT has no such layer, attention mask, activation,
            positions or head; or the number of tokens in `vocab`, or in an old
            ``vocab.txt`` in the folder, is not the number of rows of the table.
        OSError: the files cannot be written.

    Source: the names are those of transformers' ``models/bert/modeling_bert.py``.

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
    config = hugging_face_config.describe(model)
    texts = {"config.json": _json(config)}
    if vocab is not None:
        texts["vocab.txt"] = _vocabulary(vocab, config["vocab_size"])
        texts["tokenizer_config.json"] = _json(
            {
                "tokenizer_class": "BertTokenizer",
                "do_lower_case": lowercase,
                "model_max_length": config["max_position_embeddings"],
            }
        )
    else:
        _check_old_vocabulary(Path(folder), config["vocab_size"])
    tensors = {name: _as_stored(name, weight) for name, weight in _own(model)}
    if config["architectures"] == ["BertModel"]:  # its own names have no prefix
        tensors = {name.removeprefix("bert."): v for name, v in tensors.items()}
    _write(Path(folder), texts, tensors)


def load_safetensors(model: keras.Model, path: str | os.PathLike) -> None:
    """Load the weights of all layers of a BERT from Hugging Face's format.

    Build the model first; :func:`tiedbert.bert.build_bert` takes Hugging Face's
    ``config.json``. The file may have more than the model, such as a head or further
    blocks, but not less: to add a new head to a pretrained encoder, load the encoder
    first. Half-precision numbers become float32. If any check fails, no weight has
    changed.

    Args:
        model: a model as :func:`save_safetensors` takes it.
        path: a folder with ``model.safetensors`` or the index of several files, or
            one ``.safetensors`` file. A ``config.json`` in the folder must agree with
            the model in what shapes do not show: heads, activation, epsilon.

    Raises:
        InputError: no such file or a damaged one, a tensor missing, of another shape
            (the size of the vocabulary is named as such) or not of floating-point
            numbers, a head that is not tied to the table, or a ``config.json`` of
            another model.

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
    own_config = hugging_face_config.describe(model)  # raises if it is no BERT
    stored = StoredTensors(path)
    config = stored.path.with_name("config.json")
    if config.exists():
        hugging_face_config.check(own_config, config)
    found = _canonical(stored)
    own = dict(_own(model))
    new = new_head([(layer.name, _names(layer.name)) for layer in model.layers], found)
    left = {name for layer in new for name in _names(layer)}
    values = {n: _value(stored, found, n, own[n]) for n in own if n not in left}
    if _HEAD_BIAS in own:
        _check_tie(stored, found, values)
    for name, value in values.items():
        own[name].assign(value)
    warn_of_new_head(stored.path, new)


# Names.


def _dense(name):
    return [f"{name}.weight", f"{name}.bias"]


def _norm(name):
    return [f"{name}.bias", f"{name}.weight"]  # bert4keras' order: beta, gamma


# The weights of a layer, in its own order.
_NAMES = {
    "Embedding-Token": [_TABLE],
    "Embedding-Segment": ["bert.embeddings.token_type_embeddings.weight"],
    "Embedding-Position": ["bert.embeddings.position_embeddings.weight"],
    "Embedding-Norm": _norm("bert.embeddings.LayerNorm"),
    "Pooler-Dense": _dense("bert.pooler.dense"),
    "NSP-Proba": _dense("cls.seq_relationship"),
    "MLM-Dense": _dense("cls.predictions.transform.dense"),
    "MLM-Norm": _norm("cls.predictions.transform.LayerNorm"),
    "MLM-Bias": [_HEAD_BIAS],
    "Classifier": _dense("classifier"),
}
_NAMES_IN_BLOCK = {
    "MultiHeadSelfAttention": [
        *_dense("attention.self.query"),
        *_dense("attention.self.key"),
        *_dense("attention.self.value"),
        *_dense("attention.output.dense"),
    ],
    "MultiHeadSelfAttention-Norm": _norm("attention.output.LayerNorm"),
    "FeedForward": [*_dense("intermediate.dense"), *_dense("output.dense")],
    "FeedForward-Norm": _norm("output.LayerNorm"),
}


def _names(layer_name) -> list:
    if match := re.fullmatch(r"Transformer-(\d+)-(.+)", layer_name):
        names = _NAMES_IN_BLOCK.get(match[2], [])
        return [f"bert.encoder.layer.{match[1]}.{name}" for name in names]
    return _NAMES.get(layer_name, [])


def _own(model) -> list:
    """(name, weight) for every weight of a model; a tied table comes once."""
    table = model.get_layer("Embedding-Token").embeddings
    named, unknown = [], []
    for layer in model.layers:
        owner = layer.name == "Embedding-Token"
        weights = [w for w in own_weights(layer) if owner or w is not table]
        names = _names(layer.name) if weights else []
        if len(names) == len(weights):
            named += zip(names, weights, strict=True)
        else:
            unknown.append(layer.name)
    if unknown:
        raise InputError(
            "Hugging Face's BERT has no place for the weights of "
            f"{', '.join(unknown)}: expected layers of bert4keras' BERT alone"
        )
    return named


def _canonical(stored) -> dict:
    """Name in this module -> name in the file."""
    found = {}
    for name in stored.names:
        today = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
        today = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", today)
        if re.match(r"(embeddings|encoder|pooler)\.", today):
            today = f"bert.{today}"
        if today in found:
            raise InputError(
                f"{stored.path}: expected one tensor for {today}, found "
                f"{found[today]} and {name}"
            )
        found[today] = name
    found.setdefault(_HEAD_BIAS, found.get(f"{_DECODER}.bias"))
    return {today: name for today, name in found.items() if name is not None}


# Values.


def _is_transposed(name, weight) -> bool:
    """Whether PyTorch stores this weight transposed: kernels, ``[out, in]``."""
    return len(weight.shape) == 2 and "embeddings" not in name


def _as_stored(name, weight):
    value = weight.numpy().T if _is_transposed(name, weight) else weight.numpy()
    return np.ascontiguousarray(value, np.float32)


def _value(stored, found, name, weight):
    """The value of a weight in a file, its shape checked."""
    if name not in found:
        tops = sorted({name.split(".")[0] for name in stored.names})
        raise InputError(
            f"{stored.path}: expected a tensor {name}, found none; the names there "
            f"begin with {', '.join(tops)}"
        )
    transposed, shape = _is_transposed(name, weight), tuple(weight.shape)
    expected = shape[::-1] if transposed else shape
    if stored.shape(found[name]) != expected:
        raise InputError(
            _wrong_shape(stored.path, name, expected, stored.shape(found[name]))
        )
    value = stored.read(found[name])
    return value.T if transposed else value


def _wrong_shape(path, name, expected, found) -> str:
    if name == _TABLE and found[1:] == expected[1:]:
        return (
            f"{path}: the vocabulary does not belong to this model: expected "
            f"{expected[0]} tokens, found {found[0]} in {name}"
        )
    return f"{path}: {name}: expected shape {expected}, found {found}"


def _check_tie(stored, found, values):
    """InputError if the file has a head of its own, which would be lost."""
    for part, name in (("weight", _TABLE), ("bias", _HEAD_BIAS)):
        copy = found.get(f"{_DECODER}.{part}")
        if copy is not None and not np.array_equal(stored.read(copy), values[name]):
            raise InputError(
                f"{stored.path}: the head is not tied: expected {copy} to equal "
                f"{name}, found other numbers"
            )


# Writing.


def _json(content) -> str:
    return json.dumps(content, indent=2) + "\n"


def _vocabulary(vocab, vocab_size) -> str:
    if isinstance(vocab, (str, os.PathLike)):
        where, hint = f"{vocab}", lfs_hint(vocab)
        # Only line feeds end a token: other line separators can be tokens.
        tokens = _read_vocabulary(vocab).removesuffix("\n").split("\n")
    else:
        where, hint = "vocab", ""
        is_list = hasattr(vocab, "__iter__") and not isinstance(vocab, dict)
        tokens = list(vocab) if is_list else []
        if not tokens or not all(isinstance(token, str) for token in tokens):
            raise InputError(
                "vocab: expected a list of str in the order of their ids, received "
                f"{type(vocab).__name__} {vocab!r:.60}"
            )
    if len(tokens) != vocab_size:
        raise InputError(
            f"{where}: expected {vocab_size} tokens, found {len(tokens)}{hint}"
        )
    if tokens[0].startswith(_BYTE_ORDER_MARK):
        raise InputError(
            f"{where}: the first token begins with a byte-order mark: read the file "
            'with encoding="utf-8-sig"'
        )
    if len(set(tokens)) < len(tokens) or any("\n" in token for token in tokens):
        raise InputError(f"{where}: expected each token once, and on one line")
    return "".join(f"{token}\n" for token in tokens)


def _read_vocabulary(path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"no vocabulary at {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: expected a vocabulary in UTF-8, a token a line: {error}"
        ) from None


def _check_old_vocabulary(folder, vocab_size):
    """InputError if the folder has a vocab.txt that does not fit the new weights."""
    path = folder / "vocab.txt"
    if not path.is_file():
        return
    _vocabulary(path, vocab_size)
    if path.read_bytes().startswith(codecs.BOM_UTF8):
        raise InputError(
            f"{path} begins with a byte-order mark, which transformers takes for a "
            "part of the first token: give it as `vocab`, and it is written without"
        )


def _write(folder, texts, tensors):
    with draft_folder(folder, last=FILE) as draft:
        for file, text in texts.items():
            (draft / file).write_bytes(text.encode())
        # transformers requires this metadata.
        save_file(tensors, draft / FILE, metadata={"format": "pt"})
        # safetensors makes files that only the owner can read.
        shutil.copymode(draft / "config.json", draft / FILE)
