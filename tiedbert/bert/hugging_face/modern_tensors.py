"""The weights of a ModernBERT as Hugging Face stores them: some of them stacked.

PyTorch stores kernels transposed, ``[out, in]``. The kernels of queries, keys and
values are one tensor there, one below the other, and so are the two inner kernels of
the feed-forward layer: first the one before the activation, then the gate.

Source: the names are those of transformers' ``modeling_modernbert.py``.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from tensorflow import keras

from tiedbert import _keras
from tiedbert.bert.hugging_face.safetensors_files import StoredTensors
from tiedbert.bert.own_weights import merged_values, own_weights
from tiedbert.errors import InputError

_TABLE = "model.embeddings.tok_embeddings.weight"
_BLOCK = re.compile(r"model\.layers\.(\d+)\.")
_DECODER = "decoder.weight"  # PyTorch has the tied table under this name too
# Layer -> its tensors, each with the number of weights that are stacked in it.
_TENSORS = {
    "Embedding-Token": {_TABLE: 1},
    "Embedding-Norm": {"model.embeddings.norm.weight": 1},
    "Output-Norm": {"model.final_norm.weight": 1},
    "MLM-Dense": {"head.dense.weight": 1},
    "MLM-Norm": {"head.norm.weight": 1},
    "MLM-Bias": {"decoder.bias": 1},
}
_TENSORS_IN_BLOCK = {
    "MultiHeadSelfAttention-Norm": {"attn_norm.weight": 1},
    "MultiHeadSelfAttention": {"attn.Wqkv.weight": 3, "attn.Wo.weight": 1},
    "FeedForward-Norm": {"mlp_norm.weight": 1},
    "FeedForward": {"mlp.Wi.weight": 2, "mlp.Wo.weight": 1},
}


def stored_weights(model: keras.Model) -> dict[str, list[Any]]:
    """Name of a tensor -> the weights that are stacked in it, for all weights.

    Args:
        model: a ModernBERT, with :func:`tiedbert.bert.masked_lm` or without a head. A
            table that is tied comes once.

    Raises:
        InputError: a layer has weights for which Hugging Face has no place, such as
            the head of :func:`tiedbert.bert.classifier`, which is another than theirs.
    """
    table = _keras.table_of(model.get_layer("Embedding-Token"))
    named, unknown = {}, []
    for layer in model.layers:
        owner = layer.name == "Embedding-Token"
        weights = [w for w in own_weights(layer) if owner or w is not table]
        tensors = _tensors_of(layer.name) if weights else {}
        if sum(tensors.values()) != len(weights):
            unknown.append(layer.name)
        left = iter(weights)
        for name, count in tensors.items():
            named[name] = [
                weight for _, weight in zip(range(count), left, strict=False)
            ]
    if unknown:
        raise InputError(
            "Hugging Face's ModernBERT has no place for the weights of "
            f"{', '.join(unknown)}: expected an encoder, or its masked language model"
        )
    return named


def _tensors_of(layer_name) -> dict[str, int]:
    if match := re.fullmatch(r"Transformer-(\d+)-(.+)", layer_name):
        tensors = _TENSORS_IN_BLOCK.get(match[2], {})
        return {f"model.layers.{match[1]}.{name}": n for name, n in tensors.items()}
    return _TENSORS.get(layer_name, {})


def stored_tensors(model: keras.Model) -> dict[str, np.ndarray]:
    """Name -> float32 tensor, as transformers writes them.

    The names of an encoder without a head, ``ModernBertModel``, have no prefix.
    Adapters (`enable_lora` of Keras) are added to the weights.

    Args:
        model: as for :func:`stored_weights`.

    Raises:
        InputError: as there.
    """
    values = merged_values(model)
    made = {
        name: _stacked(name, weights, values)
        for name, weights in stored_weights(model).items()
    }
    if "decoder.bias" in made:
        return made
    return {name.removeprefix("model."): tensor for name, tensor in made.items()}


def _is_kernel(name, weight) -> bool:
    return name != _TABLE and len(weight.shape) == 2


def _stacked(name, weights, values):
    parts = [values(w).T if _is_kernel(name, w) else values(w) for w in weights]
    return np.ascontiguousarray(np.concatenate(parts), np.float32)


def read_values(model: keras.Model, stored: StoredTensors) -> list[tuple[Any, Any]]:
    """(weight, its value in a file) for all weights of a model; none is changed.

    Args:
        model: as for :func:`stored_weights`.
        stored: a file of transformers, with the prefix or without it; it may have more
            than the model.

    Raises:
        InputError: as there; a tensor is missing, has another shape or would be left
            unread; or the head is not tied to the table.
    """
    found, named = _canonical(stored), stored_weights(model)
    _check_all_read(stored, found, named)
    values = []
    for name, weights in named.items():
        tensor = _read(stored, found, name, weights)
        if name == _TABLE and _DECODER in found and "decoder.bias" in named:
            _check_tie(stored, tensor)
        values += zip(weights, _unstacked(name, tensor, weights), strict=True)
    return values


def _canonical(stored) -> dict[str, str]:
    """Name in this module -> name in the file."""
    found = {}
    for name in stored.names:
        has_none = re.match(r"(embeddings|layers|final_norm)\.", name)
        today = f"model.{name}" if has_none else name
        if today in found:
            raise InputError(
                f"{stored.path}: expected one tensor for {today}, found "
                f"{found[today]} and {name}"
            )
        found[today] = name
    return found


def _check_all_read(stored, found, named):
    """InputError for an unknown tensor of the encoder, or of a head that is read."""
    blocks = {match[1] for name in named if (match := _BLOCK.match(name))}
    read = ("model.", "head.", "decoder.") if "decoder.bias" in named else ("model.",)
    for name in found:
        match = _BLOCK.match(name)
        is_beyond = match is not None and match[1] not in blocks
        is_read = name in named or name == _DECODER or is_beyond
        if name.startswith(read) and not is_read:
            raise InputError(
                f"{stored.path}: {found[name]} would be left unread: the model has no "
                "such weight, and would compute something else"
            )


def _read(stored, found, name, weights):
    """The tensor of a name, its shape checked."""
    if name not in found:
        raise InputError(
            f"{stored.path}: expected a tensor {name}, found none; there are "
            f"{len(found)} others, such as {', '.join(sorted(found)[:3])}"
        )
    shape = _shape(name, weights)
    if stored.shape(found[name]) != shape:
        raise InputError(
            f"{stored.path}: {name}: expected shape {shape}, as the model has it, "
            f"found {stored.shape(found[name])}"
        )
    return stored.read(found[name])


def _rows(name, weight) -> int:
    return weight.shape[-1] if _is_kernel(name, weight) else weight.shape[0]


def _shape(name, weights: Sequence[Any]) -> tuple[int, ...]:
    shape = tuple(weights[0].shape)
    rest = shape[:-1] if _is_kernel(name, weights[0]) else shape[1:]
    return (sum(_rows(name, weight) for weight in weights), *rest)


def _unstacked(name, tensor, weights):
    ends = np.cumsum([_rows(name, weight) for weight in weights])
    parts = np.split(tensor, ends[:-1])
    return [
        part.T if _is_kernel(name, weight) else part
        for part, weight in zip(parts, weights, strict=True)
    ]


def _check_tie(stored, table):
    """InputError if the file has a head of its own, which would be lost."""
    if not np.array_equal(stored.read(_DECODER), table):
        raise InputError(
            f"{stored.path}: the head is not tied: expected {_DECODER} to equal "
            f"{_TABLE}, found other numbers"
        )
