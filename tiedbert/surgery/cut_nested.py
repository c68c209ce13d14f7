"""Cut points at any depth: nested models are opened, then there is one graph to cut."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert._identity import IdentityMap, IdentitySet
from tiedbert.surgery.calls import Call
from tiedbert.surgery.cut import Cut, Front
from tiedbert.surgery.graph import Graph, points_of, same_points
from tiedbert.surgery.masks.entering import (
    entering_shapes,
    with_mask_arguments,
    with_mask_inputs,
)
from tiedbert.surgery.masks.order import settled
from tiedbert.surgery.masks.received import Masks
from tiedbert.surgery.names import unique
from tiedbert.surgery.replay import Extended, Substitution, model_of, replay


def cut_at(model: keras.Model, at: Any) -> Cut:
    """The :class:`Cut` of a functional model at cut points as `split` takes them."""
    return _cut(Graph(model), points_of(at))


def _cut(graph: Graph, points: Sequence) -> Cut:
    masks = settled(Masks(graph), points)
    here, inside = masks.graph.placed(points)
    if not inside:
        return Cut(masks, list(here.values()))
    return _cut_opened(masks, points, here, inside)


def _cut_opened(masks, points, here, inside) -> Cut:
    """The cut of a graph with each nested model that holds a cut point split at it.

    Args:
        masks: the graph, and the masks that arrive in it.
        points: the cut points.
        here: as `Graph.placed` gives it.
        inside: as `Graph.placed` gives it.
    """
    graph = masks.graph
    halves = _halves(masks, inside)
    substitution = Substitution(
        layers={call: _in_halves(half) for call, half in halves.items()}
    )
    crossing = replay(graph.calls, substitution, recorded_masks=True)
    opened = model_of(graph, substitution)
    cut = {i: (substitution.tensor(None, tensor), None) for i, tensor in here.items()}
    for call, inner_points in inside:
        cut.update(zip(inner_points, halves[call].cut_in(crossing[call]), strict=True))
    tensors, known_masks = zip(*(cut[i] for i in range(len(points))), strict=True)
    named = zip(tensors, points, strict=True)
    given = IdentityMap((t, graph.path + p) for t, p in named if isinstance(p, str))
    graph = Graph(opened, graph.path, given_names=given)
    return Cut(Masks(graph), list(tensors), list(known_masks))


@dataclass(frozen=True, eq=False)
class _Halves:
    """A nested model in two parts.

    Attributes:
        graph: the calls of the nested model.
        shapes: dict, index of an input -> shape of the mask with which it enters.
        points: the cut points in it.
        cut: the cut, of the model that takes these masks as inputs.
        front: the part before it.
        rest: the part behind it.
    """

    graph: Graph
    shapes: Mapping[int, tuple]
    points: Sequence
    cut: Cut
    front: Front
    rest: keras.Model

    def cut_in(self, crossing: Sequence[tf.Tensor]) -> list[tuple]:
        """(cut tensor, its mask or None) for each point, among what `front` gave."""
        masks = (None if i is None else crossing[i] for i in self.cut.mask_index)
        return list(zip(crossing[: self.cut.num_cut], masks, strict=True))


def _halves(masks: Masks, inside: Sequence) -> dict[Call, _Halves]:
    """For each call of a nested model that is split its halves.

    Calls with equal points and masks share them. A model that is split in one call is
    split alike in the others: Keras cannot save a layer that is in two models, a part
    and the whole.
    """
    names, halves = set(masks.graph.names), {}
    for call, points in inside:
        points, shapes = list(points.values()), entering_shapes(masks, call)
        fitting = _fitting(halves, call, shapes)
        same = [half for half in fitting if same_points(half.points, points)]
        halves[call] = (
            same[0] if same else _split(masks.graph, call, shapes, points, names)
        )
    models = IdentitySet(call.layer for call in halves)
    for call in masks.graph.calls:
        if call not in halves and call.layer in models:
            fitting = _fitting(halves, call, entering_shapes(masks, call))
            halves.update((call, half) for half in fitting[:1])
    return halves


def _fitting(halves, call, shapes) -> list[_Halves]:
    """The halves of the nested model of a call that take masks of these shapes."""
    return [
        half
        for other, half in halves.items()
        if other.layer is call.layer and half.shapes == shapes
    ]


def _split(graph, call, shapes, points, names) -> _Halves:
    inner = graph.nested(call.layer, graph.path_of(call))
    cut = _cut(with_mask_inputs(inner, shapes), points)
    name = call.layer.name
    front = cut.front(unique(f"{name}_front", names))
    rest = cut.rest(unique(f"{name}_rest", names))
    return _Halves(inner, shapes, points, cut, front, rest)


def _in_halves(half: _Halves) -> Callable[..., Extended]:
    """What takes the place of a nested model: its front, then its rest.

    Returns:
        A function of the arguments of the nested model that gives its outputs and,
        as additional tensors, what crosses the cut.
    """

    def call(*args, **kwargs):
        inputs, options = with_mask_arguments(half.graph, half.shapes, args, kwargs)
        crossing = half.front(inputs, **options)
        outputs = half.rest(crossing, **options)
        return Extended(_keras.flatten(outputs), crossing)

    return call
