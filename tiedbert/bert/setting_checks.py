"""Checks the values of settings, because bert4keras does not."""

import numbers

from tensorflow import keras

from tiedbert.bert import backend
from tiedbert.bert.activation_names import keras_activation
from tiedbert.bert.vocabulary_options import check_tokens
from tiedbert.errors import InputError

_COUNTS = {  # setting -> smallest value
    **dict.fromkeys(("vocab_size", "hidden_size", "num_attention_heads"), 1),
    **dict.fromkeys(("intermediate_size", "embedding_size", "max_position"), 1),
    **dict.fromkeys(("attention_head_size", "attention_key_size"), 1),
    **dict.fromkeys(("sequence_length", "num_hidden_groups"), 1),
    **dict.fromkeys(("num_hidden_layers", "segment_vocab_size", "pad_token_id"), 0),
    **{"local_attention": 0, "global_attn_every_n_layers": 1},
}
_RATES = (
    *("dropout_rate", "attention_dropout_rate", "embedding_dropout", "mlp_dropout"),
)
_POSITIVE = ("layer_norm_eps", "global_rope_theta", "local_rope_theta")
_ACTIVATIONS = (
    "hidden_act",
    "classifier_activation",
    "final_activation",
    "with_discriminator",
    "with_pool",
    "with_nsp",
    "with_mlm",
)


def values_checked(path, said) -> dict:
    """The settings in the form that bert4keras takes; InputError for a wrong value.

    Args:
        path: where they come from, for messages.
        said: dict, settings under bert4keras' names.
    """
    for name, least in _COUNTS.items():
        _check_number(path, said, name, f">= {least}", lambda x, y=least: x >= y)
    for name in _RATES:
        _check_number(path, said, name, ">= 0 and < 1", lambda x: 0 <= x < 1)
    for name in _POSITIVE:
        _check_number(path, said, name, "> 0", lambda x: x > 0)
    _check_number(path, said, "initializer_range", ">= 0", lambda x: x >= 0)
    _check_heads(path, said)
    _check_pack(path, said)
    _check_groups(path, said)
    said["compound_tokens"] = check_tokens(
        said.get("keep_tokens"),
        said.get("compound_tokens"),
        said["vocab_size"],
        f"the vocabulary of {path}",
    )
    for name in _ACTIVATIONS:
        if name in said:
            said[name] = _activation(path, name, said[name])
    if "pad_token_id" in said or "keep_tokens" in said:
        said["pad_token_id"] = _padding(path, said)
    return said


def _check_number(path, said, name, bounds, is_right):
    value = said.get(name)
    if value is None:
        return
    number = numbers.Integral if name in _COUNTS else numbers.Real
    if isinstance(value, bool) or not isinstance(value, number) or not is_right(value):
        what = "a whole number" if name in _COUNTS else "a number"
        raise InputError(f"{path}: {name}: expected {what} {bounds}, found {value!r}")


def _check_heads(path, said):
    """InputError for a width of a head that bert4keras would round down silently."""
    width, heads = said.get("hidden_size"), said.get("num_attention_heads")
    if width and heads and width % heads and not said.get("attention_head_size"):
        raise InputError(
            f"{path}: hidden_size {width} is not a multiple of num_attention_heads "
            f"{heads}"
        )


def _check_groups(path, said):
    groups, blocks = said.get("num_hidden_groups", 1), said["num_hidden_layers"]
    if groups > max(blocks, 1):
        raise InputError(
            f"{path}: num_hidden_groups: expected at most one a layer, "
            f"{blocks}, found {groups}"
        )


def _check_pack(path, said):
    """InputError for options that mean one text a row, where there are several."""
    others = ("with_pool", "with_nsp", "custom_position_ids")
    found = [name for name in others if said.get(name)]
    if said.get("with_pack") and found:
        raise InputError(
            f"{path}: with_pack and {', '.join(found)}: a row has several texts, whose "
            "positions begin anew, and no first token of its own: leave one out"
        )


def check_sequence_length(path, said, counts=False):
    """InputError if a fixed length is larger than the number of positions.

    Args:
        path: where the settings come from, for messages.
        said: the settings, checked.
        counts: whether positions begin behind that of padding, as RoBERTa's do.
    """
    length, positions = said.get("sequence_length"), said.get("max_position", 512)
    if counts:
        positions -= said["padding_position"] + 1
        if positions < 1:
            raise InputError(
                f"{path}: max_position_embeddings: expected more than pad_token_id + "
                f"1, as positions begin there, found {said['max_position']}"
            )
    if said.get("with_pack"):
        return  # of a text: the layer of positions checks it
    if said.get("hierarchical_position"):
        positions **= 2
    if length and length > positions and not said.get("custom_position_ids"):
        raise InputError(
            f"{path}: sequence_length: texts of {length} tokens, but the model has "
            f"{positions} positions"
        )


def _activation(path, name, value):
    """Keras' name or function of an activation, or a list of them (gated layers)."""
    if isinstance(value, list):
        return [_activation(path, name, each) for each in value]
    if isinstance(value, bool) or callable(value):
        return value
    known = keras_activation(value)
    if isinstance(known, str):
        known = backend.ACTIVATIONS.get(known, known)
    try:
        keras.activations.get(known)
    except (ValueError, TypeError):
        raise InputError(
            f"{path}: {name}: expected an activation such as gelu, gelu_new, relu, "
            f"silu, tanh or linear, found {value!r}"
        ) from None
    return known


def _padding(path, said) -> int:
    """The id of padding in the numbering of `keep_tokens`."""
    pad, keep_tokens = said.get("pad_token_id", 0), said.get("keep_tokens")
    tokens = range(said["vocab_size"]) if keep_tokens is None else list(keep_tokens)
    if pad not in tokens:
        raise InputError(
            f"{path}: pad_token_id {pad} is none of the {len(tokens)} tokens of the "
            "model: keep it (keep_tokens), or say another"
        )
    return tokens.index(pad)
