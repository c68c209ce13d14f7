"""The weights of a model, and their numbers in a Hugging Face file."""

import re
from typing import Any

import numpy as np
from tensorflow import keras

from tiedbert import _keras
from tiedbert.bert.hugging_face.names import Format
from tiedbert.bert.hugging_face.safetensors_files import StoredTensors
from tiedbert.bert.own_weights import own_weights
from tiedbert.errors import InputError

# Of RoFormer: not trained.
ROTARY = "roformer.encoder.embed_positions.weight"
# Of ERNIE: added to the embeddings of every token, as segments are.
_TASKS = "embeddings.task_type_embeddings.weight"


def named_weights(model: keras.Model, form: Format, architecture: str) -> list:
    """(layer, [(name, weight), ...]) for every layer; a tied table comes once.

    Args:
        model: a model of bert4keras' layers.
        form: that of its kind.
        architecture: its class in Hugging Face's library.

    Raises:
        InputError: the format has no place for the weights of a layer.
    """
    table = _keras.table_of(model.get_layer("Embedding-Token"))
    named, unknown = [], []
    for layer in model.layers:
        owner = layer.name == "Embedding-Token"
        weights = [w for w in own_weights(layer) if owner or w is not table]
        names = form.encoder_names(layer.name)
        names = names or form.head_names(layer.name, architecture)
        if len(names if weights else []) == len(weights):
            named.append((layer, list(zip(names, weights, strict=False))))
        else:
            unknown.append(layer.name)
    if unknown:
        raise InputError(
            f"Hugging Face's {architecture} has no place for the weights of "
            f"{', '.join(unknown)}: expected layers of bert4keras' names alone"
        )
    return named


def is_transposed(name: str, weight: Any) -> bool:
    """Whether PyTorch stores this weight transposed: kernels, ``[out, in]``."""
    return len(weight.shape) == 2 and "_embeddings." not in name


def rotary_positions(length: int, size: int) -> np.ndarray:
    """The sines, then the cosines, of RoFormer's positions: ``[length, size]``.

    No file needs them, but transformers writes them, and misses them in a file.
    """
    angles = np.arange(length)[:, None] / 10000.0 ** (np.arange(0, size, 2) / size)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1, dtype=np.float32)


class FoundTensors:
    """The tensors of a file under the names of a format.

    Args:
        stored: the file.
        form: the format.
        has_tasks: whether the first row of ERNIE's task types is added to segments.

    Raises:
        InputError: the file has a tensor twice, under two names.
    """

    def __init__(self, stored: StoredTensors, form: Format, has_tasks: bool) -> None:
        self._stored, self._form = stored, form
        self._tasks = form.prefix + _TASKS if has_tasks else None
        self.names: dict[str, str] = {}  # the format's -> the file's
        for name in stored.names:
            today = self._today(name)
            if today in self.names:
                raise InputError(
                    f"{stored.path}: expected one tensor for {today}, found "
                    f"{self.names[today]} and {name}"
                )
            self.names[today] = name
        (bias,) = form.heads["MLM-Bias"]
        if f"{form.decoder}.bias" in self.names:
            self.names.setdefault(bias, self.names[f"{form.decoder}.bias"])

    def _today(self, name):
        """The name that the library gives to a tensor today."""
        name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
        name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
        prefix = self._form.prefix
        for other in self._form.other_prefixes:
            if name.startswith(other):
                return prefix + name.removeprefix(other)
        bare = (*self._form.bodies, f"{prefix}pooler.")
        return prefix + name if f"{prefix}{name}".startswith(bare) else name

    def values(self, wanted: dict[str, Any]) -> dict[str, np.ndarray]:
        """Name -> numbers in the layout of Keras, for names and weights; checked."""
        return {name: self._value(name, weight) for name, weight in wanted.items()}

    def _value(self, name, weight):
        transposed, shape = is_transposed(name, weight), tuple(weight.shape)
        value = self._read(name, shape[::-1] if transposed else shape)
        segments = "embeddings.token_type_embeddings.weight"
        if self._tasks and name == self._form.prefix + segments:
            value = value + self._read(self._tasks, (None, shape[1]))[:1]
        return value.T if transposed else value

    def _read(self, name, expected):
        path, stored = self._stored.path, self._stored
        if name not in self.names:
            tops = sorted({other.split(".")[0] for other in stored.names})
            raise InputError(
                f"{path}: expected a tensor {name}, found none; the names there begin "
                f"with {', '.join(tops)}"
            )
        found = stored.shape(self.names[name])
        if not _fits(found, expected):
            raise InputError(_wrong_shape(path, name, expected, found))
        return stored.read(self.names[name])

    def check_tie(self, values: dict[str, np.ndarray]) -> None:
        """InputError if the file has a head of its own, which would be lost."""
        table = f"{self._form.prefix}embeddings.word_embeddings.weight"
        (bias,) = self._form.heads["MLM-Bias"]
        for part, name in (("weight", table), ("bias", bias)):
            copy = self.names.get(f"{self._form.decoder}.{part}")
            if copy is None or copy == self.names[name]:
                continue
            if not np.array_equal(self._stored.read(copy), values[name]):
                raise InputError(
                    f"{self._stored.path}: the head is not tied: expected {copy} to "
                    f"equal {name}, found other numbers"
                )

    def check_all_read(self, read: set[str], blocks: int) -> None:
        """InputError for a tensor that a file's model uses and ours would not.

        Heads and blocks beyond the model may be there, and tensors without weights.

        Args:
            read: the names that the model has.
            blocks: the number of its blocks.
        """
        form = self._form
        known = read | {form.prefix + name for name in form.without_weights}
        known.add(self._tasks or "")
        self._check_positions()
        for name in self.names:
            if name in known or self._is_beyond(name, blocks):
                continue
            if name.startswith(form.bodies) or self._is_in_head(name, read):
                raise InputError(
                    f"{self._stored.path}: {self.names[name]} would be left unread: "
                    f"the model has no such weight, and would compute something else"
                )

    def _check_positions(self):
        """InputError if a file's rotary positions are none of sines and cosines."""
        name = self.names.get(ROTARY)
        if name is None:
            return
        found = self._stored.read(name)
        # Half precision has three digits.
        if np.abs(found - rotary_positions(*found.shape)).max() > 1e-2:
            raise InputError(
                f"{self._stored.path}: {name}: expected the sines and cosines of the "
                "positions, which the model computes, found other numbers"
            )

    def _is_beyond(self, name, blocks):
        """Whether a tensor is of a block that the model does not have."""
        block = re.escape(f"{self._form.prefix}{self._form.block}.")
        match = re.match(block.replace(re.escape("{}"), r"(\d+)"), name)
        return bool(match and match.groups() and int(match[1]) >= blocks)

    def _is_in_head(self, name, read):
        """Whether a tensor is in a module of which the model has others, unknown."""
        form = self._form
        module = name.split(".")[0] + "."
        known = {
            known
            for layer in (*form.heads, *form.of_texts)
            for ending in ("ForMaskedLM", "ForSequenceClassification")
            for known in form.head_names(layer, ending)
        }
        known |= {f"{form.decoder}.{part}" for part in ("weight", "bias")}
        is_read = any(other.startswith(module) for other in read)
        return is_read and not name.startswith(form.prefix) and name not in known


def _fits(found, expected):
    return len(found) == len(expected) and all(
        there == wanted or wanted is None
        for there, wanted in zip(found, expected, strict=True)
    )


def _wrong_shape(path, name, expected, found) -> str:
    if name.endswith(".word_embeddings.weight") and found[1:] == expected[1:]:
        return (
            f"{path}: the vocabulary does not belong to this model: expected "
            f"{expected[0]} tokens, found {found[0]} in {name}"
        )
    return f"{path}: {name}: expected shape {expected}, found {found}"
