"""Models in which the order of calls does not decide which layers receive a mask.

MultiHeadAttention of Keras 3 takes the mask off its inputs while it runs. In both
Kerases a nested model that is called with ``mask=`` puts that mask on its input. What
reads the same tensor receives another mask before such a call than after it. A part of
the model, or an edited one, may run its calls in another order.
"""

from collections.abc import Callable, Sequence
from functools import partial

from tensorflow import keras

from tiedbert import _keras
from tiedbert._identity import IdentityMap, IdentitySet
from tiedbert.errors import InputError
from tiedbert.surgery.calls import Call
from tiedbert.surgery.graph import Graph
from tiedbert.surgery.masks.entering import entering_shapes
from tiedbert.surgery.masks.explicit import CopyMask, DropMask, attach
from tiedbert.surgery.masks.received import Masks
from tiedbert.surgery.masks.run import given_masks
from tiedbert.surgery.replay import Substitution, model_of, replay


def settled(masks: Masks, points: Sequence = ()) -> Masks:
    """The same graph, each reader with the mask that the order of the calls gave it.

    A call that changes the mask of a tensor reads a copy; a reader that received
    another mask reads a copy with that mask. Copies are made only where two calls may
    run in either order, or where an opened model no longer changes the mask; otherwise
    the graph is returned.

    Args:
        masks: a graph and the masks that arrive in it.
        points: the cut points at which it is edited. A nested model with a point in it
            takes no mask off its input any more.

    Returns:
        :class:`Masks` of a graph that takes the tensors of the old one for cut points
        too.

    Raises:
        InputError: which masks arrive depends on `training`.
    """
    graph = masks.graph
    if not masks.may_arrive:
        return masks
    opened = _models_around(graph, points)
    if not _may_depend_on_order(graph, opened):
        return masks
    substitution = _as_received(masks, opened)
    if not substitution.views:
        return masks
    replay(graph.calls, substitution, recorded_masks=True)
    model = model_of(graph, substitution)
    return Masks(graph.in_another_form(model, substitution.new), masks.entering)


def settled_inside(masks: Masks, layer: keras.Model, points: Sequence = ()) -> Masks:
    """The settled graph of a nested model, which calls of the graph of `masks` call."""
    graph = masks.graph
    inner = graph.nested(layer, f"{graph.path}{layer.name}/")
    entering = {}
    must_look = not _keras.symbolic_tensors_tell_masks()
    if must_look and _depends_at_any_depth(inner):
        for call in graph.calls:
            if call.layer is layer:
                entering.update(entering_shapes(masks, call))
    return settled(Masks(inner, entering), points)


def _models_around(graph, points) -> IdentitySet:
    """The nested models that have a point in them."""
    found = [graph.inside(point) for point in points]
    return IdentitySet(calls[0].layer for calls, _ in filter(None, found))


def _depends_at_any_depth(graph) -> bool:
    return _may_depend_on_order(graph, graph.nested_models) or any(
        _depends_at_any_depth(graph.nested(layer)) for layer in graph.nested_models
    )


def _may_depend_on_order(graph: Graph, opened: IdentitySet) -> bool:
    """Whether a call may change a mask that another one reads, before or after it."""
    changing = {call for call in graph.calls if _changes_masks(graph, call)}
    if not changing:
        return False
    source = _sources(graph)
    readers = IdentityMap()  # a tensor -> the readers of it and of what may be it
    for call in graph.calls:
        for tensor in call.inputs:
            readers.setdefault(source.get(tensor, tensor), {})[call] = None
    for tensor in graph.output_tensors:
        readers.setdefault(source.get(tensor, tensor), {})[None] = None
    return any(
        _puts_another(graph, call) or not _in_order(graph, call, other, opened)
        for group in readers.values()
        for call in group
        if call in changing
        for other in group
        if other is not call
    )


def _sources(graph) -> IdentityMap:
    """Map, a tensor -> the one whose very value it may be.

    A layer that has nothing to do, as Dropout in inference, gives what it is given.
    """
    source = IdentityMap()
    for call in graph.calls:
        if len(call.inputs) == len(call.outputs) == 1:
            (x,), (y,) = call.inputs, call.outputs
            if x.shape == y.shape and x.dtype == y.dtype:
                source[y] = source.get(x, x)
    return source


def _changes_masks(graph, call) -> bool:
    return bool(given_masks(graph, call)) or _keras.changes_masks(call.layer)


def _puts_another(graph, call) -> bool:
    """Whether a call puts a mask on a tensor that is not its own."""
    given = given_masks(graph, call)
    return any(mask is not _keras.implicit_mask(tensor) for tensor, mask in given)


def _in_order(
    graph: Graph, call: Call, reader: Call | None, opened: IdentitySet
) -> bool:
    """Whether a reader surely comes before, or after, a call that changes masks.

    `reader` is None for the outputs of the model. For an opened model the answer is
    True only for a reader that runs before it.
    """
    if call is reader:
        return True
    if call.layer not in opened and (reader is None or _reads(reader, call)):
        return True  # found without a search, in most models
    if reader is not None and reader in graph.needed_for(call.inputs):
        return True
    if call.layer in opened:
        return False
    return reader is not None and call in graph.needed_for(reader.inputs)


def _reads(reader, call) -> bool:
    return any(made is read for made in call.outputs for read in reader.inputs)


def _as_received(masks: Masks, opened: IdentitySet) -> Substitution:
    """Views that give each reader the mask that it received in the run."""
    run, substitution = masks.run, Substitution()
    reads, changes = IdentityMap(), IdentityMap()  # by the value that is read
    for reader, tensor, mask in run.reads:
        reads.setdefault(run.values[tensor], []).append((reader, tensor, mask))
    for call, tensor, mask in run.changes:
        changes.setdefault(run.values[tensor], []).append((call, tensor, mask))
    bare = IdentityMap()  # a tensor -> it without a mask
    for value, group in reads.items():
        changed = changes.get(value, [])
        # What is put on a tensor must cross as such, in whatever order.
        if all(
            (mask is None or mask is run.first_mask[tensor])
            and _in_order(masks.graph, call, reader, opened)
            for call, tensor, mask in changed
            for reader, _, _ in group
        ):
            continue
        changing = {call for call, _, _ in changed}
        for reader, tensor, mask in group:
            if reader in masks.in_one_mode.get(tensor, ()):
                raise InputError(masks.depends_on_training(tensor))
            view = _with_mask(run, tensor, mask, reader in changing, bare)
            if view is not None:
                substitution.add_view(reader, tensor, view)
    return substitution


def _with_mask(run, tensor, mask, changes_it, bare) -> Callable | None:
    """What gives a reader a tensor with the mask that it received, or None.

    A call that changes the mask is given a tensor for itself alone; all others without
    a mask share the one of `bare`.

    Returns:
        A function of the map `new` of a :class:`Substitution`; None where the tensor
        itself is right.
    """
    first = run.first_mask[tensor]
    if mask is None and changes_it:
        return lambda new: DropMask()(new.get(tensor, tensor))
    if mask is None:
        return None if first is None else partial(_without_mask, bare, tensor)
    if mask is first:
        return partial(_copied, tensor) if changes_it else None
    symbols = [symbol for symbol, value in run.values.items() if value is mask]
    if not symbols:
        raise InputError(
            f'"{_keras.maker(tensor).name}" is read with a mask that a nested model '
            "put on it, and the graph does not tell which: call that model on another "
            "tensor"
        )
    (symbol, *_) = symbols
    return lambda new: attach(new.get(tensor, tensor), new.get(symbol, symbol))


def _copied(tensor, new):
    tensor = new.get(tensor, tensor)
    return CopyMask()([tensor, tensor])


def _without_mask(bare, tensor, new):
    tensor = new.get(tensor, tensor)
    if tensor not in bare:
        bare[tensor] = DropMask()(tensor)
    return bare[tensor]
