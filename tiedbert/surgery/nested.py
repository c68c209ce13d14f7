"""Cut points at any depth: nested models are opened, then there is one graph to cut."""

import copy

from tensorflow import keras

from tiedbert import _keras
from tiedbert.surgery.cut import Cut, attach
from tiedbert.surgery.edit import unique
from tiedbert.surgery.graph import Graph, model_arguments, points_of
from tiedbert.surgery.masks.explicit import DropMask, mask_of
from tiedbert.surgery.masks.order import settled
from tiedbert.surgery.masks.received import (
    flat_arguments,
    mask_shapes,
    masks_received,
)
from tiedbert.surgery.replay import outputs_of, replay


def cut_at(model, at, path=""):
    """The :class:`Cut` of a functional model at cut points as `split` takes them.

    `path`: where the model lies in the one of the user, for messages.
    """
    graph = Graph(model, path)
    return Cut(*_opened(settled(graph, points_of(at)), at))


def _opened(graph, at):
    """`graph` with each nested model that holds a cut point split at it.

    Returns:
        ``(graph, tensors, masks)``: the graph itself when no point is nested, else one
        of a new model; the tensors in it that `at` names; and for each of them the
        tensor that is its mask where a nested cut made it explicit, or None.
    """
    here, inside = graph.placed(at)
    if not inside:
        return graph, list(here.values()), [None] * len(here)
    received = masks_received(graph)
    names = graph.names
    halves = []
    for call, points in inside:
        same = [h for h in halves if h.fits(call, received) and h.has(points)]
        half = same[0].again(call, points) if same else None
        halves.append(half or _Halves(graph, call, points, received, names))
    halves += _siblings(graph, halves, received)
    new = {}
    instead = {id(half.call): half for half in halves}
    replay(graph.calls, new, recorded_masks=True, instead=instead)
    outputs = outputs_of(graph, new)
    opened = keras.Model(graph.inputs, outputs, name=graph.name)
    _keras.name_outputs(opened, graph.output_names)
    _keras.repeat_side_effects(opened, graph.side_effects, new)
    points = {i: (new.get(id(tensor), tensor), None) for i, tensor in here.items()}
    for half in halves[: len(inside)]:
        points.update(half.crossing)
    cut, masks = zip(*(points[i] for i in sorted(points)), strict=True)
    given = zip(cut, points_of(at), strict=True)
    shown = {id(t): graph.path + p for t, p in given if isinstance(p, str)}
    return Graph(opened, graph.path, points=shown), list(cut), list(masks)


class Inner:
    """A call of a nested model, seen from inside.

    Attributes:
        call: the call.
        model: the nested model, the masks that reach its inputs made inputs as well.
    """

    def __init__(self, call, received):
        self.call = call
        self._model = Graph(call.layer)
        self._shapes = mask_shapes(self._model, call, received)
        self._new = {}
        self.model = (
            _with_masks(self._model, self._shapes, self._new)
            if self._shapes
            else call.layer
        )

    def point(self, point):
        """A point of the nested model in `model`, whose tensors may be others."""
        return self._new.get(id(point), point)


def _siblings(graph, halves, received) -> list:
    """The other calls of nested models that are split in one call, split alike.

    Keras cannot save a layer that is in two models: a part and the whole.
    """
    split = {id(half.call) for half in halves}
    siblings = []
    for call in graph.calls:
        alike = next((h for h in halves if h.fits(call, received)), None)
        if alike is not None and id(call) not in split:
            siblings.append(alike.again(call))
    return siblings


class _Halves(Inner):
    """What takes the place of a nested model's call: its front, then its rest.

    Attributes:
        crossing: once called: index of a cut point -> (its tensor, its mask or None).
    """

    def __init__(self, graph, call, points, received, names):
        super().__init__(call, received)
        self.crossing = {}
        self._points = points
        path = f"{graph.path}{graph.call_name(call)}/"
        self._cut = cut_at(self.model, [self.point(p) for p in points.values()], path)
        name = call.layer.name
        self._front = self._cut.front(unique(f"{name}_front", names))
        self._rest = self._cut.rest(unique(f"{name}_rest", names))

    def has(self, points) -> bool:
        """Whether it is cut at these points."""
        return all(
            a is b or (isinstance(a, str) and a == b)
            for a, b in zip(self._points.values(), points.values(), strict=False)
        ) and len(points) == len(self._points)

    def again(self, call, points=None):
        """The same halves for another call of the nested model."""
        twin = copy.copy(self)
        twin.call, twin.crossing = call, {}
        twin._points = self._points if points is None else points
        return twin

    def fits(self, call, received) -> bool:
        """Whether another call of the nested model can be made in the same halves."""
        same = call.layer is self.call.layer
        return same and mask_shapes(self._model, call, received) == self._shapes

    def __call__(self, *args, **kwargs):
        """The outputs of the nested model."""
        inputs, given, options = flat_arguments(self._model, args, kwargs)
        if self._shapes:
            masks = [
                mask_of(inputs[i], shape) if given[i] is None else given[i]
                for i, shape in self._shapes.items()
            ]
            # Keras warns of implicit masks that enter a model; they are explicit here.
            inputs = [
                DropMask()(x) if i in self._shapes else x for i, x in enumerate(inputs)
            ]
            inputs = [*inputs, *masks]
        else:
            inputs, _ = model_arguments(self._model, args, kwargs)
        crossing = self._front(inputs, **options)
        for i, index in enumerate(self._points):
            mask = self._cut.mask_index[i]
            known = None if mask is None else crossing[mask]
            self.crossing[index] = crossing[i], known
        return self._rest(crossing, **options)


def _with_masks(graph, shapes, new):
    """A nested model that takes the masks of its inputs as inputs of their own.

    Its own symbolic tensors know nothing of masks that come from outside. What they
    became is added to `new`, dict, id of an old tensor -> the new one.
    """
    old = graph.input_tensors
    inputs = [_keras.input_like(t, _keras.maker(t).name) for t in old]
    masks = [
        keras.Input(shape[1:], dtype="bool", name=f"{inputs[i].name}_mask")
        for i, shape in shapes.items()
    ]
    new.update({id(tensor): x for tensor, x in zip(old, inputs, strict=True)})
    for i, mask in zip(shapes, masks, strict=True):
        new[id(old[i])] = attach(inputs[i], mask)
        _keras.forget_mask(new[id(old[i])])
    replay(graph.calls, new, recorded_masks=True)
    outputs = outputs_of(graph, new)
    model = keras.Model([*inputs, *masks], outputs, name=graph.name)
    _keras.repeat_side_effects(model, graph.side_effects, new)
    return model
