"""The last block of a BERT computed at some positions only."""

from tensorflow import keras

from tiedbert import _keras
from tiedbert.bert.backend import (
    FeedForward,
    LayerNormalization,
    MultiHeadAttention,
    attended_by,
)
from tiedbert.errors import InputError
from tiedbert.surgery.graph import Graph
from tiedbert.surgery.replay import Substitution, replay

# Their output at a position depends on their input at this position alone.
_POSITION_WISE = (
    FeedForward,
    LayerNormalization,
    keras.layers.Add,
    keras.layers.Dropout,
)


def attentions_of(graph):
    """The calls of self-attention layers in a graph, in their order."""
    return [c for c in graph.calls if isinstance(c.layer, MultiHeadAttention)]


def last_attention(graph):
    """The last call of a self-attention layer in a graph; None if there is none."""
    return next(reversed(attentions_of(graph)), None)


def last_block_at(bert, gather):
    """The output of `bert` at some positions, computed at these only.

    The last attention needs all positions as keys and values. Its queries, the
    residual, the feed-forward layer and the norms need only the positions asked for.
    The layers of `bert` are called again on these. The residual is what the attention
    reads, or what a norm before the attention reads.

    Args:
        bert: an encoder of bert4keras' layers.
        gather: function ``[batch, time, width]`` -> ``[batch, n, width]``.

    Returns:
        The symbolic tensor ``[batch, n, width]`` that is ``gather(bert.output)``.

    Raises:
        InputError: a layer behind the last attention mixes positions.
    """
    graph = Graph(bert)
    attention = last_attention(graph)
    hidden, attended = attention.inputs[0], attention.outputs[0]
    behind = graph.downstream([attended])
    residual = _residual(graph, behind, hidden, attended)
    queries = gather(hidden)
    found = attended_by(graph, attention, queries)
    if found is None:  # relative positions and biases of scores exist for every pair
        found = gather(attended)
    kept = queries if residual is hidden else gather(residual)
    substitution = Substitution([(residual, kept), (attended, found)])
    replay(behind, substitution)
    return substitution.new[bert.output]


def _residual(graph, behind, hidden, attended):
    """What is added to the output of the last attention; InputError for a mixture."""
    maker = graph.producers.get(hidden)
    before = maker and isinstance(maker.layer, LayerNormalization) and maker.inputs[0]
    context = graph.context([attended], behind)
    residual = before if any(tensor is before for tensor in context) else hidden
    mixing = [c.layer.name for c in behind if not isinstance(c.layer, _POSITION_WISE)]
    others = [tensor for tensor in context if tensor is not residual]
    mixing += [_keras.maker(tensor).name for tensor in others]
    if mixing:
        raise InputError(
            "early_gather expected position-wise layers behind the last attention of "
            f"model {graph.name!r}, of its output and its input alone; found "
            f"{', '.join(mixing)}"
        )
    return residual
