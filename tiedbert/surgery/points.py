"""The points at which a model can be cut, and what a cut there would hand over."""

from typing import NamedTuple

from tiedbert import _keras
from tiedbert.errors import InputError
from tiedbert.surgery.edit import describe
from tiedbert.surgery.graph import Graph
from tiedbert.surgery.masks.order import check_in_both_modes, settled
from tiedbert.surgery.masks.received import Received, masks_received
from tiedbert.surgery.nested import Inner


class Point(NamedTuple):
    """A cut point of a model.

    Attributes:
        at: its name, as :func:`tiedbert.surgery.split` takes it.
        kind: the class of the layer, ``"Input"`` for an input of the model.
        tensor: its shape and dtype: ``"(?, 4) float32"``.
        crossing: how many tensors cross a cut there; None: it cannot be cut there, and
            `why_not` says why.
        why_not: the reason, or "".
    """

    at: str
    kind: str
    tensor: str
    crossing: int | None
    why_not: str = ""


def cut_points(model) -> list:
    """The points of a functional model that have a name, in nested models too.

    The inputs come first, then each tensor of each call in topological order; a nested
    model before what is in it. Nothing is cut: a model is looked through once, at every
    depth.

    Args:
        model: a functional model; left as it is.

    Returns:
        list of :class:`Point`.

    Raises:
        InputError: a model without a graph.

    Example:
        >>> from tensorflow import keras
        >>> x = keras.Input((4,), name="x")
        >>> h = keras.layers.Dense(4, name="hidden")(x)
        >>> model = keras.Model(x, keras.layers.Add(name="sum")([x, h]))
        >>> for point in cut_points(model):
        ...     print(point.at, point.kind, point.tensor, point.crossing)
        x Input (?, 4) float32 1
        hidden Dense (?, 4) float32 2
        sum Add (?, 4) float32 1
    """
    own = {id(call.layer) for call in Graph(model).calls}
    inputs = Graph(model).input_tensors
    return list(_points(model, own, inputs))


def _points(model, own, inputs=(), path="", beside=0):
    """The points of a model at `path`; `beside` tensors cross around it.

    Args:
        model: a functional model.
        own: the ids of the layers that the user's model has, not put in by the way it
            is read.
        inputs: those of its inputs that are points.
        path: where it lies.
        beside: how many tensors cross around it; InputError: why none can.
    """
    try:
        graph = settled(Graph(model, path))
        received = masks_received(graph)
    except InputError as error:  # masks that depend on `training`
        graph, received, beside = Graph(model, path), Received(), error
    for tensor in inputs:
        name = _keras.maker(tensor).name
        yield _point(graph, received, name, "Input", tensor, beside)
    for call in graph.calls:
        if id(call.layer) in own and not _keras.is_side_effect(call.layer):
            yield from _points_of_call(graph, received, call, beside)


def _points_of_call(graph, received, call, beside):
    kind = type(call.layer).__name__
    for name, tensor in zip(graph.names_of(call), call.outputs, strict=True):
        yield _point(graph, received, name, kind, tensor, beside)
    if not _keras.has_graph(call.layer):
        return
    try:
        around = _added(beside, len(_context(graph, received, call.outputs)))
    except InputError as error:
        around = error
    inside = Inner(call, received).model
    own = {id(c.layer) for c in Graph(call.layer).calls}
    path = f"{graph.path}{graph.call_name(call)}/"
    yield from _points(inside, own, path=path, beside=around)


def _point(graph, received, name, kind, tensor, beside) -> Point:
    at, described = graph.path + name, describe(tensor)
    if not _is_used(graph, tensor):
        return Point(at, kind, described, None, "no output depends on it")
    try:
        if graph.tensors_at(name)[0] is not tensor:
            raise InputError("another layer has this very name")
        crossing = _added(beside, _crossing(graph, received, tensor))
    except InputError as error:
        return Point(at, kind, described, None, str(error))
    return Point(at, kind, described, crossing)


def _added(beside, crossing) -> int:
    if isinstance(beside, InputError):
        raise beside
    return beside + crossing


def _is_used(graph, tensor) -> bool:
    read = [t for call in graph.calls for t in call.inputs]
    return any(t is tensor for t in [*read, *graph.output_tensors])


def _crossing(graph, received, tensor) -> int:
    """How many tensors cross a cut at `tensor`: those of `Cut`, but only counted."""
    behind = _receivers(graph, [tensor])
    masks = _masks(graph, received, behind, [tensor], always=True)
    return len({id(tensor)} | masks | _context(graph, received, [tensor]))


def _context(graph, received, cut) -> set:
    """What stands for the tensors that cross beside those of `cut`, masks included."""
    context = graph.context(cut)
    masks = _masks(graph, received, _receivers(graph, cut), context)
    return {id(tensor) for tensor in context} | masks


def _receivers(graph, cut) -> list:
    """Who may receive a mask behind a cut, as in `received`: calls and the outputs."""
    return [*(id(call) for call in graph.downstream(cut)), None]


def _masks(graph, received, receivers, tensors, always=False) -> set:
    """What stands for the masks of `tensors` that one of `receivers` receives.

    A mask is a tensor of the graph in Keras 3, unless only a running model shows it.
    """
    masks = set()
    for tensor in tensors:
        keys = {(reader, id(tensor)) for reader in receivers}
        check_in_both_modes(graph, received, tensor, keys)
        arrives = any(key in received for key in keys)
        mask = _keras.implicit_mask(tensor)
        if arrives or (always and mask is not None):
            known = _keras.is_symbolic(mask)
            masks.add(id(mask) if known else ("mask of", id(tensor)))
    return masks
