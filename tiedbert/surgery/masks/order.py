"""Models in which the order of the calls does not decide who receives a mask.

MultiHeadAttention of Keras 3 takes the mask off its inputs while it runs. In both
Kerases a nested model that is called with ``mask=`` puts that mask on its input. What
reads the same tensor receives another mask before such a call than after it. A part of
the model, or an edited one, may run its calls in another order.
"""

from functools import partial

from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError
from tiedbert.surgery.graph import Graph
from tiedbert.surgery.masks.explicit import AttachMask, CopyMask, DropMask
from tiedbert.surgery.masks.received import (
    given_masks,
    in_one_mode,
    mask_shapes,
    masks_received,
    may_have_masks,
    watched,
)
from tiedbert.surgery.replay import outputs_of, replay


def settled(graph, points=()):
    """The same graph, each reader with the mask that the order of the calls gave it.

    A call that changes the mask of a tensor gets a copy of it, and what received
    another mask than the tensor has by itself gets one with that mask. Only where the
    order of two calls is open, or where a call will not change the mask any more;
    elsewhere it is `graph` itself.

    Args:
        graph: the calls of a model.
        points: the cut points at which it is edited. A nested model with a point in it
            takes no mask off its input any more.

    Returns:
        A :class:`Graph` that takes the tensors of the old one for cut points too.

    Raises:
        InputError: which masks arrive depends on `training`.
    """
    edited = _layers_around(graph, points)
    if not may_have_masks(graph) or not _may_depend_on_order(graph, edited):
        return graph
    new = {}
    seen_by = _as_received(graph, edited, watched(graph), new)
    if not seen_by:
        return graph
    replay(graph.calls, new, recorded_masks=True, seen_by=seen_by)
    outputs = outputs_of(graph, new, seen_by)
    model = keras.Model(graph.inputs, outputs, name=graph.name)
    _keras.name_outputs(model, graph.output_names)
    _keras.repeat_side_effects(model, graph.side_effects, new)
    return graph.in_another_form(model, new)


def settled_inside(graph, layer, points=()):
    """The settled graph of a nested model, which calls of `graph` call."""
    path = f"{graph.path}{layer.name}/"
    inner = Graph(layer, path)
    if _keras.symbolic_tensors_tell_masks() or not _depends_at_any_depth(inner):
        return settled(inner, points)
    received = masks_received(graph)
    entering = {}
    for call in graph.calls:
        if call.layer is layer:
            entering.update(mask_shapes(inner, call, received))
    return settled(Graph(layer, path, entering=entering), points)


def _layers_around(graph, points) -> set:
    """ids of the nested models that have a point in them."""
    found = [graph.inside(point) for point in points]
    return {id(calls[0].layer) for calls, _ in filter(None, found)}


def _depends_at_any_depth(graph) -> bool:
    nested = {id(c.layer): c.layer for c in graph.calls if _keras.has_graph(c.layer)}
    return _may_depend_on_order(graph, set(nested)) or any(
        _depends_at_any_depth(Graph(layer)) for layer in nested.values()
    )


def _may_depend_on_order(graph, edited) -> bool:
    """Whether a call may change a mask that another one reads, before or after it."""
    if not any(map(_changes_masks, graph.calls)):
        return False
    source = _sources(graph)
    readers = {}
    for call in graph.calls:
        for tensor in call.inputs:
            readers.setdefault(source.get(id(tensor), id(tensor)), {})[id(call)] = call
    for tensor in graph.output_tensors:
        readers.setdefault(source.get(id(tensor), id(tensor)), {})[None] = None
    return any(
        _puts_another(call) or not _in_order(graph, call, other, edited)
        for group in readers.values()
        for call in group.values()
        if call is not None and _changes_masks(call)
        for other in group.values()
        if other is not call
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
    return bool(given_masks(call)) or _keras.changes_masks(call.layer)


def _puts_another(call) -> bool:
    """Whether a call puts a mask on a tensor that is not its own."""
    return any(mask is not _keras.implicit_mask(t) for t, mask in given_masks(call))


def _in_order(graph, call, reader, edited) -> bool:
    """Whether a reader surely comes before, or after, a call that changes masks.

    `reader` is None for an output of the model. Behind a nested model that is edited
    nothing is sure.
    """
    if call is reader:
        return True
    if id(call.layer) not in edited and (reader is None or _reads(reader, call)):
        return True  # found without a search, in most models
    if reader is not None and id(reader) in graph.needed_for(call.inputs):
        return True
    if id(call.layer) in edited:
        return False
    return id(call) in graph.needed_for(reader.inputs)


def _reads(reader, call) -> bool:
    made = {id(tensor) for tensor in call.outputs}
    return any(id(tensor) in made for tensor in reader.inputs)


def _as_received(graph, edited, run, new) -> dict:
    """What gives each reader the mask that it received: `seen_by` of `replay`.

    A reader is the id of a call, or None for the outputs; `new` as in `replay`.
    """
    calls = {None: None} | {id(call): call for call in graph.calls}
    reads = {}  # id of a value -> [(reader, tensor, mask)]
    for read in run.reads:
        reads.setdefault(id(run.values[id(read[1])]), []).append(read)
    seen_by, bare, unsure = {}, {}, in_one_mode(graph, run)
    for value, group in reads.items():
        changes = [c for c in run.changes if id(run.values[id(c[1])]) == value]
        changing = {id(call) for call, _, _ in changes}
        readers = [calls[reader] for reader, _, _ in group]
        # What is put on a tensor must cross as such, in whatever order.
        if all(
            (mask is None or mask is run.first_mask[id(tensor)])
            and _in_order(graph, call, reader, edited)
            for call, tensor, mask in changes
            for reader in readers
        ):
            continue
        for reader, tensor, mask in group:
            if (reader, id(tensor)) in unsure:
                raise InputError(_depends_on_training(graph, tensor))
            seen = _with_mask(run, tensor, mask, reader in changing, new, bare)
            if seen is not None:
                seen_by[reader, id(tensor)] = seen
    return seen_by


def check_in_both_modes(graph, received, tensor, keys):
    """InputError if a mask of `tensor`, by its keys in `received`, depends on the mode.

    The mode is training or inference.
    """
    if not received.in_one_mode.isdisjoint(keys):
        raise InputError(_depends_on_training(graph, tensor))


def _depends_on_training(graph, tensor) -> str:
    """The message about a tensor whose mask arrives in one mode alone."""
    return (
        f'whether the padding mask of "{_own_name(graph, tensor)}" arrives at a later '
        "layer depends on `training`, which no part of the model could repeat: Dropout "
        "gives its input itself in inference, and a MultiHeadAttention takes the mask "
        "off both then; let the layers on both sides of the Dropout read one tensor"
    )


def _own_name(graph, tensor) -> str:
    """The name of a tensor, or of that of the user's which it is with another mask."""
    put_in = AttachMask | CopyMask | DropMask
    while isinstance(_keras.maker(tensor), put_in) and id(tensor) in graph.producers:
        tensor = graph.producers[id(tensor)].inputs[0]
    return graph.shown(tensor)


def _with_mask(run, tensor, mask, changes_it, new, bare):
    """A function of a tensor: what a call that received this mask is given, or None.

    A call that changes the mask is given a tensor for itself alone; all others without
    a mask share the one of `bare`, dict, id of a tensor -> it without a mask.
    """
    first = run.first_mask[id(tensor)]
    if mask is None and changes_it:
        return lambda t: DropMask()(t)
    if mask is None:
        return None if first is None else partial(_without_mask, bare)
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


def _without_mask(bare, tensor):
    if id(tensor) not in bare:
        bare[id(tensor)] = tensor, DropMask()(tensor)  # the first keeps its id
    return bare[id(tensor)][1]
