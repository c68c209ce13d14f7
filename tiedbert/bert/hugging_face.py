"""BERTs as Hugging Face keeps them: config.json, model.safetensors, vocab.txt."""

import codecs
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tiedbert.bert import hugging_face_config
from tiedbert.bert.new_head import new_head, warn_of_new_head
from tiedbert.bert.safetensors_files import FILE, StoredTensors
from tiedbert.errors import InputError, lfs_hint

_TABLE = "bert.embeddings.word_embeddings.weight"
_HEAD_BIAS = "cls.predictions.bias"
# PyTorch's head owns both under these names too, tied to the other two.
_DECODER = "cls.predictions.decoder"
_BYTE_ORDER_MARK = "\ufeff"


def save_safetensors(model, folder, vocab=None, lowercase=True):
    """Write a BERT so that Hugging Face's transformers loads it.

    The configuration is read off the model, so that nothing can contradict it. The
    folder gets ``model.safetensors``, ``config.json`` and, with a vocabulary,
    ``vocab.txt`` and ``tokenizer_config.json``; each file appears under its name only
    when it is complete, the weights last. The table of a tied head is stored once.

    Args:
        model: a `keras.Model` of bert4keras' layers for BERT: an encoder, with
            pooler or next-sentence head (``BertModel``,
            ``BertForNextSentencePrediction``),
            a :func:`tiedbert.bert.masked_lm` (``BertForMaskedLM``), both heads
            (``BertForPreTraining``), a :func:`tiedbert.bert.classifier`
            (``BertForSequenceClassification``). An AdversarialTraining is not one; its
            own model is.
        folder: where to write; made if missing.
        vocab: the WordPiece tokens in the order of their ids, as a list of `str` or as
            the path of a ``vocab.txt``, in UTF-8, with a byte-order mark (which is not
            written) or without; None for a tokenizer of another kind.
        lowercase: whether that vocabulary is for lower-cased text, accents stripped.

    Raises:
        InputError: a layer that Hugging Face's BERT does not have, an attention mask,
            an activation, positions or a head that it does not know, or another number
            of tokens than the table has rows (in `vocab`, or in the folder's old
            ``vocab.txt``).
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
        _check_kept_vocabulary(Path(folder), config["vocab_size"])
    tensors = {name: _as_stored(name, weight) for name, weight in _own(model)}
    if config["architectures"] == ["BertModel"]:  # its own names have no prefix
        tensors = {name.removeprefix("bert."): v for name, v in tensors.items()}
    _write(Path(folder), texts, tensors)


def load_safetensors(model, path):
    """Give all layers of a BERT the values that Hugging Face's format has for them.

    Build the model first; :func:`tiedbert.bert.build_bert` takes Hugging Face's
    ``config.json``, whose settings have the names of Google's. A file may have more
    than the model, a head or further blocks, never less: to put a new head on a
    pretrained encoder, load the encoder and give it the head afterwards. Half-precision
    numbers become float32. If any check fails, no weight has changed.

    Args:
        model: a model as :func:`save_safetensors` takes it.
        path: a folder with ``model.safetensors``, or the index of several files, or
            one ``.safetensors`` file. A ``config.json`` there is compared with the
            model in what shapes do not tell: heads, activation, epsilon.

    Raises:
        InputError: no such file or a damaged one, a tensor missing, of another shape
            (the vocabulary's size first of all) or not of floating-point numbers, a
            head that is not tied to the table, another configuration than the model's.

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
    own_config = hugging_face_config.describe(model)  # refuses what is no BERT
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
    places, strange = [], []
    for layer in model.layers:
        owner = layer.name == "Embedding-Token"
        weights = [w for w in layer.weights if owner or w is not table]
        names = _names(layer.name) if weights else []
        if len(names) == len(weights):
            places += zip(names, weights, strict=True)
        else:
            strange.append(layer.name)
    if strange:
        raise InputError(
            "Hugging Face's BERT has no place for the weights of "
            f"{', '.join(strange)}: expected layers of bert4keras' BERT alone"
        )
    return places


def _canonical(stored) -> dict:
    """name as this module has it -> name in the file."""
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


def _is_turned(name, weight) -> bool:
    """Whether PyTorch has this weight the other way round: kernels, ``[out, in]``."""
    return len(weight.shape) == 2 and "embeddings" not in name


def _as_stored(name, weight):
    value = weight.numpy().T if _is_turned(name, weight) else weight.numpy()
    return np.ascontiguousarray(value, np.float32)


def _value(stored, found, name, weight):
    """The numbers that a file has for a weight, checked."""
    if name not in found:
        tops = sorted({name.split(".")[0] for name in stored.names})
        raise InputError(
            f"{stored.path}: expected a tensor {name}, found none; the names there "
            f"begin with {', '.join(tops)}"
        )
    turned, shape = _is_turned(name, weight), tuple(weight.shape)
    expected = shape[::-1] if turned else shape
    if stored.shape(found[name]) != expected:
        raise InputError(
            _wrong_shape(stored.path, name, expected, stored.shape(found[name]))
        )
    value = stored.read(found[name])
    return value.T if turned else value


def _wrong_shape(path, name, expected, found) -> str:
    if name == _TABLE and found[1:] == expected[1:]:
        return (
            f"{path}: the vocabulary does not belong to this model: expected "
            f"{expected[0]} tokens, found {found[0]} in {name}"
        )
    return f"{path}: {name}: expected shape {expected}, found {found}"


def _check_tie(stored, found, values):
    """A head of its own would be lost: refuse one that is not the table."""
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
        # Only line feeds end a token: other separators of lines are tokens themselves.
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


def _check_kept_vocabulary(folder, vocab_size):
    """A vocabulary from before stays beside the new weights: it must be theirs."""
    kept = folder / "vocab.txt"
    if not kept.is_file():
        return
    _vocabulary(kept, vocab_size)
    if kept.read_bytes().startswith(codecs.BOM_UTF8):
        raise InputError(
            f"{kept} begins with a byte-order mark, which transformers takes for a "
            "part of the first token: give it as `vocab`, and it is written without"
        )


def _write(folder, texts, tensors):
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as name:
        draft = Path(name)
        for file, text in texts.items():
            (draft / file).write_bytes(text.encode())
        # transformers asks for the metadata.
        save_file(tensors, draft / FILE, metadata={"format": "pt"})
        # safetensors lets nobody but the owner read it.
        shutil.copymode(draft / "config.json", draft / FILE)
        for file in [*texts, FILE]:
            os.replace(draft / file, folder / file)
