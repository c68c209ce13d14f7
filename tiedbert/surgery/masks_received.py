"""Which calls of a model receive an implicit mask with which tensor.

In Keras 2 a symbolic tensor tells. In Keras 3 what it tells is not what happens: a
nested model passes masks on that its symbolic output does not show, and
MultiHeadAttention takes the mask off its own input, so that what runs later receives
none. There the model runs once, on placeholders, and is watched.
"""

from tiedbert import _keras
from tiedbert.graph import Graph


def masks_received(graph) -> dict:
    """The masks that arrive when the model runs.

    Returns:
        dict, (id of a call, id of a tensor) -> rank of the mask that the call receives
        with the tensor; (None, id of a tensor) tells of the outputs of the model.
    """
    if _keras.LEGACY:
        return _told(graph)
    return _watched(graph) if has_masks(graph) else {}


def has_masks(graph) -> bool:
    """Whether a tensor of `graph`, or of a model nested in it, may have a mask."""
    return _keras.starts_masks(call.layer for call in graph.calls) or any(
        call.kwargs.get("mask") is not None
        or (_keras.has_graph(call.layer) and has_masks(Graph(call.layer)))
        for call in graph.calls
    )


def _told(graph):
    received = {}
    for reader, tensors in graph.readers():
        for tensor in tensors:
            mask = _keras.symbolic_mask(tensor)
            if mask is not None:
                received[reader, id(tensor)] = mask.shape.rank
    return received


def _watched(graph):
    received = {}
    values = {}

    def watch(reader, tensors):
        for tensor in tensors:
            mask = _keras.running_mask(values[id(tensor)])
            if mask is not None:
                received[reader, id(tensor)] = mask.shape.rank

    def value(leaf):
        return values[id(leaf)] if _keras.is_symbolic(leaf) else leaf

    def run(*inputs):
        values.update(_by_id(graph.input_tensors, inputs))
        for call in graph.calls:
            watch(id(call), call.inputs)
            args, kwargs = _keras.map_structure(value, (tuple(call.args), call.kwargs))
            values.update(
                _by_id(call.outputs, _keras.flatten(call.layer(*args, **kwargs)))
            )
        watch(None, graph.output_tensors)

    _keras.trace(run, graph.input_tensors)
    return received


def _by_id(old, new):
    return {id(tensor): value for tensor, value in zip(old, new, strict=True)}
