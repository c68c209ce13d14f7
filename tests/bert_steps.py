"""The layers of our own BERTs as steps of random models, in Keras 3."""

from tiedbert.bert._keras3.attention import MultiHeadAttention
from tiedbert.bert._keras3.attention_probabilities import AttentionProbabilities
from tiedbert.bert._keras3.biases import CausalBias
from tiedbert.bert._keras3.embeddings import (
    AddSegments,
    PositionEmbedding,
    RelativePositions,
    RotaryPositions,
    TokenEmbedding,
)
from tiedbert.bert._keras3.feed_forward import FeedForward
from tiedbert.bert._keras3.normalization import LayerNormalization

SIZE = 2  # of a head


def attention(name, x, y, width, **extras):
    """The queries of `x` look at `y`."""
    probabilities = AttentionProbabilities(
        2, SIZE, extras=list(extras), name=f"{name}-Probabilities"
    )([x, y, *extras.values()])
    relative = [tensor for kind, tensor in extras.items() if kind == "relative"]
    return MultiHeadAttention(2, SIZE, width, relative=bool(relative), name=name)(
        [x, y, probabilities, *relative]
    )


def of_width(width, time, words):
    """kind -> function of (the tensors so far, name for the layer, two sequences)."""
    return {
        "bert_attention": lambda t, name, x, y: attention(name, x, y, width),
        "bert_causal": lambda t, name, x, y: attention(
            name, x, y, width, bias=CausalBias(name=f"{name}_bias")(t.tokens)
        ),
        "bert_relative": lambda t, name, x, y: attention(
            name, x, x, width, relative=RelativePositions(SIZE, name=f"{name}_r")(x)
        ),
        "bert_rotary": lambda t, name, x, y: attention(
            name, x, x, width, rotary=RotaryPositions(SIZE, name=f"{name}_r")(x)
        ),
        "bert_tokens": lambda t, name, x, y: TokenEmbedding(words, width, name=name)(
            t.tokens
        ),
        "bert_segments": lambda t, name, x, y: AddSegments(name=name)([x, y]),
        "bert_positions": lambda t, name, x, y: PositionEmbedding(
            2 * time, width, embeddings_initializer="uniform", name=name
        )(x),
        "bert_feed_forward": lambda t, name, x, y: FeedForward(5, "gelu", name=name)(x),
        "bert_norm": lambda t, name, x, y: LayerNormalization(name=name)(x),
    }
