"""The names of tensors in Hugging Face's files, a table for each kind.

Source: transformers 5.23, ``models/*/modeling_*.py``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tiedbert.errors import InputError

# A layer of ours -> its module of theirs; several where a layer has several.
Modules = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Format:
    """How Hugging Face has a kind.

    Attributes:
        model_type: in config.json.
        title: what the names of its classes begin with.
        prefix: what the names of the encoder's tensors begin with.
        embeddings: layers of the encoder outside of its blocks -> modules.
        block: the module of a block, with a place for its number.
        parts: parts of a block -> modules.
        heads: layers of heads -> modules. That of ``MLM-Bias`` is the bias itself.
        decoder: the module of the tied product, which repeats table and bias.
        of_texts: layers of a classifier of texts, where they differ from `heads`.
        endings: of the names of its classes, beside those that every kind has.
        other_prefixes: prefixes of other types of the same architecture.
        without_weights: tensors that hold no weights; transformers makes them anew.
    """

    model_type: str
    title: str
    prefix: str
    embeddings: Modules
    block: str
    parts: Modules
    heads: Modules
    decoder: str
    of_texts: Modules = field(default_factory=dict)
    endings: frozenset[str] = frozenset()
    other_prefixes: tuple[str, ...] = ()
    without_weights: tuple[str, ...] = (
        "embeddings.position_ids",
        "embeddings.token_type_ids",
    )

    def encoder_names(self, layer: str) -> list[str]:
        """The names of the weights of a layer of the encoder, in its own order."""
        match = re.fullmatch(r"Transformer(?:-(\d+))?-(.+)", layer)
        if match is None:
            return self._names(layer, self.embeddings.get(layer, ()))
        block = self.block.format(match[1] or 0)  # ALBERT's one block has no number
        modules = [f"{block}.{module}" for module in self.parts.get(match[2], ())]
        return self._names(layer, modules)

    def _names(self, layer, modules):
        return [self.prefix + name for name in _weights(layer, modules)]

    def head_names(self, layer: str, architecture: str) -> list[str]:
        """The names of the weights of a layer of a head, in its own order."""
        own = self.heads
        if architecture.endswith("ForSequenceClassification"):
            own = {**own, **self.of_texts}
        return _weights(layer, own.get(layer, ()))

    @property
    def bodies(self) -> tuple[str, ...]:
        """What the names of the tensors of an encoder begin with, poolers left out."""
        paths = [*(m for found in self.embeddings.values() for m in found), self.block]
        tops = dict.fromkeys(path.split(".")[0] for path in paths)
        return tuple(f"{self.prefix}{top}." for top in tops)


def _weights(layer, modules):
    if layer in ("Embedding-Token", "Embedding-Segment", "Embedding-Position"):
        parts = ["weight"]
    elif layer == "MLM-Bias":
        return list(modules)
    else:
        # bert4keras' order of a norm: beta, gamma.
        parts = ["bias", "weight"] if layer.endswith("-Norm") else ["weight", "bias"]
    return [f"{module}.{part}" for module in modules for part in parts]


_EMBEDDINGS = {
    "Embedding-Token": ("embeddings.word_embeddings",),
    "Embedding-Segment": ("embeddings.token_type_embeddings",),
    "Embedding-Position": ("embeddings.position_embeddings",),
    "Embedding-Norm": ("embeddings.LayerNorm",),
}
_BERT_PARTS = {
    "MultiHeadSelfAttention": (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
    ),
    "MultiHeadSelfAttention-Norm": ("attention.output.LayerNorm",),
    "FeedForward": ("intermediate.dense", "output.dense"),
    "FeedForward-Norm": ("output.LayerNorm",),
}
_BERT_MLM = {
    "MLM-Dense": ("cls.predictions.transform.dense",),
    "MLM-Norm": ("cls.predictions.transform.LayerNorm",),
    "MLM-Bias": ("cls.predictions.bias",),
}
_CLASSIFIER = {"Classifier": ("classifier",)}
# A classifier of texts with a dense layer of its own in place of the pooler.
_DENSE_CLASSIFIER = {
    "Pooler-Dense": ("classifier.dense",),
    "Classifier": ("classifier.out_proj",),
}

_BERT = Format(
    "bert",
    "Bert",
    "bert.",
    _EMBEDDINGS,
    "encoder.layer.{}",
    _BERT_PARTS,
    heads={
        "Pooler-Dense": ("bert.pooler.dense",),
        "NSP-Proba": ("cls.seq_relationship",),
        **_BERT_MLM,
        **_CLASSIFIER,
    },
    decoder="cls.predictions.decoder",
    endings=frozenset({"ForNextSentencePrediction", "ForPreTraining"}),
    other_prefixes=("ernie.",),
)
_ALBERT = Format(
    "albert",
    "Albert",
    "albert.",
    {**_EMBEDDINGS, "Embedding-Mapping": ("encoder.embedding_hidden_mapping_in",)},
    "encoder.albert_layer_groups.{}.albert_layers.0",
    {
        "MultiHeadSelfAttention": (
            "attention.query",
            "attention.key",
            "attention.value",
            "attention.dense",
        ),
        "MultiHeadSelfAttention-Norm": ("attention.LayerNorm",),
        "FeedForward": ("ffn", "ffn_output"),
        "FeedForward-Norm": ("full_layer_layer_norm",),
    },
    heads={
        "Pooler-Dense": ("albert.pooler",),
        "NSP-Proba": ("sop_classifier.classifier",),
        "MLM-Dense": ("predictions.dense",),
        "MLM-Norm": ("predictions.LayerNorm",),
        "MLM-Bias": ("predictions.bias",),
        **_CLASSIFIER,
    },
    decoder="predictions.decoder",
    endings=frozenset({"ForPreTraining"}),
)
_ELECTRA = Format(
    "electra",
    "Electra",
    "electra.",
    {**_EMBEDDINGS, "Embedding-Mapping": ("embeddings_project",)},
    "encoder.layer.{}",
    _BERT_PARTS,
    heads={
        "Discriminator-Dense": ("discriminator_predictions.dense",),
        "Discriminator-Prediction": ("discriminator_predictions.dense_prediction",),
        "MLM-Dense": ("generator_predictions.dense",),
        "MLM-Norm": ("generator_predictions.LayerNorm",),
        "MLM-Bias": ("generator_lm_head.bias",),
        **_CLASSIFIER,
    },
    decoder="generator_lm_head",
    of_texts=_DENSE_CLASSIFIER,
    endings=frozenset({"ForPreTraining"}),
)
_ROBERTA = Format(
    "roberta",
    "Roberta",
    "roberta.",
    _EMBEDDINGS,
    "encoder.layer.{}",
    _BERT_PARTS,
    heads={
        "Pooler-Dense": ("roberta.pooler.dense",),
        "MLM-Dense": ("lm_head.dense",),
        "MLM-Norm": ("lm_head.layer_norm",),
        "MLM-Bias": ("lm_head.bias",),
        **_CLASSIFIER,
    },
    decoder="lm_head.decoder",
    of_texts=_DENSE_CLASSIFIER,
)
_DISTILBERT = Format(
    "distilbert",
    "DistilBert",
    "distilbert.",
    {k: v for k, v in _EMBEDDINGS.items() if k != "Embedding-Segment"},
    "transformer.layer.{}",
    {
        "MultiHeadSelfAttention": (
            "attention.q_lin",
            "attention.k_lin",
            "attention.v_lin",
            "attention.out_lin",
        ),
        "MultiHeadSelfAttention-Norm": ("sa_layer_norm",),
        "FeedForward": ("ffn.lin1", "ffn.lin2"),
        "FeedForward-Norm": ("output_layer_norm",),
    },
    heads={
        "MLM-Dense": ("vocab_transform",),
        "MLM-Norm": ("vocab_layer_norm",),
        "MLM-Bias": ("vocab_projector.bias",),
        **_CLASSIFIER,
    },
    decoder="vocab_projector",
    of_texts={"Pooler-Dense": ("pre_classifier",)},
)
_ROFORMER = Format(
    "roformer",
    "RoFormer",
    "roformer.",
    {
        **{k: v for k, v in _EMBEDDINGS.items() if k != "Embedding-Position"},
        "Embedding-Mapping": ("embeddings_project",),
    },
    "encoder.layer.{}",
    _BERT_PARTS,
    heads={**_BERT_MLM, **_CLASSIFIER},
    decoder="cls.predictions.decoder",
    of_texts=_DENSE_CLASSIFIER,
    without_weights=("encoder.embed_positions.weight",),
)
_FORMATS = {
    "bert": _BERT,
    "roberta": _BERT,  # bert4keras' roberta is a BERT
    "albert": _ALBERT,
    # All its blocks are read from the one that is there.
    "albert_unshared": replace(_ALBERT, block=_ALBERT.block.format(0)),
    "electra": _ELECTRA,
    "electra_generator": _ELECTRA,
    "hf_roberta": _ROBERTA,
    "distilbert": _DISTILBERT,
    "roformer": _ROFORMER,
}


def format_of(kind: str) -> Format:
    """The format of a kind; InputError if Hugging Face's library does not have it."""
    if kind in _FORMATS:
        return _FORMATS[kind]
    raise InputError(
        f"Hugging Face's transformers has no {kind}: expected a model of "
        f"{', '.join(_FORMATS)}; a Google checkpoint holds a {kind}"
    )
