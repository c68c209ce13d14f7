"""Hugging Face's config.json of a model, derived from the model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorflow import keras

from tiedbert.bert.activation_names import OURS, name_of, their_activation, usual_name
from tiedbert.bert.early_gather import attentions_of
from tiedbert.bert.hugging_face.classes import architecture_of, refusal
from tiedbert.bert.hugging_face.names import format_of
from tiedbert.bert.kind_of import kind_of
from tiedbert.bert.model_types import MODEL_TYPES, completed
from tiedbert.errors import InputError
from tiedbert.surgery.graph import Graph

# Settings that no shape of a weight shows.
_UNSEEN = ("num_attention_heads", "hidden_act", "layer_norm_eps", "pad_token_id")
# Of them, those that a model here has in one way only.
_FIXED = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "rotary_value": False,
}
# Their last layer has the same name in a file.
_CLASSIFIERS = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForMultipleChoice",
)
_EPSILON_OF_DISTILBERT = 1e-12
ROFORMER_POSITIONS = 1536  # theirs; ours have no limit


def describe(model: keras.Model) -> dict[str, Any]:
    """The settings of a model of bert4keras' layers, under BERT's names.

    Raises:
        InputError: the model is none as Hugging Face has it.
    """
    kind = kind_of(model)
    form = format_of(kind)
    layers = {layer.name: layer for layer in model.layers}
    attentions = attentions_of(Graph(model))
    _check_parts(form, layers, attentions)
    config = {
        "architectures": [architecture_of(model, kind, form, layers)],
        "model_type": form.model_type,
        "num_hidden_layers": len(attentions),
        **_groups(form, attentions),
        **_embedding_settings(form, layers),
        **_block_settings(form, layers, attentions[0].layer),
        "layer_norm_eps": _epsilon(form, layers),
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        "dtype": "float32",
        **_classifier_settings(layers),
    }
    _check_distilbert(form, config)
    return config


def _groups(form, attentions) -> dict:
    """ALBERT has fewer attentions than calls of them."""
    if form.model_type != "albert":
        return {}
    return {"num_hidden_groups": len({call.layer.name for call in attentions})}


def file_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The result of :func:`describe` under the names of its ``model_type``."""
    model_type = config["model_type"]
    theirs = {ours: name for name, ours in MODEL_TYPES[model_type].names.items()}
    without = {
        "distilbert": ("layer_norm_eps", "position_embedding_type"),
        "roformer": ("position_embedding_type", "classifier_dropout"),
    }.get(model_type, ())
    return {theirs.get(k, k): v for k, v in config.items() if k not in without}


def _embedding_settings(form, layers) -> dict:
    table, dropout = layers["Embedding-Token"], layers.get("Embedding-Dropout")
    config = {
        "vocab_size": table.input_dim,
        "hidden_dropout_prob": float(dropout.rate) if dropout else 0.0,
        "initializer_range": getattr(table.embeddings_initializer, "stddev", 0.02),
        "pad_token_id": getattr(table, "pad_id", 0),  # the encoder masks it by itself
    }
    for name, layer in (
        ("max_position_embeddings", "Embedding-Position"),
        ("type_vocab_size", "Embedding-Segment"),
    ):
        if layer in form.embeddings:
            config[name] = layers[layer].input_dim
    if form.model_type == "roformer":
        config["max_position_embeddings"] = ROFORMER_POSITIONS
    if "Embedding-Mapping" in form.embeddings:
        config["embedding_size"] = table.output_dim
    return config


def _block_settings(form, layers, attention) -> dict:
    feed_forward = layers[attention.name.replace("MultiHeadSelfAttention", _FORWARD)]
    return {
        "hidden_size": attention.out_dim,
        "num_attention_heads": attention.heads,
        "intermediate_size": feed_forward.units,
        "hidden_act": _activation(form, feed_forward),
        "attention_probs_dropout_prob": float(attention.attention_dropout or 0),
    }


_FORWARD = "FeedForward"


def _classifier_settings(layers) -> dict:
    config: dict = {}
    if "Classifier" in layers:
        labels = [f"LABEL_{i}" for i in range(layers["Classifier"].units)]
        config["id2label"] = {str(i): label for i, label in enumerate(labels)}
        config["label2id"] = {label: i for i, label in enumerate(labels)}
    if "Classifier-Dropout" in layers:
        config["classifier_dropout"] = float(layers["Classifier-Dropout"].rate)
    return config


def _activation(form, feed_forward) -> str:
    found = [their_activation(function) for function in feed_forward.activation]
    if len(found) == 1 and found[0] is not None:
        return found[0]
    raise refusal(
        form,
        f"one activation of {', '.join(sorted(OURS))}; this one has "
        f"{', '.join(map(name_of, feed_forward.activation))}",
    )


def _epsilon(form, layers) -> float:
    found = {layer.epsilon for name, layer in layers.items() if name.endswith("-Norm")}
    if len(found) != 1:
        raise refusal(
            form,
            f"one layer_norm_eps; this one has {sorted(found)}: build it with the "
            "option layer_norm_eps",
        )
    return found.pop()


# Models with weights of a kind that compute something else.


def _check_parts(form, layers, attentions):
    missing = [name for name in _expected(form, attentions) if name not in layers]
    if missing:
        raise refusal(
            form, f"layers with bert4keras' names; it lacks {', '.join(missing)}"
        )
    if {"Attention-LM-Mask", "Attention-UniLM-Mask"} & set(layers):
        raise refusal(
            form, "attention in both directions, an encoder; this one looks back"
        )
    if getattr(layers.get("Embedding-Position"), "hierarchical", None):
        raise refusal(
            form, "one embedding a position; this one has hierarchical positions"
        )
    _check_padding(form, layers)
    _check_heads(form, attentions[0].layer)


def _expected(form, attentions) -> list[str]:
    """The layers that a model must have."""
    always = [n for n in form.embeddings if n != "Embedding-Mapping"]
    if form.model_type == "albert":  # it maps a table of the full width too
        always.append("Embedding-Mapping")
    blocks = [call.layer.name for call in attentions] or [
        "Transformer-0-MultiHeadSelfAttention"
    ]
    forward = [name.replace("MultiHeadSelfAttention", _FORWARD) for name in blocks]
    return [*always, *blocks, *forward]


def _check_padding(form, layers):
    """InputError if positions begin elsewhere than behind the id of padding."""
    counted, table = layers.get("Embedding-Counted-Position"), layers["Embedding-Token"]
    packed = layers.get("Embedding-Pack-Position")
    if form.model_type != "roberta" or (counted is None and packed is None):
        return
    position = packed.first - 1 if counted is None else counted.padding_position
    if position != table.pad_id:
        raise refusal(
            form,
            "positions that begin behind the id of padding; with keep_tokens this one "
            f"has padding {table.pad_id}, and position {position} for it",
        )


def _check_heads(form, attention):
    for size in (attention.key_size, attention.head_size):
        if size * attention.heads != attention.out_dim:
            raise refusal(
                form,
                f"heads that share the width, {attention.out_dim}; this one has "
                f"{attention.heads} heads of {size}",
            )


def _check_distilbert(form, config):
    epsilon = config["layer_norm_eps"]
    if form.model_type == "distilbert" and epsilon != _EPSILON_OF_DISTILBERT:
        raise refusal(
            form, f"layer_norm_eps {_EPSILON_OF_DISTILBERT}; this one has {epsilon}"
        )


# A config.json beside the weights that are loaded.


def check(own: Mapping[str, Any], kind: str, path: Path) -> dict[str, Any]:
    """Compare the result of :func:`describe` with a config.json.

    Only settings that no shape of a weight shows are compared.

    Args:
        own: the result for the model.
        kind: that of the model.
        path: the config.json.

    Returns:
        The settings in the file, under BERT's names.

    Raises:
        InputError: not a JSON object, or another setting than the model's.
    """
    stored = _stored(path)
    model_type = stored.get("model_type") or own["model_type"]
    is_known = isinstance(model_type, str) and model_type in MODEL_TYPES
    if not is_known or kind not in MODEL_TYPES[model_type].kinds:
        raise _misfit(path, "model_type", own["model_type"], model_type)
    stored = completed({**stored, "model_type": model_type}, path)
    _check_classifiers(own, path, stored.get("architectures"))
    expected = {**_FIXED, **{name: own[name] for name in _UNSEEN}}
    if kind == "albert":  # its blocks share their weights
        for name in ("num_hidden_layers", "num_hidden_groups"):
            expected[name] = own[name]
    for key, value in expected.items():
        found = stored.get(key, value if key in _FIXED else None)
        found = usual_name(found) if isinstance(found, str) else found
        if found != value:
            raise _misfit(path, key, value, found)
    return stored


def _stored(path):
    try:
        stored = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not a JSON file: {error}") from None
    if not isinstance(stored, dict):
        raise InputError(f"{path}: expected a JSON object, found {stored!r:.40}")
    return stored


def _misfit(path, key, expected, found):
    return InputError(
        f"{path}: the model and this file do not fit: {key}: expected {expected!r}, as "
        f"the model has it, found {found!r}"
    )


def _check_classifiers(own, path, stored):
    """Tell classifiers of texts from those of tokens: their layers have one name."""
    (expected,) = own["architectures"]
    found = [
        name
        for name in map(str, stored if isinstance(stored, list) else ())
        if name.endswith(_CLASSIFIERS)
    ]
    endings = [ending for ending in _CLASSIFIERS if expected.endswith(ending)]
    if found and endings and not any(name.endswith(endings[0]) for name in found):
        raise InputError(
            f"{path}: the model and this file do not fit: architectures: expected "
            f"{expected}, as the model is, found {', '.join(sorted(found))}"
        )
