"""The last block of a BERT computed at some positions only."""

from tensorflow import keras

from tiedbert import _keras
from tiedbert.bert.backend import FeedForward, LayerNormalization, MultiHeadAttention
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


def last_attention(graph):
    """The last call of a self-attention layer in a graph; None if there is none."""
    calls = [c for c in graph.calls if isinstance(c.layer, MultiHeadAttention)]
    return calls[-1] if calls else None


def last_block_at(bert, gather):
    """The output of `bert` at some positions, computed at these only.

    The last attention needs all positions as keys and values. Its queries, the
    residual, the feed-forward layer and the norms need only the positions asked for.
    The layers of `bert` are called again on these.

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
    _check_position_wise(graph, behind, hidden, attended)
    queries = gather(hidden)
    substitution = Substitution(
        [(hidden, queries), (attended, _attended(attention, queries, gather))]
    )
    replay(behind, substitution)
    return substitution.new[bert.output]


def _attended(attention, queries, gather):
    """The output of the attention for `queries`."""
    _, *keys_and_values = attention.inputs
    if len(keys_and_values) == 2 and len(attention.outputs) == 1:
        return attention.layer([queries, *keys_and_values])
    # Relative and rotary positions and biases of scores exist for every pair of
    # positions, and bert4keras' layer cannot select some of the queries.
    return gather(attention.outputs[0])


def _check_position_wise(graph, behind, hidden, attended):
    mixing = [c.layer.name for c in behind if not isinstance(c.layer, _POSITION_WISE)]
    others = [t for t in graph.context([attended], behind) if t is not hidden]
    mixing += [_keras.maker(tensor).name for tensor in others]
    if mixing:
        raise InputError(
            "early_gather expected position-wise layers behind the last attention of "
            f"model {graph.name!r}, of its output and its input alone; found "
            f"{', '.join(mixing)}"
        )
