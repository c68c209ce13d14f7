"""The ``model_type`` of a Hugging Face config.json: kind, names, absent settings.

Source: the names and defaults are those of transformers 5.23,
``models/*/configuration_*.py``; of NEZHA those of transformers 4.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tiedbert.errors import InputError

# Other name of a setting -> bert4keras' name.
SYNONYMS = {
    "max_position_embeddings": "max_position",
    "hidden_dropout_prob": "dropout_rate",
    "attention_probs_dropout_prob": "attention_dropout_rate",
    "type_vocab_size": "segment_vocab_size",
    "layer_norm_epsilon": "layer_norm_eps",
    "norm_eps": "layer_norm_eps",
    "hidden_activation": "hidden_act",
    "attention_dropout": "attention_dropout_rate",
}
_DEFAULTS = {
    "num_attention_heads": 12,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}


@dataclass(frozen=True)
class ModelType:
    """What a config.json of a type means.

    Attributes:
        kinds: the kinds that compute what it says, the usual one first.
        defaults: settings that are meant where the file is silent; None if not known.
        names: its name of a setting -> the name that BERT has for it.
        never_null: settings whose null means different things in different versions.
    """

    kinds: tuple[str, ...]
    defaults: Mapping[str, Any] | None = field(default_factory=_DEFAULTS.copy)
    names: Mapping[str, str] = field(default_factory=dict)
    never_null: tuple[str, ...] = ()


def _but(**changes):
    return {**_DEFAULTS, **changes}


_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_ROBERTA = ModelType(("hf_roberta",), _but(pad_token_id=1))
MODEL_TYPES = {
    "bert": ModelType(("bert", "roberta")),  # bert4keras' roberta is a BERT
    "ernie": ModelType(("bert",)),
    "albert": ModelType(
        ("albert", "albert_unshared"),
        _but(
            num_attention_heads=64,
            embedding_size=128,
            hidden_act="gelu_new",
            **_NO_DROPOUT,
        ),
        {"classifier_dropout_prob": "classifier_dropout"},
    ),
    "electra": ModelType(
        ("electra", "electra_generator"),
        _but(num_attention_heads=4, embedding_size=128),
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": ModelType(
        ("distilbert",),
        names={
            "dim": "hidden_size",
            "n_layers": "num_hidden_layers",
            "n_heads": "num_attention_heads",
            "hidden_dim": "intermediate_size",
            "activation": "hidden_act",
            "dropout": "hidden_dropout_prob",
            "attention_dropout": "attention_probs_dropout_prob",
            "seq_classif_dropout": "classifier_dropout",
        },
    ),
    "roformer": ModelType(
        ("roformer", "roformer_v2"), _but(max_position_embeddings=1536)
    ),
    "nezha": ModelType(("nezha",)),
    # What else it means by silence is in modern_settings.
    "modernbert": ModelType(
        ("modernbert",),
        {"num_attention_heads": 12, "hidden_act": "gelu", "initializer_range": 0.02},
        never_null=("local_rope_theta",),
    ),
    # bert4keras' alone; encoder and decoder of T5 have the type of T5.
    "openai-gpt": ModelType(("gpt",), None),
    "gpt2": ModelType(("gpt2", "gpt2_ml"), None),
    "t5": ModelType(("t5", "t5.1.0", "t5.1.1"), None),
    "mt5": ModelType(("mt5.1.1",), None),
}
# Kinds that Hugging Face alone has: its defaults count in any configuration.
_ITS_OWN = {
    "hf_roberta": "roberta",
    "distilbert": "distilbert",
    "modernbert": "modernbert",
}


def kind_of_type(config_path: Any, model_type: Any) -> str:
    """The usual kind of a ``model_type``; InputError if there is none."""
    if isinstance(model_type, str) and model_type in MODEL_TYPES:
        return MODEL_TYPES[model_type].kinds[0]
    raise InputError(
        f"{config_path}: model_type: expected one of {', '.join(MODEL_TYPES)}, found "
        f"{model_type!r} (where it is the same architecture under another name, give "
        "the kind as model and the option model_type)"
    )


def completed(
    config: Mapping[str, Any], path: Any, kind: str | None = None
) -> dict[str, Any]:
    """A configuration under BERT's names, with what its type means by silence.

    Args:
        config: the settings of a file; null counts as absent.
        path: where they come from, for messages.
        kind: the kind to build, which matters if there is no ``model_type``.

    Raises:
        InputError: a setting has two values, under two names.
    """
    said_kind = kind or config.get("model")
    of_kind = _ITS_OWN.get(said_kind.lower()) if isinstance(said_kind, str) else None
    name = config.get("model_type") or of_kind
    found = MODEL_TYPES.get(name) if isinstance(name, str) else None
    if found is None:
        return dict(config)
    for key in found.never_null:
        if key in config and config[key] is None:
            raise InputError(f"{path}: {key}: expected a number, found null")
    said = _renamed(config, path, found.names)
    there = {SYNONYMS.get(name, name) for name in said}
    absent = {
        name: value
        for name, value in (found.defaults or {}).items()
        if SYNONYMS.get(name, name) not in there
    }
    return {**absent, **said}


def _renamed(config, path, names):
    said = {}
    for name, value in config.items():
        ours = names.get(name, name)
        if value is None:
            continue
        if said.setdefault(ours, value) != value:
            raise InputError(
                f"{path}: {name} and {ours} are one setting: expected one value, found "
                f"{value!r} and {said[ours]!r}"
            )
    return said
