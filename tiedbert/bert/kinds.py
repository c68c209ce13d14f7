"""The kinds of model that bert4keras builds, with weights that start apart."""

import functools

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
    """Truncated normal that draws anew at each call.

    bert4keras gives one initializer object to the query, key, value and output
    kernels of a layer, and tf_keras draws the same values from the same object: all
    four would start identical, and so would every pair of feed-forward kernels.
    """

    def __init__(self, stddev=0.02):
        self.stddev = stddev

    def __call__(self, shape, dtype=None, **kwargs):
        """Draw with an initializer of this call's own."""
        fresh = keras.initializers.TruncatedNormal(stddev=self.stddev)
        return fresh(shape, dtype=dtype, **kwargs)

    def get_config(self):
        """The standard deviation."""
        return {"stddev": self.stddev}


@keras.utils.register_keras_serializable("tiedbert")
class DeepTruncatedNormal(keras.initializers.Initializer):
    """The initializer of RoFormer v2, of less spread the more blocks there are.

    bert4keras has it as a method of the model, which no file can hold.

    Source: `RoFormerV2.initializer` of bert4keras.
    """

    def __init__(self, num_hidden_layers):
        self.num_hidden_layers = num_hidden_layers

    def __call__(self, shape, dtype=None, **kwargs):
        """Draw anew; a table is told from a kernel by its length."""
        width = shape[0] if 10 <= shape[0] <= 10_000 else shape[1]
        stddev = 1.13684723 / (width * self.num_hidden_layers) ** 0.5
        return FreshTruncatedNormal(stddev)(shape, dtype=dtype, **kwargs)

    def get_config(self):
        """The number of blocks."""
        return {"num_hidden_layers": self.num_hidden_layers}


class _Cured:
    """Gives a bert4keras class its initializer, and obeys settings that it drops.

    Args:
        initializer_range: standard deviation of the first weights.
        layer_norm_eps: epsilon of all norms; None for bert4keras' own: 1e-12 in BERT
            and the heads, Keras' 1e-7 in the blocks of ALBERT, NEZHA and RoFormer.
        pad_token_id: the token that is padding.
        *args, **kwargs: bert4keras' options.
    """

    def __init__(
        self,
        *args,
        initializer_range=0.02,
        layer_norm_eps=None,
        pad_token_id=0,
        **kwargs,
    ):
        self._initializer_range = initializer_range
        self._layer_norm_eps = layer_norm_eps
        self._pad_token_id = pad_token_id
        super().__init__(*args, **kwargs)

    @property
    def initializer(self):
        return FreshTruncatedNormal(self._initializer_range)

    def apply(self, inputs=None, layer=None, arguments=None, **kwargs):
        """bert4keras' way to make and call every layer, with ours among them."""
        if layer is LayerNormalization and self._layer_norm_eps is not None:
            layer, kwargs["epsilon"] = ConfiguredNormalization, self._layer_norm_eps
        elif layer is PositionEmbedding:
            layer = CheckedPositionEmbedding
        elif layer is Embedding and kwargs.get("mask_zero") and self._pad_token_id:
            layer, kwargs["pad_id"] = PaddedEmbedding, self._pad_token_id
        elif layer is Lambda and kwargs["name"] == "Pooler":
            layer = FirstToken  # a file can hold it without code
            del kwargs["function"]
        return super().apply(inputs, layer, arguments, **kwargs)


class _CuredDeep(_Cured):
    """The same for RoFormer v2, with an initializer that can be saved."""

    @property
    def initializer(self):
        return DeepTruncatedNormal(self.num_hidden_layers)


class _CuredHalves(_Cured):
    """The same for T5, which makes an encoder and a decoder by itself."""

    def __init__(self, name=None, **kwargs):
        super().__init__(name=name, **kwargs)
        kwargs["layers"] = self.layers
        prefix = "" if name is None else f"{name}_"
        self._encoder = _cured(models.T5_Encoder)(name=f"{prefix}Encoder", **kwargs)
        self._decoder = _cured(models.T5_Decoder)(name=f"{prefix}Decoder", **kwargs)


def kind(name):
    """The bert4keras class for `name`, with the initializer trap cured."""
    transformer = KINDS.get(name.lower())
    if transformer is None:
        raise InputError(
            f"no model kind {name!r}: expected one of {', '.join(sorted(KINDS))}"
        )
    return _cured(transformer)


def version_of(name) -> dict:
    """The option by which bert4keras tells the later T5s from the first."""
    name = name.lower()
    return {"version": name.split("_")[0]} if "t5.1.1" in name else {}


def feed_forward_of(bert):
    """The feed-forward layer of the last block."""
    return [layer for layer in bert.layers if isinstance(layer, FeedForward)][-1]


def initializer_of(bert):
    """The initializer of the kernels of `bert`, for what is put on top of it."""
    initializer = feed_forward_of(bert).kernel_initializer
    stddev = getattr(initializer, "stddev", None)
    return initializer if stddev is None else FreshTruncatedNormal(stddev)


_CURES = {models.RoFormerV2: _CuredDeep, models.T5: _CuredHalves}


@functools.cache
def _cured(transformer):
    cure = _CURES.get(transformer, _Cured)
    return type(transformer.__name__, (cure, transformer), {})
