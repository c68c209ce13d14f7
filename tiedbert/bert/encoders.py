"""Encoders: the models to which a head can be added."""

from typing import Any

from tensorflow import keras

from tiedbert import _keras
from tiedbert.bert.backend import FeedForward
from tiedbert.bert.early_gather import last_attention
from tiedbert.bert.initializers import FreshTruncatedNormal
from tiedbert.errors import InputError
from tiedbert.surgery.graph import Graph

# Layers of the heads that bert4keras and tiedbert add to an encoder.
_OF_HEADS = {
    *("MLM-Dense", "MLM-Norm", "MLM-Bias", "MLM-Activation", "MLM-Gather"),
    *("Output-MLM", "Output-MLM-Activation", "NSP-Proba", "LM-Activation"),
    *("Discriminator-Dense", "Discriminator-Prediction", "Classifier"),
}
_POOLER = "Pooler-Dense"


def check_encoder(bert, asked, pooled=False):
    """InputError if a model is no encoder of bert4keras' layers.

    Args:
        bert: the model.
        asked: name of the function that was called, for the message.
        pooled: whether it may have a pooler, ``[batch, width]``.
    """
    attention = last_attention(Graph(bert))
    if attention is None:
        raise InputError(
            f"{asked} expected an encoder of bert4keras' layers, received model "
            f"{bert.name!r}"
        )
    width = attention.layer.out_dim
    shapes = [tuple(tensor.shape) for tensor in bert.outputs]
    heads = sorted(_OF_HEADS & {layer.name for layer in bert.layers})
    if pooled and has_pooler(bert) and not heads:
        return
    if len(shapes) != 1 or len(shapes[0]) != 3 or shapes[0][2] != width or heads:
        has = f" and has {', '.join(heads)}" if heads else ""
        raise InputError(
            f"{asked} expected an encoder without a head, which gives hidden states "
            f"{(None, None, width)}; model {bert.name!r} gives "
            f"{', '.join(map(str, shapes))}{has}"
        )


def has_pooler(bert) -> bool:
    """Whether the only output is that of a pooler (bert4keras' ``with_pool``)."""
    return (
        len(bert.outputs) == 1
        and len(bert.outputs[0].shape) == 2
        and _keras.maker(bert.outputs[0]).name == _POOLER
    )


def feed_forward_of(bert: keras.Model) -> Any:
    """The feed-forward layer of the last block."""
    return [layer for layer in bert.layers if isinstance(layer, FeedForward)][-1]


def initializer_of(bert: keras.Model) -> keras.initializers.Initializer:
    """The initializer of the kernels of `bert`, for layers added to it."""
    initializer = feed_forward_of(bert).kernel_initializer
    stddev = getattr(initializer, "stddev", None)
    return initializer if stddev is None else FreshTruncatedNormal(stddev)
