"""The kinds of model that bert4keras builds, with weights that start apart."""

import functools

from bert4keras import models
from bert4keras.layers import FeedForward
from tensorflow import keras

from tiedbert.bert.electra import Electra, ElectraGenerator
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


class _DeepInitializers:
    """Gives RoFormer v2 an initializer that can be saved."""

    @property
    def initializer(self):
        return DeepTruncatedNormal(self.num_hidden_layers)


class _FreshInitializers:
    """Gives a bert4keras class its initializer, and heed to ``initializer_range``."""

    def __init__(self, *args, initializer_range=0.02, **kwargs):
        self._initializer_range = initializer_range
        super().__init__(*args, **kwargs)

    @property
    def initializer(self):
        return FreshTruncatedNormal(self._initializer_range)


class _FreshHalves(_FreshInitializers):
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


_CURES = {models.RoFormerV2: _DeepInitializers, models.T5: _FreshHalves}


@functools.cache
def _cured(transformer):
    cure = _CURES.get(transformer, _FreshInitializers)
    return type(transformer.__name__, (cure, transformer), {})
