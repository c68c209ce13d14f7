"""Every kind of model that bert4keras builds, tiny, with its heads and options."""

import numpy as np
import tensorflow as tf
from bert_samples import CONFIG, SEGMENTS, TOKENS, scramble, write_config
from generation import IS_LEGACY

HEADS = {
    "": {},
    "-pool": {"with_pool": True},
    "-nsp": {"with_nsp": True},
    "-mlm": {"with_mlm": True},
    "-mlm-nsp": {"with_mlm": True, "with_nsp": True},
    "-lm": {"application": "lm"},
    "-unilm": {"application": "unilm"},
}
# Each option makes a tensor of the graph that no other model here has.
OPTIONS = {
    "bert-narrow_embedding": {"embedding_size": 8, "with_mlm": True},
    "bert-residual_scores": {"residual_attention_scores": True},
    "bert-position_ids": {"custom_position_ids": True},
    "bert-hierarchical_positions": {"hierarchical_position": True},
    "bert-segments_in_table": {"shared_segment_embeddings": True},
    "bert-fixed_length": {"sequence_length": TOKENS.shape[1]},
    "albert-narrow_embedding": {"embedding_size": 8, "with_mlm": True},
    "electra-discriminator": {"with_discriminator": True, "embedding_size": 8},
    "gpt-unilm": {"application": "unilm"},
    "t5_decoder-states": {"with_lm": False},
}
BERT_LIKE = ["bert", "roberta", "albert", "albert_unshared", "nezha", "roformer"]
OTHERS = ["electra", "gpt", "gpt2", "gpt2_ml"]
T5 = [
    version + part
    for version in ("t5", "t5.1.1", "mt5.1.1")
    for part in ("", "_encoder", "_decoder")
]
MODELS = {
    **{kind + head: options for kind in BERT_LIKE for head, options in HEADS.items()},
    **{f"roformer_v2{head}": HEADS[head] for head in ("", "-mlm", "-lm", "-unilm")},
    **{kind: {} for kind in OTHERS + T5},
    **OPTIONS,
}
DECODER_TOKENS = np.array([[4, 5, 6, 0, 0], [7, 8, 9, 3, 11]], np.int32)


# Under Keras 3: all but what bert4keras alone has.
OF_BOTH = [
    name
    for name in MODELS
    if not name.startswith(("gpt", "t5", "mt5"))
    and name not in ("bert-residual_scores", "bert-segments_in_table")
]
# Of Keras 3 alone; the second block of a ModernBERT is local.
_MODERN = {"pad_token_id": 0, "local_attention": 4}
OF_KERAS_3 = {
    "hf_roberta": {"pad_token_id": 0},
    "hf_roberta-mlm": {"pad_token_id": 0, "with_mlm": True, "segment_vocab_size": 1},
    "distilbert": {},
    "modernbert": _MODERN,
    "modernbert-mlm": {**_MODERN, "with_mlm": True},
}
HERE = list(MODELS) if IS_LEGACY else [*OF_BOTH, *OF_KERAS_3]
DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}


def options_of(name):
    """The options of a model, and its kind."""
    options, kind = {**MODELS, **OF_KERAS_3}[name], name.split("-")[0]
    options = dict(options)
    if kind == "roberta" and options.get("application") != "unilm":
        options["segment_vocab_size"] = 0  # as it was published
    return options, kind


def build(name, folder):
    """The model of this name with two blocks, dropout, and weights of its own."""
    from tiedbert.bert import build_bert

    options, kind = options_of(name)
    config = write_config(folder, num_hidden_layers=2, **DROPOUT)
    return scramble(build_bert(config, model=kind, **options))


def inputs_of(model):
    """Two texts, one of them padded, for whatever inputs `model` has."""
    draw = np.random.default_rng(2)
    context = draw.normal(size=(*TOKENS.shape, CONFIG["hidden_size"]))
    known = {
        "Input-Segment": SEGMENTS,
        "Input-Position": draw.integers(0, 20, TOKENS.shape),
        "Input-Context": context,
        "Decoder-Input-Token": DECODER_TOKENS,
    }
    return [tf.cast(known.get(t.name, TOKENS), t.dtype) for t in model.inputs]
