"""The kinds of model that bert4keras builds, with their defects corrected.

The classes here initialize each kernel separately, obey settings that bert4keras drops,
and use layers that a file can hold without code.
"""

import functools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from bert4keras import models
from bert4keras.layers import (
    Embedding,
    FeedForward,
    Lambda,
    LayerNormalization,
    PositionEmbedding,
)
from tensorflow import keras

from tiedbert.bert.electra import Electra, ElectraGenerator
from tiedbert.bert.layers import (
    CheckedPositionEmbedding,
    ConfiguredNormalization,
    FirstToken,
    PaddedEmbedding,
)
from tiedbert.errors import InputError

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


@keras.utils.register_keras_serializable("tiedbert")
class FreshTruncatedNormal(keras.initializers.Initializer):
    """Truncated normal that draws new values at each call.

    bert4keras passes one initializer object to the query, key, value and output kernels
    of a layer, and tf_keras draws the same values from the same object: all four
    kernels, and each pair of feed-forward kernels, would start identical.
    """

    def __init__(self, stddev: float = 0.02) -> None:
        self.stddev = stddev

    def __call__(
        self, shape: Sequence[int], dtype: Any = None, **kwargs: Any
    ) -> tf.Tensor:
        """Draw with a new initializer."""
        fresh = keras.initializers.TruncatedNormal(stddev=self.stddev)
        return fresh(shape, dtype=dtype, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """The standard deviation."""
        return {"stddev": self.stddev}


@keras.utils.register_keras_serializable("tiedbert")
class DeepTruncatedNormal(keras.initializers.Initializer):
    """The initializer of RoFormer v2: the more blocks, the smaller the deviation.

    In bert4keras it is a method of the model, which cannot be saved in a file.

    Source: `RoFormerV2.initializer` of bert4keras.
    """

    def __init__(self, num_hidden_layers: int) -> None:
        self.num_hidden_layers = num_hidden_layers

    def __call__(
        self, shape: Sequence[int], dtype: Any = None, **kwargs: Any
    ) -> tf.Tensor:
        """Draw new values; a table is recognized by its length, as in bert4keras."""
        width = shape[0] if 10 <= shape[0] <= 10_000 else shape[1]
        stddev = 1.13684723 / (width * self.num_hidden_layers) ** 0.5
        return FreshTruncatedNormal(stddev)(shape, dtype=dtype, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """The number of blocks."""
        return {"num_hidden_layers": self.num_hidden_layers}


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


def kind(name: str) -> type:
    """The corrected bert4keras class for `name`; InputError if there is none."""
    transformer = KINDS.get(name.lower())
    if transformer is None:
        raise InputError(
            f"no model kind {name!r}: expected one of {', '.join(sorted(KINDS))}"
        )
    return _corrected(transformer)


def version_of(name: str) -> dict[str, str]:
    """The option that bert4keras needs for the later versions of T5."""
    name = name.lower()
    return {"version": name.split("_")[0]} if "t5.1.1" in name else {}


def feed_forward_of(bert: keras.Model) -> FeedForward:
    """The feed-forward layer of the last block."""
    return [layer for layer in bert.layers if isinstance(layer, FeedForward)][-1]


def initializer_of(bert: keras.Model) -> keras.initializers.Initializer:
    """The initializer of the kernels of `bert`, for layers added to it."""
    initializer = feed_forward_of(bert).kernel_initializer
    stddev = getattr(initializer, "stddev", None)
    return initializer if stddev is None else FreshTruncatedNormal(stddev)


_CORRECTIONS = {models.RoFormerV2: _CorrectedDeep, models.T5: _CorrectedT5}


@functools.cache
def _corrected(transformer: type) -> type:
    correction = _CORRECTIONS.get(transformer, _Corrected)
    return type(transformer.__name__, (correction, transformer), {})
