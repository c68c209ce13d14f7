"""Hugging Face's config.json of a BERT, derived from the model."""

import json
import re

from tensorflow import keras

from tiedbert.bert.first_token import FirstToken
from tiedbert.errors import InputError
from tiedbert.surgery.graph import Graph

_EMBEDDINGS = ("Token", "Segment", "Position", "Norm")
# Hugging Face's names for activations, by the names of Keras' functions.
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_erf": "gelu",
    "gelu_tanh": "gelu_new",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
# Settings that no shape of a weight shows, with Hugging Face's defaults.
_UNSEEN = {
    "model_type": "bert",
    "num_attention_heads": 12,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "pad_token_id": 0,
}
# Their last layer has the same name in a file.
_CLASSIFIERS = {
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertForMultipleChoice",
}
_SYNONYMS = {
    "gelu_python": "gelu",
    **dict.fromkeys(("gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast"), "gelu_new"),
    "swish": "silu",
}


def keras_activation(name):
    """Keras' name for an activation of a config.json; other values are unchanged."""
    if not isinstance(name, str):
        return name  # bert4keras takes a list of two for a gated layer
    theirs = {their: ours for ours, their in reversed(_ACTIVATIONS.items())}
    return theirs.get(_SYNONYMS.get(name, name), name)


def their_activation(function):
    """Hugging Face's name for an activation of Keras; None if it has none."""
    return _ACTIVATIONS.get(_name_of(function))


def describe(model) -> dict:
    """The settings of a BERT made of bert4keras' layers, under Hugging Face's names.

    Raises:
        InputError: the model is not a BERT as Hugging Face has it.
    """
    layers = {layer.name: layer for layer in model.layers}
    blocks = _count_blocks(layers)
    _check_parts(layers, blocks)
    return {
        "architectures": [_architecture(model, layers, blocks)],
        "model_type": "bert",
        "num_hidden_layers": blocks,
        **_embedding_settings(layers),
        **_block_settings(layers),
        "layer_norm_eps": _epsilon(layers),
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        "dtype": "float32",
        **_classifier_settings(layers),
    }


def _embedding_settings(layers) -> dict:
    table, dropout = layers["Embedding-Token"], layers.get("Embedding-Dropout")
    return {
        "vocab_size": table.input_dim,
        "hidden_size": table.output_dim,
        "hidden_dropout_prob": float(dropout.rate) if dropout else 0.0,
        "max_position_embeddings": layers["Embedding-Position"].input_dim,
        "type_vocab_size": layers["Embedding-Segment"].input_dim,
        "initializer_range": getattr(table.embeddings_initializer, "stddev", 0.02),
        "pad_token_id": getattr(table, "pad_id", 0),  # the encoder masks it by itself
    }


def _block_settings(layers) -> dict:
    attention = layers["Transformer-0-MultiHeadSelfAttention"]
    feed_forward = layers["Transformer-0-FeedForward"]
    return {
        "num_attention_heads": attention.heads,
        "intermediate_size": feed_forward.units,
        "hidden_act": _activation(feed_forward),
        "attention_probs_dropout_prob": float(attention.attention_dropout or 0),
    }


def _classifier_settings(layers) -> dict:
    config: dict = {}
    if "Classifier" in layers:
        labels = [f"LABEL_{i}" for i in range(layers["Classifier"].units)]
        config["id2label"] = {str(i): label for i, label in enumerate(labels)}
        config["label2id"] = {label: i for i, label in enumerate(labels)}
    if "Classifier-Dropout" in layers:
        config["classifier_dropout"] = float(layers["Classifier-Dropout"].rate)
    return config


def check(own, path):
    """Compare the result of :func:`describe` with a config.json.

    Only settings that no shape of a weight shows are compared.

    Raises:
        InputError: not a JSON object, or another setting than the model's.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not a JSON file: {error}") from None
    if not isinstance(stored, dict):
        raise InputError(f"{path}: expected a JSON object, found {stored!r:.40}")
    expected = {"is_decoder": False, "add_cross_attention": False, **own}
    _check_classifiers(own, path, stored.get("architectures"))
    for key, default in _UNSEEN.items():
        found = stored.get(key)
        found = default if found is None else found
        if isinstance(found, str):
            found = _SYNONYMS.get(found, found)
        if found != expected[key]:
            raise InputError(
                f"{path}: the model and this file do not fit: {key}: expected "
                f"{expected[key]!r}, as the model has it, found {found!r}"
            )


def _check_classifiers(own, path, stored):
    """Tell classifiers of texts from those of tokens: their layers have one name."""
    found = _CLASSIFIERS & set(map(str, stored if isinstance(stored, list) else ()))
    (expected,) = own["architectures"]
    if found and expected in _CLASSIFIERS - found:
        raise InputError(
            f"{path}: the model and this file do not fit: architectures: expected "
            f"{expected}, as the model is, found {', '.join(sorted(found))}"
        )


def _count_blocks(layers) -> int:
    found = [re.match(r"Transformer-(\d+)-", name) for name in layers]
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _check_parts(layers, blocks):
    """InputError for models with BERT's weights that compute something else."""
    expected = [f"Embedding-{part}" for part in _EMBEDDINGS]
    for i in range(max(blocks, 1)):
        expected += [f"Transformer-{i}-MultiHeadSelfAttention"]
        expected += [f"Transformer-{i}-FeedForward"]
    missing = [name for name in expected if name not in layers]
    if missing:
        raise _refuse(f"layers with bert4keras' names; it lacks {', '.join(missing)}")
    if {"Attention-LM-Mask", "Attention-UniLM-Mask"} & set(layers):
        raise _refuse("attention in both directions, an encoder; this one looks back")
    if layers["Embedding-Position"].hierarchical:
        raise _refuse("one embedding a position; this one has hierarchical positions")
    attention = layers["Transformer-0-MultiHeadSelfAttention"]
    for size in (attention.key_size, attention.head_size):
        if size * attention.heads != attention.out_dim:
            raise _refuse(
                f"heads that share the width, {attention.out_dim}; this one has "
                f"{attention.heads} heads of {size}"
            )


def _refuse(message):
    return InputError(f"Hugging Face's BERT has {message}")


def _architecture(model, layers, blocks) -> str:
    masked, next_sentence = "MLM-Bias" in layers, "NSP-Proba" in layers
    _check_activations(layers, blocks)
    if "Classifier" in layers:
        return _classifier(model, layers, f"Transformer-{blocks - 1}-FeedForward-Norm")
    if masked:
        return "BertForPreTraining" if next_sentence else "BertForMaskedLM"
    return "BertForNextSentencePrediction" if next_sentence else "BertModel"


def _check_activations(layers, blocks):
    """InputError if pooler or transform have another activation than Hugging Face's."""
    blocks_own = layers[f"Transformer-{blocks - 1}-FeedForward"].activation[0]
    for name, expected in (
        ("Pooler-Dense", keras.activations.tanh),
        ("MLM-Dense", blocks_own),
    ):
        if name in layers and _name_of(layers[name].activation) != _name_of(expected):
            raise _refuse(
                f'{_name_of(expected)} in "{name}"; this one has '
                f"{_name_of(layers[name].activation)}"
            )


def _classifier(model, layers, encoder) -> str:
    """The class in Hugging Face of an encoder with a layer "Classifier"."""
    makers = Graph(model).producers
    last = makers.get(model.outputs[0])
    if last is None or len(model.outputs) > 1 or last.layer is not layers["Classifier"]:
        raise _refuse('one output, the logits of "Classifier"; this one has others')
    if _name_of(layers["Classifier"].activation) != "linear":
        raise _refuse('logits, a "Classifier" without an activation')
    source = makers.get(last.inputs[0])
    while source and isinstance(source.layer, keras.layers.Dropout):
        source = makers.get(source.inputs[0])
    names = [_name_of_maker(source)]
    while names[-1] in ("Pooler-Dense", "Pooler"):
        source = makers.get(source.inputs[0])
        names.append(_name_of_maker(source))
    if names == [encoder]:
        return "BertForTokenClassification"
    if names == ["Pooler-Dense", "Pooler", encoder] and isinstance(
        layers["Pooler"], (FirstToken, keras.layers.Lambda)
    ):
        return "BertForSequenceClassification"
    raise _refuse(
        'a "Classifier" of the hidden states, or of a pooler of the first token; this '
        f"one reads {' of '.join(names)}"
    )


def _name_of_maker(call) -> str:
    return call.layer.name if call else "an input"


def _activation(feed_forward) -> str:
    names = [_name_of(function) for function in feed_forward.activation]
    if len(names) != 1 or names[0] not in _ACTIVATIONS:
        raise _refuse(
            f"one activation of {', '.join(sorted(set(_ACTIVATIONS)))}; this one has "
            f"{', '.join(names)}"
        )
    return _ACTIVATIONS[names[0]]


def _name_of(activation) -> str:
    return getattr(activation, "__name__", str(activation))


def _epsilon(layers) -> float:
    found = {layer.epsilon for name, layer in layers.items() if name.endswith("-Norm")}
    if len(found) != 1:
        raise _refuse(f"one layer_norm_eps; this one has {sorted(found)}")
    return found.pop()
