"""The points at which a model can be cut, and what a cut there would hand over."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert._identity import IdentitySet
from tiedbert.errors import InputError
from tiedbert.surgery.calls import Call
from tiedbert.surgery.crossing import Crossing
from tiedbert.surgery.fitting import describe
from tiedbert.surgery.graph import Graph
from tiedbert.surgery.masks.entering import entering_shapes, with_mask_inputs
from tiedbert.surgery.masks.order import settled
from tiedbert.surgery.masks.received import Masks


class Point(NamedTuple):
    """A cut point of a model.

    Attributes:
        at: its name, as :func:`tiedbert.surgery.split` takes it.
        layer_class: the class of the layer, ``"Input"`` for an input of the model.
        tensor: its shape and dtype: ``"(?, 4) float32"``.
        crossing: how many tensors cross a cut there; None: it cannot be cut there, and
            `why_not` says why.
        why_not: the reason, or "".
    """

    at: str
    layer_class: str
    tensor: str
    crossing: int | None
    why_not: str = ""


def cut_points(model: keras.Model) -> list[Point]:
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
        ...     print(point.at, point.layer_class, point.tensor, point.crossing)
        x Input (?, 4) float32 1
        hidden Dense (?, 4) float32 2
        sum Add (?, 4) float32 1
    """
    graph = Graph(model)
    own = IdentitySet(call.layer for call in graph.calls)
    return list(_points(graph, own, graph.input_tensors, 0))


def _points(
    graph: Graph, own: IdentitySet, inputs: Sequence, beside: int | InputError
) -> Iterator[Point]:
    """The points of a graph.

    Args:
        graph: the calls of a model, of the user's or nested in it.
        own: the layers that are points; not those that were put in to follow masks.
        inputs: those of the model's inputs that are points.
        beside: how many tensors cross around a nested model; InputError: why none can.
    """
    masks, beside = _settled(graph, beside)
    graph = masks.graph
    for tensor in inputs:
        name = _keras.maker(tensor).name
        yield _point(masks, name, "Input", tensor, beside)
    for call in graph.calls:
        if call.layer in own and not _keras.is_side_effect(call.layer):
            yield from _points_of_call(masks, call, beside)


def _settled(graph, beside) -> tuple[Masks, int | InputError]:
    """The masks of the settled graph, looked up; InputError if that is not possible."""
    try:
        masks = settled(Masks(graph))
        masks.look()
    except InputError as error:  # masks that depend on `training`
        return Masks.none(graph), error
    return masks, beside


def _points_of_call(masks, call: Call, beside) -> Iterator[Point]:
    graph, layer_class = masks.graph, type(call.layer).__name__
    for name, tensor in zip(graph.names.of_outputs(call), call.outputs, strict=True):
        yield _point(masks, name, layer_class, tensor, beside)
    if not _keras.has_graph(call.layer):
        return
    try:
        beside = _sum(beside, Crossing(masks, call.outputs).count_beside())
    except InputError as error:
        beside = error
    inner = graph.nested(call.layer, graph.path_of(call))
    own = IdentitySet(inner_call.layer for inner_call in inner.calls)
    inner = with_mask_inputs(inner, entering_shapes(masks, call))
    yield from _points(inner, own, (), beside)


def _point(masks, name: str, layer_class: str, tensor: tf.Tensor, beside) -> Point:
    graph, described = masks.graph, describe(tensor)
    at = graph.path + name
    crossing = Crossing(masks, [tensor])
    if crossing.unused():
        return Point(at, layer_class, described, None, "no output depends on it")
    try:
        if graph.tensors_at(name)[0] is not tensor:
            raise InputError("another layer has this very name")
        return Point(at, layer_class, described, _sum(beside, crossing.count()))
    except InputError as error:
        return Point(at, layer_class, described, None, str(error))


def _sum(beside: int | InputError, count: int) -> int:
    if isinstance(beside, InputError):
        raise beside
    return beside + count
