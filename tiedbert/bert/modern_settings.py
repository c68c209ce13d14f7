"""The settings that ModernBERT alone has, in older and newer configurations.

Source: ``configuration_modernbert.py`` of transformers; files of its versions before 5
say ``global_attn_every_n_layers``, ``global_rope_theta`` and ``local_rope_theta``,
later ones ``layer_types`` and ``rope_parameters``.
"""

from collections.abc import Mapping
from typing import Any

from tiedbert.errors import InputError

OPTIONS = {
    *("embedding_dropout", "mlp_dropout", "classifier_activation", "local_attention"),
    *("layer_types", "global_attn_every_n_layers"),
    *("global_rope_theta", "local_rope_theta"),
}
# Settings of which one value is built.
DEMANDS = {
    **dict.fromkeys(("attention_bias", "mlp_bias", "norm_bias"), (False,)),
    "classifier_bias": (False,),
    "decoder_bias": (True,),
    "head_dim": (),
    "rope_scaling": (),
}
# Of ModernBERT, where a configuration says nothing.
DEFAULTS = {
    "embedding_dropout": 0.0,
    "mlp_dropout": 0.0,
    "classifier_activation": "gelu",
    "local_attention": 128,
    "global_rope_theta": 160_000.0,
    "local_rope_theta": 10_000.0,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 50283,
}
# Type of an attention -> the setting with the base of its rotary positions.
_THETAS = {
    "full_attention": "global_rope_theta",
    "sliding_attention": "local_rope_theta",
}


def flat(where: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with one number or list each, which options can replace one by one.

    Args:
        where: what has these settings, for messages.
        given: ``dropout_rate`` stands for both ``embedding_dropout`` and
            ``mlp_dropout``, ``rope_parameters`` for both thetas.

    Returns:
        The settings that these stand for, and the others as they are.

    Raises:
        InputError: two of them disagree, or positions that are not built.
    """
    made = dict(given)
    for name in ("dropout_rate", "hidden_dropout_prob"):
        rate = made.pop(name, None)
        for part in ("embedding_dropout", "mlp_dropout"):
            _say(where, made, part, rate, name)
    for layer_type, found in _rope_parameters(where, made.pop("rope_parameters", None)):
        _say(where, made, _THETAS[layer_type], found, f"rope_parameters.{layer_type}")
    return made


def without_replaced(
    config: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings of a file without what options say of the types of layers."""
    made, names = dict(config), ("layer_types", "global_attn_every_n_layers")
    if any(options.get(name) is not None for name in names):
        made = {name: value for name, value in made.items() if name not in names}
    blocks, types = options.get("num_hidden_layers"), made.get("layer_types")
    if isinstance(blocks, int) and isinstance(types, list) and blocks < len(types):
        made["layer_types"] = types[:blocks]
    return made


def _say(where, settings, name, value, source):
    """Give a setting a value; InputError if it has another one."""
    if value is None:
        return
    if settings.get(name) not in (None, value):
        raise InputError(
            f"{where}: {name} and {source} are one setting: expected one value, found "
            f"{settings[name]!r} and {value!r}"
        )
    settings[name] = value


def _rope_parameters(where, said) -> list:
    """(type of an attention, its theta) of what a newer configuration says."""
    said = {} if said is None else said
    is_right = isinstance(said, dict) and said.keys() <= _THETAS.keys()
    if not is_right or not all(isinstance(x or {}, dict) for x in said.values()):
        raise InputError(
            f"{where}: rope_parameters: expected an object for each of "
            f"{', '.join(_THETAS)}, found {said!r:.80}"
        )
    return [(name, _theta(where, name, x)) for name, x in said.items() if x]


def _theta(where, layer_type, said):
    rest = {k: v for k, v in said.items() if k != "rope_theta" and v is not None}
    if rest and rest != {"rope_type": "default"}:
        raise InputError(
            f"{where}: rope_parameters.{layer_type}: expected rope_theta and rope_type "
            f"'default' alone, found {said!r:.80}"
        )
    return said.get("rope_theta")


def completed(path: Any, said: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with ``layer_types`` in any case, and without those of one value.

    Args:
        path: where they come from, for messages.
        said: checked settings, with :data:`DEFAULTS` where nothing is said.

    Raises:
        InputError: layers or a head that are not built.
    """
    made = dict(said)
    made["layer_types"] = _layer_types(path, made)
    activation, of_head = made["hidden_act"], made.pop("classifier_activation")
    if isinstance(activation, list) or activation != of_head:
        raise InputError(
            f"{path}: hidden_activation and classifier_activation, of the head: "
            "expected one activation for both, found "
            f"{_name(activation)!r} and {_name(of_head)!r}"
        )
    _check_heads(path, made["hidden_size"], made["num_attention_heads"])
    return made


def _name(activation):
    return getattr(activation, "__name__", activation)


def _layer_types(path, made) -> list:
    blocks, given = made["num_hidden_layers"], made.get("layer_types")
    every = made.pop("global_attn_every_n_layers", None)
    if given is not None:
        _check_types(path, given, blocks)
        if every is None:
            return given
    every = every or 3
    types = regular_types(blocks, every)
    if given not in (None, types):
        raise InputError(
            f"{path}: layer_types and global_attn_every_n_layers are one setting: "
            f"expected the same layers, found {given!r:.80} and {every!r}"
        )
    return types


def regular_types(blocks: int, every: int) -> list[str]:
    """The types of the attentions, of which each `every`-th is global."""
    return [
        "sliding_attention" if i % every else "full_attention" for i in range(blocks)
    ]


def _check_types(path, given, blocks):
    is_right = isinstance(given, list) and all(
        isinstance(name, str) and name in _THETAS for name in given
    )
    if not is_right or len(given) != blocks:
        raise InputError(
            f"{path}: layer_types: expected a list of {' or '.join(_THETAS)} for each "
            f"of the {blocks} layers, found {given!r:.80}"
        )


def _check_heads(path, width, heads):
    """InputError for heads whose numbers have no pairs, which positions turn."""
    if width // heads % 2:
        raise InputError(
            f"{path}: num_attention_heads: expected heads of even width, found "
            f"{width // heads}, {width} for {heads} heads"
        )
