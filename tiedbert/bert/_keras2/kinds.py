"""The kinds of model that bert4keras builds, with their defects corrected.

The classes here initialize each kernel separately, obey settings that bert4keras drops,
and use layers that a file can hold without code.
"""

import functools
from typing import Any

from bert4keras import models
from bert4keras.layers import (
    Embedding,
    Lambda,
    LayerNormalization,
    PositionEmbedding,
)
from tensorflow import keras

from tiedbert.bert._keras2.electra import Electra, ElectraGenerator
from tiedbert.bert._keras2.layers import (
    CheckedPositionEmbedding,
    ConfiguredNormalization,
    PaddedEmbedding,
)
from tiedbert.bert.first_token import FirstToken
from tiedbert.bert.initializers import DeepTruncatedNormal, FreshTruncatedNormal

_T5 = {
    "": models.T5,
    "_encoder": models.T5_Encoder,
    "_decoder": models.T5_Decoder,
}
KINDS = {
    "bert": models.BERT,
    "roberta": models.BERT,
    "albert": models.ALBERT,
    "albert_unshared": models.ALBERT_Unshared,
    "nezha": models.NEZHA,
    "roformer": models.RoFormer,
    "roformer_v2": models.RoFormerV2,
    "electra": Electra,
    "electra_generator": ElectraGenerator,
    "gpt": models.GPT,
    "gpt2": models.GPT2,
    "gpt2_ml": models.GPT2_ML,
    **{
        version + part: transformer
        for version in ("t5", "t5.1.0", "t5.1.1", "mt5.1.1")
        for part, transformer in _T5.items()
    },
}


class _Corrected(models.Transformer):
    """Corrects a bert4keras class: its initializer, and settings that it drops.

    Args:
        initializer_range: standard deviation of the first weights.
        layer_norm_eps: epsilon of all norms; None for the values of bert4keras: 1e-12
            in BERT and the heads, 1e-7 in the blocks of ALBERT, NEZHA and RoFormer.
        pad_token_id: the id of padding.
        *args, **kwargs: bert4keras' options.
    """

    def __init__(
        self,
        *args: Any,
        initializer_range: float = 0.02,
        layer_norm_eps: float | None = None,
        pad_token_id: int = 0,
        **kwargs: Any,
    ) -> None:
        self._initializer_range = initializer_range
        self._layer_norm_eps = layer_norm_eps
        self._pad_token_id = pad_token_id
        super().__init__(*args, **kwargs)

    @property
    def title(self) -> str:
        """The kind as its authors write it, for messages."""
        return type(self).__name__

    @property
    def initializer(self) -> keras.initializers.Initializer:
        return FreshTruncatedNormal(self._initializer_range)

    def apply(
        self,
        inputs: Any = None,
        layer: type | None = None,
        arguments: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Make and call a layer, as bert4keras does; some are replaced by ours."""
        if layer is LayerNormalization and self._layer_norm_eps is not None:
            layer, kwargs["epsilon"] = ConfiguredNormalization, self._layer_norm_eps
        elif layer is PositionEmbedding:
            layer = CheckedPositionEmbedding
        elif layer is Embedding and kwargs.get("mask_zero") and self._pad_token_id:
            layer, kwargs["pad_id"] = PaddedEmbedding, self._pad_token_id
        elif layer is Lambda and kwargs["name"] == "Pooler":
            layer = FirstToken  # a Lambda would need code in a file
            del kwargs["function"]
        return super().apply(inputs, layer, arguments, **kwargs)


class _CorrectedDeep(_Corrected):
    """The same for RoFormer v2, with an initializer that can be saved."""

    @property
    def initializer(self) -> keras.initializers.Initializer:
        return DeepTruncatedNormal(self.num_hidden_layers)


class _CorrectedT5(_Corrected):
    """The same for T5, which consists of an encoder and a decoder."""

    def __init__(self, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        kwargs["layers"] = self.layers
        prefix = "" if name is None else f"{name}_"
        self._encoder = _corrected(models.T5_Encoder)(name=f"{prefix}Encoder", **kwargs)
        self._decoder = _corrected(models.T5_Decoder)(name=f"{prefix}Decoder", **kwargs)


def build(name: str, application: str, settings: dict[str, Any]) -> models.Transformer:
    """The model of a kind.

    Args:
        name: a key of :data:`KINDS`.
        application: ``"encoder"``, ``"lm"`` or ``"unilm"``.
        settings: bert4keras' options, and those of the corrected classes.

    Returns:
        bert4keras' description, with the `keras.Model` as its attribute `model`.
    """
    transformer = models.build_transformer_model(
        model=_corrected(KINDS[name]),
        application=application,
        return_keras_model=False,
        **_version_of(name),
        **settings,
    )
    for layer in transformer.model.layers:
        if layer.name.endswith("Embedding-Token"):
            layer.kind = name  # see kind_of
    return transformer


def namesake(name: str, blocks: int, **options: Any) -> models.Transformer:
    """The description of a kind without a model: it knows the names in checkpoints.

    Args:
        name: a key of :data:`KINDS`.
        blocks: number of blocks.
        **options: of bert4keras, which it applies to the variables that it reads.
    """
    sizes = {
        "vocab_size": 1,
        "hidden_size": 1,
        "num_hidden_layers": blocks,
        "num_attention_heads": 1,
        "intermediate_size": 1,
        "hidden_act": "gelu",
        "max_position": 1,
    }
    return _corrected(KINDS[name])(**{**sizes, **_version_of(name), **options})


def _version_of(name):
    """The option that bert4keras needs for the later versions of T5."""
    return {"version": name.split("_")[0]} if "t5.1.1" in name else {}


_CORRECTIONS = {models.RoFormerV2: _CorrectedDeep, models.T5: _CorrectedT5}


@functools.cache
def _corrected(transformer: type) -> type:
    correction = _CORRECTIONS.get(transformer, _Corrected)
    return type(transformer.__name__, (correction, transformer), {})
