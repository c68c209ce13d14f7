"""Models in which the order of the calls does not decide who receives a mask.

MultiHeadAttention of Keras 3 takes the mask off its inputs while it runs, and a nested
model that is called with a mask puts that on its input. What reads the same tensor
receives another mask before such a call than after it. A part of the model, or an
edited one, may run its calls in another order.
"""

from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError
from tiedbert.explicit_mask import AttachMask, CopyMask, DropMask
from tiedbert.graph import Graph
from tiedbert.surgery.masks_received import (
    in_one_mode,
    mask_shapes,
    masks_received,
    watched,
)
from tiedbert.surgery.replay import outputs_of, replay


def settled(graph):
    """The same graph, each reader with the mask that the order of the calls gave it.

    A call that changes the mask of a tensor gets a copy of it, and what received no
    mask gets one without. Only where the order of two calls is open, and only in
    Keras 3; elsewhere it is `graph` itself.

    Returns:
        A :class:`Graph` that takes the tensors of the old one for cut points too.

    Raises:
        InputError: whether two tensors share a mask depends on `training`.
    """
    if _keras.LEGACY or not _may_depend_on_order(graph):
        return graph
    new = {}
    seen_by = _as_received(graph, watched(graph), new)
    if not seen_by:
        return graph
    replay(graph.calls, new, recorded_masks=True, seen_by=seen_by)
    outputs = outputs_of(graph, new, seen_by)
    model = keras.Model(graph.inputs, outputs, name=graph.name)
    _keras.name_outputs(model, graph.output_names)
    return Graph(model, stand_ins=new, kind=graph.kind, entering=graph.entering)


def settled_inside(graph, layer):
    """The settled graph of a nested model, which calls of `graph` call."""
    inner = Graph(layer)
    if _keras.LEGACY or not _depends_at_any_depth(inner):
        return inner
    received = masks_received(graph)
    entering = {}
    for call in graph.calls:
        if call.layer is layer:
            entering.update(mask_shapes(inner, call, received))
    return settled(Graph(layer, entering=entering))


def _depends_at_any_depth(graph) -> bool:
    nested = {id(c.layer): c.layer for c in graph.calls if _keras.has_graph(c.layer)}
    return _may_depend_on_order(graph) or any(
        _depends_at_any_depth(Graph(layer)) for layer in nested.values()
    )


def _may_depend_on_order(graph) -> bool:
    """Whether a call may change a mask that another one reads, before or after it."""
    if not any(map(_changes_masks, graph.calls)):
        return False
    source = _sources(graph)
    readers = {}
    for call in graph.calls:
        for tensor in call.inputs:
            readers.setdefault(source.get(id(tensor), id(tensor)), {})[id(call)] = call
    return any(
        not _in_order(graph, call, other)
        for group in readers.values()
        if len(group) > 1
        for call in group.values()
        if _changes_masks(call)
        for other in group.values()
    )


def _sources(graph) -> dict:
    """id of a tensor -> id of the one whose very value it may be.

    A layer that has nothing to do, as Dropout in inference, gives what it is given.
    """
    source = {}
    for call in graph.calls:
        if len(call.inputs) == len(call.outputs) == 1:
            (x,), (y,) = call.inputs, call.outputs
            if x.shape == y.shape and x.dtype == y.dtype:
                source[id(y)] = source.get(id(x), id(x))
    return source


def _changes_masks(call) -> bool:
    given = call.kwargs.get("mask") if _keras.has_graph(call.layer) else None
    hangs = any(mask is not None for mask in _keras.flatten(given))
    return hangs or _keras.changes_masks(call.layer)


def _in_order(graph, call, other) -> bool:
    """Whether one of two calls needs the other, so that their order is given."""
    if call is other or id(call) in graph.needed_for(other.inputs):
        return True
    return id(other) in graph.needed_for(call.inputs)


def _as_received(graph, run, new) -> dict:
    """What gives each reader the mask that it received: `seen_by` of `replay`.

    A reader is the id of a call, or None for the outputs; `new` as in `replay`.
    """
    calls = {id(call): call for call in graph.calls}
    reads = {}  # id of a value -> [(reader, tensor, mask)]
    for read in run.reads:
        reads.setdefault(id(run.values[id(read[1])]), []).append(read)
    seen_by, unsure = {}, in_one_mode(graph, run)
    for value, group in reads.items():
        changing = {
            id(call): call for call, t in run.changes if id(run.values[id(t)]) == value
        }
        readers = [calls[reader] for reader, _, _ in group if reader is not None]
        if all(_in_order(graph, c, r) for c in changing.values() for r in readers):
            continue
        for reader, tensor, mask in group:
            if (reader, id(tensor)) in unsure:
                raise InputError(depends_on_training(graph, tensor))
            seen = _with_mask(run, tensor, mask, reader in changing, new)
            if seen is not None:
                seen_by[reader, id(tensor)] = seen
    return seen_by


def depends_on_training(graph, tensor) -> str:
    """The message about a tensor whose mask arrives in one mode alone."""
    return (
        f'model {graph.name!r}: whether the padding mask of "{graph.name_of(tensor)}" '
        "arrives at a later layer depends on `training`, which no part of the model "
        "could repeat: Dropout gives its input itself in inference, and a "
        "MultiHeadAttention takes the mask off both then; let the layers on both sides "
        "of the Dropout read the same tensor"
    )


def _with_mask(run, tensor, mask, changes_it, new):
    """A function of a tensor: what a call that received this mask is given, or None.

    A call that changes the mask is given a tensor for itself alone.
    """
    first = run.made_with[id(tensor)]
    if mask is None:
        return (lambda t: DropMask()(t)) if changes_it or first is not None else None
    if mask is first:
        return (lambda t: CopyMask()([t, t])) if changes_it else None
    symbols = [t for t in run.tensors if run.values[id(t)] is mask]
    if not symbols:
        raise InputError(
            f'"{_keras.maker(tensor).name}" is read with a mask that a nested model '
            "put on it, and the graph does not tell which: call that model on another "
            "tensor"
        )
    (symbol, *_) = symbols
    return lambda t: AttachMask()([t, new.get(id(symbol), symbol)])
