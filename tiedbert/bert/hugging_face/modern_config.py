"""Hugging Face's config.json of a ModernBERT, derived from the model."""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from tensorflow import keras

from tiedbert import _keras
from tiedbert.bert.activation_names import their_activation
from tiedbert.bert.models import read_config
from tiedbert.bert.modern_settings import DEFAULTS, DEMANDS, regular_types
from tiedbert.bert.settings import settings_of
from tiedbert.errors import InputError
from tiedbert.surgery.graph import Graph

_PARTS = (
    *("MultiHeadSelfAttention", "MultiHeadSelfAttention-Probabilities"),
    *("FeedForward", "FeedForward-Norm"),
)


def describe(model: keras.Model) -> dict[str, Any]:
    """The settings of a ModernBERT, under Hugging Face's names.

    Layers are told both as ``layer_types`` and, if they allow it, as
    ``global_attn_every_n_layers``, which versions of transformers before 5 read.

    Args:
        model: of :func:`tiedbert.bert.build_bert` or :func:`tiedbert.bert.masked_lm`.

    Raises:
        InputError: the model is not a ModernBERT as Hugging Face has it.
    """
    layers = {layer.name: layer for layer in model.layers}
    blocks = _blocks(layers)
    head = "MLM-Bias" in layers
    return {
        "architectures": ["ModernBertForMaskedLM" if head else "ModernBertModel"],
        "model_type": "modernbert",
        "num_hidden_layers": len(blocks),
        **_embedding_settings(layers),
        **_block_settings(layers, blocks),
        **_attention_settings(model, layers, blocks),
        "norm_eps": _epsilon(layers),
        **{name: allowed[0] for name, allowed in DEMANDS.items() if allowed},
        "tie_word_embeddings": True,
        "dtype": "float32",
    }


def check(own: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Compare the result of :func:`describe` with a config.json.

    Only settings that no shape of a weight shows are compared. The file may have more
    layers than the model.

    Raises:
        InputError: not such a file, or another setting than the model's.
    """
    expected = _unseen(path, own, own["num_hidden_layers"])
    found = _unseen(path, read_config(path), own["num_hidden_layers"])
    for name, value in expected.items():
        if found[name] != value:
            raise InputError(
                f"{path}: the model and this file do not fit: {name}: expected "
                f"{value!r}, as the model has it, found {found[name]!r}"
            )


def _unseen(path, config, blocks) -> dict[str, Any]:
    """What a configuration says of that many layers, and no shape of a weight shows."""
    said = settings_of("modernbert", "encoder", path, config, {})
    types = said["layer_types"][:blocks]
    activation = their_activation(keras.activations.get(said["hidden_act"]))
    names = ["num_attention_heads", "layer_norm_eps", "pad_token_id"]
    names += ["global_rope_theta"] if "full_attention" in types else []
    unseen = {"layer_types": types, "hidden_activation": activation}
    if "sliding_attention" in types:
        names += ["local_rope_theta"]
        unseen["local_attention // 2"] = said["local_attention"] // 2
    return {**unseen, **{name: said[name] for name in names}}


def _blocks(layers) -> list[str]:
    """The names of the blocks; InputError if a layer is missing."""
    found = [re.match(r"Transformer-(\d+)-", name) for name in layers]
    count = max((int(match[1]) + 1 for match in found if match), default=0)
    blocks = [f"Transformer-{index}" for index in range(count)]
    expected = ["Embedding-Token", "Embedding-Norm", "Output-Norm"]
    expected += [f"{block}-{part}" for block in blocks for part in _PARTS]
    expected += [f"{block}-MultiHeadSelfAttention-Norm" for block in blocks[1:]]
    missing = [name for name in expected if name not in layers]
    if missing or not blocks:
        lacks = ", ".join(missing) or "blocks"
        raise _refuse(f"layers with the names of tiedbert; this one lacks {lacks}")
    return blocks


def _embedding_settings(layers) -> dict[str, Any]:
    table, dropout = layers["Embedding-Token"], layers.get("Embedding-Dropout")
    return {
        "vocab_size": table.input_dim,
        "hidden_size": table.output_dim,
        "embedding_dropout": float(dropout.rate) if dropout else 0.0,
        "initializer_range": getattr(table.embeddings_initializer, "stddev", 0.02),
        "pad_token_id": table.pad_id,
    }


def _block_settings(layers, blocks) -> dict[str, Any]:
    feeds = [layers[f"{block}-FeedForward"] for block in blocks]
    attentions = [layers[f"{block}-MultiHeadSelfAttention"] for block in blocks]
    return {
        "intermediate_size": _one("intermediate_size", feeds, lambda x: x.units),
        "mlp_dropout": _one("mlp_dropout", feeds, lambda x: float(x.dropout.rate)),
        "hidden_activation": _activation(layers, feeds),
        "classifier_activation": _activation(layers, feeds),
        "num_attention_heads": _one("heads", attentions, lambda x: x.heads),
        "attention_dropout": _one(
            "attention_dropout", attentions, lambda x: float(x.attention_dropout or 0)
        ),
    }


def _one(name: str, layers: list, read: Callable) -> Any:
    """What all layers have; InputError if they differ."""
    found = {read(layer) for layer in layers}
    if len(found) != 1:
        raise _refuse(f"one {name} in all layers; this one has {sorted(found)}")
    return found.pop()


def _activation(layers, feeds) -> str:
    """Hugging Face's name for the activation of all blocks and of the head."""
    first, head = feeds[0].activation[0], layers.get("MLM-Dense")
    used = {tuple(feed.activation) for feed in feeds}
    name = their_activation(first)
    is_one = used == {(first, keras.activations.linear)}
    if name is None or not is_one or (head and head.activation is not first):
        raise _refuse(
            "gelu or another activation that it knows, the same in all blocks, each "
            "with a linear gate, and in the head; this one has others"
        )
    return name


def _attention_settings(model, layers, blocks) -> dict[str, Any]:
    types = _layer_types(model, blocks)
    settings: dict[str, Any] = {"layer_types": types}
    periods = (
        n for n in range(1, len(types) + 1) if types == regular_types(len(types), n)
    )
    if period := next(periods, None):
        settings["global_attn_every_n_layers"] = period
    window = layers.get("Attention-Local-Mask")
    settings["local_attention"] = (
        2 * window.reach if window else DEFAULTS["local_attention"]
    )
    for name, theta in (
        ("Embedding-Rotary-Position", "global_rope_theta"),
        ("Embedding-Local-Rotary-Position", "local_rope_theta"),
    ):
        settings[theta] = layers[name].base if name in layers else DEFAULTS[theta]
    return settings


def _layer_types(model, blocks) -> list[str]:
    """Which attentions are given the window."""
    names = [f"{block}-MultiHeadSelfAttention-Probabilities" for block in blocks]
    called = {call.layer.name: call for call in Graph(model).calls}
    windows = [
        any(_keras.maker(x).name == "Attention-Local-Mask" for x in called[name].inputs)
        for name in names
    ]
    return ["sliding_attention" if local else "full_attention" for local in windows]


def _epsilon(layers) -> float:
    norms = [layer for name, layer in layers.items() if name.endswith("-Norm")]
    if any(layer.offset or not layer.scale for layer in norms):
        raise _refuse("norms without bias and with weight; this one has others")
    return _one("norm_eps", norms, lambda x: x.epsilon)


def _refuse(message) -> InputError:
    return InputError(f"Hugging Face's ModernBERT has {message}")
