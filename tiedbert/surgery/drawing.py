"""The nodes and edges of a picture: what runs before a cut, what crosses, what follows.

:mod:`tiedbert.surgery.dot` draws them.
"""

import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tensorflow import keras

from tiedbert import _keras
from tiedbert._identity import IdentityMap, IdentitySet
from tiedbert.surgery.calls import Call
from tiedbert.surgery.cut import Cut
from tiedbert.surgery.cut_nested import cut_at
from tiedbert.surgery.fitting import describe
from tiedbert.surgery.graph import Graph
from tiedbert.surgery.masks.explicit import AttachMask, CopyMask, DropMask, ReadMask

CROSSING_SIDES = ("cut", "context", "mask")


class Node(NamedTuple):
    """A call, input or output of a model, or a tensor that crosses the cut.

    `side` is ``"whole"`` in a model that is not cut, ``"front"`` or ``"rest"``, or one
    of :data:`CROSSING_SIDES`. A call in a nested model that is cut has the path that
    is its cut point, ``"encoder/norm"``.
    """

    name: str
    layer_class: str
    shape: str
    side: str


class _Source(NamedTuple):
    """Where a tensor comes from.

    `node` is the id of the node that makes it, `mask` that of its implicit mask if that
    crosses. `is_mask` says that the tensor is itself the implicit mask of what the node
    makes; `suffix` is ``"#k"`` for the k-th of several outputs.
    """

    node: str
    mask: str | None = None
    is_mask: bool = False
    suffix: str = ""


@dataclass
class Drawing:
    """The nodes and edges of a picture of a model.

    Attributes:
        model: the model.
        nodes: dict, id -> :class:`Node`.
        edges: dict with the keys ``(id from, id to, is mask)``: each once, in order.
        makers: the ids of the nodes that make a cut tensor.
        crossing: ``(node, name of what makes it)`` for each crossing tensor, in order.
    """

    model: keras.Model
    nodes: dict = field(default_factory=dict)
    edges: dict = field(default_factory=dict)
    makers: set = field(default_factory=set)
    crossing: list = field(default_factory=list)

    def __post_init__(self):
        self._own_layers = IdentitySet(_keras.layers_within(self.model))
        self._sources = IdentityMap()  # tensor -> _Source

    def add_inputs(self, graph: Graph, side: str) -> None:
        """Add a node for each input of a model."""
        for tensor in graph.input_tensors:
            node = Node(_keras.maker(tensor).name, "Input", describe(tensor), side)
            self._sources[tensor] = _Source(self._add(node))

    def add_calls(self, graph: Graph, side: str, names: IdentityMap, path="") -> list:
        """Add a node for each call of a model; returns the sources of its outputs.

        `names` holds the names of calls that are not named like their layer.
        """
        for call in graph.calls:
            sources = [self._sources[tensor] for tensor in call.inputs]
            if call.layer in self._own_layers or not _is_put_in(call.layer):
                name = path + names.get(call, call.layer.name)
                made = self._add_call(call, name, sources, side)
            elif _keras.has_graph(call.layer):
                half = graph.nested(call.layer)
                made = self._add_half(half, sources, side, path)
            else:
                made = [_behind_mask_layer(call.layer, *sources)]
            self._set_sources(call.outputs, made)
        return [self._sources[tensor] for tensor in graph.output_tensors]

    def add_crossing(self, cut: Cut, rest: Graph, sources: list) -> None:
        """Add a node for each tensor that the part before a cut hands to `rest`."""
        masks = _attached(rest)
        entries = zip(rest.input_tensors, sources, strict=True)
        for i, (tensor, source) in enumerate(entries):
            attached = i in cut.mask_index or tensor in masks
            is_mask = source.is_mask or attached
            side = "cut" if i < cut.num_cut else "mask" if is_mask else "context"
            node = Node(str(i), side, describe(tensor), side)
            self.crossing.append((node, self.nodes[source.node].name + source.suffix))
            name = self._add(node)
            self._connect(source._replace(is_mask=is_mask), name)
            self._sources[tensor] = _Source(name, is_mask=is_mask)
            if i < cut.num_cut:
                self.makers.add(source.node)

    def add_outputs(self, graph: Graph, side: str, sources: list) -> None:
        """Add a node for each output of a model."""
        names = _output_names(graph.outputs)
        tensors = graph.output_tensors
        for name, tensor, source in zip(names, tensors, sources, strict=True):
            self._connect(source, self._add(Node(name, "", describe(tensor), side)))

    def _add(self, node: Node) -> str:
        name = f"node{len(self.nodes)}"
        self.nodes[name] = node
        return name

    def _add_call(self, call: Call, name: str, sources: list, side: str) -> list:
        shapes = ", ".join(map(describe, call.outputs))
        node = self._add(Node(name, type(call.layer).__name__, shapes, side))
        masks = _recorded_masks(call)
        for tensor, source in zip(call.inputs, sources, strict=True):
            is_mask = source.is_mask or tensor in masks
            self._connect(source._replace(is_mask=is_mask), node)
        if len(call.outputs) == 1:
            return [_Source(node)]
        return [_Source(node, suffix=f"#{k}") for k in range(len(call.outputs))]

    def _add_half(self, graph: Graph, sources: list, side: str, path: str) -> list:
        self._set_sources(graph.input_tensors, sources)
        path += re.sub(r"_(front|rest)(_\d+)?$", "", graph.name) + "/"
        return self.add_calls(graph, side, IdentityMap(), path)

    def _set_sources(self, tensors: list, sources: list) -> None:
        self._sources.update(zip(tensors, sources, strict=True))

    def _connect(self, source: _Source, node: str) -> None:
        self.edges[source.node, node, source.is_mask] = None
        # Other masks need no edge: Keras passes them with the tensor.
        if source.mask and self.nodes[source.mask].side in CROSSING_SIDES:
            self.edges[source.mask, node, True] = None


def drawing_of(model: keras.Model, at: Any = None) -> Drawing:
    """What :func:`tiedbert.surgery.draw` shows of a model, or of a cut of it."""
    if at is not None:
        cut = cut_at(model, at)
        return drawing_of_cut(model, cut, cut.front(), cut.rest())
    graph, drawing = Graph(model), Drawing(model)
    names = IdentityMap((call, graph.names.of_call(call)) for call in graph.calls)
    drawing.add_inputs(graph, "whole")
    made = drawing.add_calls(graph, "whole", names)
    drawing.add_outputs(graph, "whole", made)
    return drawing


def drawing_of_cut(
    model: keras.Model, cut: Cut, front: keras.Model, rest: keras.Model
) -> Drawing:
    """The same for a `Cut` of `model` whose two sides are made already."""
    front, rest, drawing = Graph(front), Graph(rest), Drawing(model)
    names = _names_in_parts(Graph(model), front, rest)
    drawing.add_inputs(front, "front")
    drawing.add_crossing(cut, rest, drawing.add_calls(front, "front", names))
    drawing.add_outputs(rest, "rest", drawing.add_calls(rest, "rest", names))
    return drawing


def _names_in_parts(whole: Graph, front: Graph, rest: Graph) -> IdentityMap:
    """Call in one of two parts -> the name by which it is a cut point of `whole`.

    The calls in `front` make the tensors of `whole`; `rest` calls each layer again in
    the order of `whole`. A call that is not found there gets no name.
    """
    behind = IdentityMap((call.outputs[0], call) for call in whole.calls)
    names = IdentityMap()
    for call in front.calls:
        original = behind.pop(call.outputs[0], None)
        if original is not None:
            names[call] = whole.names.of_call(original)
    for layer in IdentitySet(call.layer for call in behind.values()):
        waiting, again = (
            sorted(
                (call for call in calls if call.layer is layer),
                key=lambda call: call.index,
            )
            for calls in (behind.values(), rest.calls)
        )
        if len(waiting) == len(again):
            pairs = zip(again, map(whole.names.of_call, waiting), strict=True)
            names.update(pairs)
    return names


def _is_put_in(layer: Any) -> bool:
    """Whether a layer that the model does not have may be one that a cut puts in."""
    return _keras.has_graph(layer) or isinstance(
        layer, AttachMask | CopyMask | DropMask | ReadMask
    )


def _behind_mask_layer(layer: Any, source: _Source, mask=None) -> _Source:
    """The source of the output of a layer that only moves masks, which is not drawn."""
    if isinstance(layer, ReadMask):
        return _Source(source.mask or source.node, is_mask=True)
    if isinstance(layer, CopyMask):
        return source
    return source._replace(mask=mask and mask.node)


def _recorded_masks(call: Call) -> IdentitySet:
    """The implicit masks that Keras 3 made inputs of a call."""
    names = _keras.masks_filled_in(call)
    return IdentitySet(
        leaf for name in names for leaf in _keras.flatten(call.kwargs[name])
    )


def _attached(graph: Graph) -> IdentitySet:
    """The tensors that are attached to another tensor as its implicit mask."""
    masks = IdentitySet()
    for call in graph.calls:
        if isinstance(call.layer, AttachMask):
            masks.add(call.inputs[1])
        elif _keras.has_graph(call.layer):
            inner = graph.nested(call.layer)
            attached = _attached(inner)
            pairs = zip(inner.input_tensors, call.inputs, strict=False)
            masks.update(outer for own, outer in pairs if own in attached)
    return masks


def _output_names(outputs: Any) -> list:
    count = len(_keras.flatten(outputs))
    if isinstance(outputs, dict) and len(outputs) == count:
        return [f"output {name!r}" for name in sorted(outputs)]
    return ["output"] if count == 1 else [f"output {i}" for i in range(count)]
