"""The names of weights in Google's checkpoints, for all kinds but bert4keras' alone.

Source: the names are those of google-research/bert, albert and electra, and of the
checkpoints of NEZHA and RoFormer, which follow BERT; bert4keras 0.11.5 reads them.
RoBERTa and DistilBERT were never published so: their names are ours, BERT's with
another beginning, so that no BERT reads them.
"""

from tiedbert.errors import InputError

# Stored as Google's BERT multiplies by it, transposed.
TRANSPOSED = "cls/seq_relationship/output_weights"
# Variables with a row for each token end so.
OF_TOKENS = ("word_embeddings", "predictions/output_bias")

_DENSE = ("kernel", "bias")
_NORM = ("beta", "gamma")  # bert4keras' order

# Layer -> (path in the checkpoint, its weights).
_OUTSIDE = {
    "Embedding-Token": ("bert/embeddings/word_embeddings", ()),
    "Embedding-Segment": ("bert/embeddings/token_type_embeddings", ()),
    "Embedding-Position": ("bert/embeddings/position_embeddings", ()),
    "Embedding-Norm": ("bert/embeddings/LayerNorm", _NORM),
    "Embedding-Mapping": ("bert/encoder/embedding_hidden_mapping_in", _DENSE),
    "Pooler-Dense": ("bert/pooler/dense", _DENSE),
    "MLM-Dense": ("cls/predictions/transform/dense", _DENSE),
    "MLM-Norm": ("cls/predictions/transform/LayerNorm", _NORM),
}
_NSP = [TRANSPOSED, "cls/seq_relationship/output_bias"]
_HEAD_BIAS = "cls/predictions/output_bias"

# Part of a block -> paths within the block, of BERT and of ALBERT.
_BERT_BLOCK = {
    "MultiHeadSelfAttention": (
        ("attention/self/query", _DENSE),
        ("attention/self/key", _DENSE),
        ("attention/self/value", _DENSE),
        ("attention/output/dense", _DENSE),
    ),
    "MultiHeadSelfAttention-Norm": (("attention/output/LayerNorm", _NORM),),
    "FeedForward": (("intermediate/dense", _DENSE), ("output/dense", _DENSE)),
    "FeedForward-Norm": (("output/LayerNorm", _NORM),),
}
_ALBERT_BLOCK = {
    "MultiHeadSelfAttention": (
        ("attention_1/self/query", _DENSE),
        ("attention_1/self/key", _DENSE),
        ("attention_1/self/value", _DENSE),
        ("attention_1/output/dense", _DENSE),
    ),
    "MultiHeadSelfAttention-Norm": (("LayerNorm", _NORM),),
    "FeedForward": (
        ("ffn_1/intermediate/dense", _DENSE),
        ("ffn_1/intermediate/output/dense", _DENSE),
    ),
    "FeedForward-Norm": (("LayerNorm_1", _NORM),),
}
_ALBERT_GROUP = "bert/encoder/transformer/group_{}/inner_group_0"


def google_names(kind: str, blocks: int) -> dict[str, list[str]]:
    """Layer -> the names of its weights, in the layer's order.

    Args:
        kind: a kind of Keras 3.
        blocks: number of blocks.

    Raises:
        InputError: a kind of Keras 3 alone, which Google's format does not have.
    """
    if kind == "modernbert":
        raise InputError(
            "a 'modernbert' model has no checkpoint in Google's format: expected the "
            "weights as safetensors"
        )
    names = {layer: _names(path, parts) for layer, (path, parts) in _OUTSIDE.items()}
    names |= {"NSP-Proba": list(_NSP), "MLM-Bias": [_HEAD_BIAS]}
    for index in range(blocks):
        names |= _block_names(kind, index)
    if kind == "albert":
        names |= _block(_ALBERT_BLOCK, "Transformer", _ALBERT_GROUP.format(0))
    if kind == "roformer_v2":
        names = {layer: _without_biases(found) for layer, found in names.items()}
    if kind in _BEGINNINGS:
        return _beginning(names, _BEGINNINGS[kind])
    return _of_electra(kind, names) if kind.startswith("electra") else names


def _names(path, parts):
    return [f"{path}/{part}" for part in parts] or [path]


def _block_names(kind, index):
    layer = f"Transformer-{index}"
    if kind.startswith("albert"):
        # Unshared blocks all start from the one that is there.
        group = 0 if kind == "albert_unshared" else index
        return _block(_ALBERT_BLOCK, layer, _ALBERT_GROUP.format(group))
    return _block(_BERT_BLOCK, layer, f"bert/encoder/layer_{index}")


def _block(parts, layer, prefix):
    return {
        f"{layer}-{part}": [
            name
            for path, weights in found
            for name in _names(f"{prefix}/{path}", weights)
        ]
        for part, found in parts.items()
    }


def _without_biases(names):
    """RoFormer v2 has neither biases nor weights of norms."""
    return [
        n for n in names if not any(part in n for part in ("beta", "gamma", "bias"))
    ]


_ELECTRA_HEADS = {
    "Embedding-Mapping": ("electra/embeddings_project", _DENSE),
    "Discriminator-Dense": ("discriminator_predictions/dense", _DENSE),
    "Discriminator-Prediction": ("discriminator_predictions/dense_1", _DENSE),
    "MLM-Dense": ("generator_predictions/dense", _DENSE),
    "MLM-Norm": ("generator_predictions/LayerNorm", _NORM),
}


_BEGINNINGS = {"hf_roberta": "roberta/", "distilbert": "distilbert/"}


def _beginning(names, other):
    """The names with another beginning than BERT's."""
    return {k: [n.replace("bert/", other, 1) for n in v] for k, v in names.items()}


def _of_electra(kind, names):
    """ELECTRA's names; its generator shares the embeddings with the discriminator."""
    names = _beginning(names, "electra/")
    names |= {layer: _names(*found) for layer, found in _ELECTRA_HEADS.items()}
    names["MLM-Bias"] = ["generator_predictions/output_bias"]
    if kind == "electra":
        return names
    own = "electra/encoder/", "electra/embeddings_project/"
    return {
        layer: [
            n.replace("electra/", "generator/", 1) if n.startswith(own) else n
            for n in found
        ]
        for layer, found in names.items()
    }
