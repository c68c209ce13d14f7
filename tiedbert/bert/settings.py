"""Settings of a configuration: obeyed, ignored because without effect, or refused.

Google, Hugging Face and bert4keras have the same settings, some under different names.
bert4keras ignores settings that it does not know. Here a setting that changes what a
model computes is obeyed or refused, and an unknown one gives a warning.
"""

import difflib
import warnings

from tiedbert.bert import backend, modern_settings
from tiedbert.bert.model_types import MODEL_TYPES, SYNONYMS
from tiedbert.bert.setting_checks import check_sequence_length, values_checked
from tiedbert.errors import InputError

# Options of bert4keras for every kind, and those that tiedbert adds.
_OF_ALL = {
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("intermediate_size", "hidden_act", "dropout_rate", "attention_dropout_rate"),
    *("embedding_size", "attention_head_size", "attention_key_size"),
    *("sequence_length", "keep_tokens", "compound_tokens", "layers", "prefix", "name"),
    *("residual_attention_scores", "ignore_invalid_weights", "autoresize_weights"),
    *("attention_caches", "additional_input_layers", "layer_norm_cond"),
    *("layer_norm_cond_hidden_size", "layer_norm_cond_hidden_act"),
    *("initializer_range", "layer_norm_eps", "pad_token_id", "with_pack"),
}
_OF_BERT = {
    *("max_position", "segment_vocab_size", "shared_segment_embeddings"),
    *("hierarchical_position", "custom_position_ids"),
    *("with_pool", "with_nsp", "with_mlm"),
}
_HEADS = {"with_pool", "with_nsp", "with_mlm"}
_OF_ELECTRA = (_OF_BERT - _HEADS) | {"with_discriminator"}
_OF_GPT = (_OF_BERT - _HEADS) | {"final_activation"}
_OF_GPT2 = _OF_GPT - {
    *("segment_vocab_size", "shared_segment_embeddings", "custom_position_ids")
}
_OF_ROFORMER = _OF_BERT - {"max_position", "hierarchical_position"}
_OF_HF_ROBERTA = _OF_BERT - {"hierarchical_position", "with_nsp"}
_OF_T5 = {"with_lm", "cross_position_bias"}
_OF_KIND = {
    "bert": _OF_BERT,
    "roberta": _OF_BERT,
    "albert": _OF_BERT | {"num_hidden_groups"},
    "albert_unshared": _OF_BERT,
    "nezha": _OF_ROFORMER - {"custom_position_ids"},
    "roformer": _OF_ROFORMER,
    "roformer_v2": _OF_ROFORMER - {"with_pool", "with_nsp"},
    "electra": _OF_ELECTRA,
    "electra_generator": _OF_ELECTRA,
    "hf_roberta": _OF_HF_ROBERTA,
    "distilbert": _OF_HF_ROBERTA - {"segment_vocab_size", "with_pool"},
    "gpt": _OF_GPT,
    "gpt2": _OF_GPT2,
    "gpt2_ml": _OF_GPT2,
    "modernbert": modern_settings.OPTIONS | {"with_mlm"},
}

_NOT_OF_KIND = {
    "roformer_v2": {"initializer_range"},  # it has its own rule
    "modernbert": {"embedding_size", "attention_head_size", "attention_key_size"},
}
# Python objects, which no file can hold.
_OBJECTS = {"layers", "attention_caches", "additional_input_layers", "layer_norm_cond"}
# Settings that files have even for kinds that do not use them.
_OF_ANY_FILE = {"max_position", "segment_vocab_size", "initializer_range"}

# Settings that change no output of a model: notes, ids of special tokens, settings of
# a head, of generation, of memory.
_WITHOUT_EFFECT = {
    *("architectures", "transformers_version", "auto_map", "dtype", "torch_dtype"),
    *("torchscript", "use_bfloat16", "tf_legacy_loss", "gradient_checkpointing"),
    *("chunk_size_feed_forward", "use_cache", "return_dict", "output_attentions"),
    *("output_hidden_states", "output_past", "tie_encoder_decoder", "do_lower_case"),
    *("bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id"),
    *("mask_token_id", "unk_token_id", "decoder_start_token_id", "model_max_length"),
    *("language", "finetuning_task", "task_specific_params", "id2label", "label2id"),
    *("num_labels", "problem_type", "num_choices", "classifier_dropout"),
    *(
        "model_type",
        "classifier_dropout_prob",
        "attn_implementation",
        "initializer_factor",
    ),
    # The first row of ERNIE's task types is added to the segments of a file.
    "task_type_vocab_size",
    # DistilBERT's positions are read from the file, however they began.
    *("sinusoidal_pos_embds", "qa_dropout", "tie_weights_"),
    # In files of ALBERT, whose code does not read them.
    *("net_structure_type", "gap_size", "num_memory_blocks", "down_scale_factor"),
    # Of the heads, the training and the kernels of ModernBERT.
    *("classifier_pooling", "sparse_prediction", "sparse_pred_ignore_index"),
    *("initializer_cutoff_factor", "deterministic_flash_attn", "reference_compile"),
    "repad_logits_with_grad",
    # Of generation, in older files.
    *("max_length", "min_length", "do_sample", "early_stopping", "num_beams"),
    *("num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p"),
    *("typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size"),
    *("encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences"),
    *("output_scores", "return_dict_in_generate", "forced_bos_token_id"),
    *("forced_eos_token_id", "remove_invalid_values", "suppress_tokens"),
    *("begin_suppress_tokens", "exponential_decay_length_penalty"),
}
_PREFIXES_WITHOUT_EFFECT = ("_", "summary_", "pooler_", "tokenizer_")


def settings_of(kind, application, path, config, options) -> dict:
    """The settings to build a model with: a configuration, and options that replace it.

    Args:
        kind: a key of :data:`tiedbert.bert.kinds.KINDS`, in lower case.
        application: ``"encoder"``, ``"lm"`` or ``"unilm"``.
        path: where the configuration comes from, for messages.
        config: dict, the settings of a file as :func:`tiedbert.bert.models.read_config`
            gives them, or under names of bert4keras; null counts as absent.
        options: dict, settings given as arguments.

    Returns:
        The settings under names of bert4keras, and those that tiedbert adds.

    Raises:
        InputError: an option that the kind does not have, or a setting that asks for
            another model.
    """
    taken = (_OF_ALL | _OF_KIND.get(kind, _OF_T5)) - _NOT_OF_KIND.get(kind, set())
    model_type = options.get("model_type", config.get("model_type"))
    demands = _demands(kind, application, model_type)
    taken -= backend.LACKED_OPTIONS
    _check_options(
        kind, options, taken | backend.LACKED_OPTIONS | {"model_type", *demands}
    )
    _check_type(kind, path, model_type)
    if kind == "modernbert":
        options = modern_settings.flat("the options", options)
        config = modern_settings.without_replaced(
            modern_settings.flat(path, config), options
        )
    said = _said(path, config, options)
    _check_lacked(path, said)
    _check_leaky(path, said)
    for name, allowed in demands.items():
        _check_allowed(kind, path, name, said.get(name), allowed)
    _warn_of_others(kind, path, set(said) - taken - set(demands) - _OF_ANY_FILE)
    obeyed = {name: value for name, value in said.items() if name in taken}
    if kind == "hf_roberta":  # also if keep_tokens gives padding another id
        obeyed["padding_position"] = obeyed["pad_token_id"]
    if kind == "modernbert":
        obeyed = {**modern_settings.DEFAULTS, **obeyed}
    checked = values_checked(path, obeyed)
    if kind == "modernbert":
        checked = modern_settings.completed(path, checked)
    if "max_position" in taken:
        check_sequence_length(path, checked, counts=kind == "hf_roberta")
    return checked


def _said(path, config, options) -> dict:
    """The settings of a file and the options, under one name each, without nulls."""
    if objects := _OBJECTS & set(config):
        raise InputError(
            f"{path}: {', '.join(sorted(objects))}: not read from a file: give it as "
            "an option"
        )
    given = _of_one_name(path, config), _of_one_name("the options", options)
    return {k: v for settings in given for k, v in settings.items() if v is not None}


def _demands(kind, application, model_type) -> dict:
    """Settings that have fixed values in a kind: name -> the values allowed."""
    is_t5, is_v2 = "t5" in kind, kind == "roformer_v2"
    looks_back = is_t5 or kind.startswith("gpt") or application == "lm"
    one = (1,) if kind.startswith("albert") else ()
    several = kind == "albert" and backend.SEVERAL_GROUPS
    return {
        "position_embedding_type": ("absolute",),
        "is_decoder": (True, False) if looks_back else (False,),
        "add_cross_attention": (False,),
        "is_encoder_decoder": (True, False) if is_t5 else (False,),
        "tie_word_embeddings": (True, False) if "t5.1.1" in kind else (True,),
        **({} if several else {"num_hidden_groups": one}),
        "inner_group_num": one,
        "ln_type": ("postln",),
        "use_relative_position": (kind == "nezha",),
        "max_relative_position": (64,) if kind == "nezha" else (),
        "rotary_value": (False,),
        "norm_type": ("rms_norm",) if is_v2 else ("layer_norm",),
        "use_bias": (not is_v2,),
        "relative_attention_num_buckets": (32,),
        "relative_attention_max_distance": (128,),
        "pruned_heads": ({},),
        "quantization_config": (),
        "per_layer_config": ({},),
        "cross_attention_hidden_size": (),
        "directionality": ("bidi",),
        "use_task_id": (True, False) if model_type == "ernie" else (False,),
        **(modern_settings.DEMANDS if kind == "modernbert" else {}),
    }


def _check_options(kind, options, known):
    known = known | {old for old, new in SYNONYMS.items() if new in known}
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            meant = f": did you mean {close[0]}?" if close else ""
            raise InputError(f"a {kind!r} model has no option {name}{meant}")


def _check_lacked(path, said):
    """InputError for an option that a model of this Keras does not have."""
    lacked = sorted(
        n for n in backend.LACKED_OPTIONS if said.get(n) not in (None, False)
    )
    if lacked:
        raise InputError(
            f"{path}: {', '.join(lacked)}: an option of {backend.ELSEWHERE}"
        )


def _of_one_name(where, given) -> dict:
    """The settings under bert4keras' names; InputError if two names disagree."""
    said = {}
    for name, value in given.items():
        own = SYNONYMS.get(name, name)
        if said.get(own, value) not in (value, None) and value is not None:
            names = [n for n in given if SYNONYMS.get(n, n) == own]
            raise InputError(
                f"{where}: {' and '.join(names)} are one setting: expected one value, "
                f"found {said[own]!r} and {value!r}"
            )
        if value is not None or own not in said:
            said[own] = value
    return said


def _check_type(kind, path, model_type):
    """InputError if ``model_type`` of Hugging Face is that of another kind."""
    if model_type is None:
        return
    is_known = isinstance(model_type, str) and model_type in MODEL_TYPES
    kinds = MODEL_TYPES[model_type].kinds if is_known else ()
    if kind.removesuffix("_encoder").removesuffix("_decoder") not in kinds:
        mend = f"build it with model={kinds[0]!r}" if kinds else "tiedbert lacks it"
        raise InputError(
            f"{path}: model_type is {model_type!r}, the model to build is a {kind!r}: "
            f"{mend} (the option model_type overrules the file)"
        )


def _check_leaky(path, said):
    """InputError for an activation that the libraries mean differently."""
    if said.get("model_type") is not None and said.get("hidden_act") == "leaky_relu":
        raise InputError(
            f"{path}: hidden_act is 'leaky_relu', of another slope in Hugging Face "
            "(0.01) than in bert4keras (0.2): not read from a file that has model_type"
        )


def _check_allowed(kind, path, name, value, allowed):
    if value is None or value in allowed:
        return
    expected = " or ".join(map(repr, allowed)) or "none"
    raise InputError(
        f"{path}: {name} is {value!r}: a {kind!r} model of tiedbert has {expected} "
        f"(if this does not matter to you, the option {name} overrules the file)"
    )


def _warn_of_others(kind, path, names):
    unknown = [
        name
        for name in sorted(names - _WITHOUT_EFFECT)
        if not name.startswith(_PREFIXES_WITHOUT_EFFECT)
    ]
    if unknown:
        warnings.warn(
            f"{path}: {', '.join(unknown)}: no setting of a {kind!r} model of "
            "tiedbert: ignored",
            UserWarning,
            stacklevel=4,
        )
