"""A functional model cut in two, whatever crosses the cut handed over."""

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError
from tiedbert.explicit_mask import AttachMask, DropMask, mask_of, without_mask
from tiedbert.graph import Graph
from tiedbert.surgery.edit import unique
from tiedbert.surgery.masks_received import masks_received
from tiedbert.surgery.replay import replay


@keras.utils.register_keras_serializable("tiedbert")
class Front(keras.Model):
    """The part before a cut: a functional model that gives a list, even of one.

    Keras unpacks a list of one; ``hidden, *context = front(x)`` must not depend on
    how many tensors cross a cut. Save it as ``.keras``: older formats do not know it.
    """

    def call(self, inputs, training=None, mask=None):
        """Return the crossing tensors as a list."""
        outputs = super().call(inputs, training=training, mask=mask)
        # New tensors, free of implicit masks: those cross as tensors of their own.
        return [tf.identity(tensor) for tensor in _keras.flatten(outputs)]


class Cut:
    """The tensors that cross a cut of `model`, and the models on its two sides.

    Attributes:
        width: the number of cut tensors, which come first in `tensors`.
        tensors: the crossing tensors, in the order of `split`. Those of a cut inside a
            nested model belong to a copy of the model that has that model split.
        mask_index: for each cut tensor the index of its mask in `tensors`, or None.
    """

    def __init__(self, model, at):
        self._graph, cut, masks_inside = _opened(Graph(model), at)
        self._calls = self._graph.downstream(cut)
        _check_leads_to_an_output(self._graph, cut, self._calls)
        self._received = masks_received(self._graph)
        context = self._graph.context(cut)
        self._masks = self._masks_to_attach(cut, context)
        masks = {id(mask): mask for mask in self._masks.values()}
        # Keras 3 hands masks to some layers as edges: those are in the context too.
        context = [tensor for tensor in context if id(tensor) not in masks]
        crossing = [*cut, *context, *masks.values()]
        self.tensors = list({id(tensor): tensor for tensor in crossing}.values())
        self.width = len(cut)
        self.mask_index = [
            self._index(self._masks.get(id(tensor), inside))
            for tensor, inside in zip(cut, masks_inside, strict=True)
        ]

    def _masks_to_attach(self, cut, context) -> dict:
        """id of a crossing tensor -> its mask, where a call behind the cut needs it.

        The mask of a cut tensor crosses in any case: it tells what is padding.
        """
        readers = [*map(id, self._calls), None]
        masks = {}
        for tensor in [*cut, *context]:
            ranks = [self._received.get((reader, id(tensor))) for reader in readers]
            rank = next((rank for rank in ranks if rank is not None), None)
            if rank is not None or any(tensor is point for point in cut):
                mask = mask_of(tensor, rank)
                masks.update({} if mask is None else {id(tensor): mask})
        return masks

    def _index(self, mask):
        found = [i for i, tensor in enumerate(self.tensors) if tensor is mask]
        return found[0] if found else None

    def front(self, name=None):
        """The model's inputs -> the list of crossing tensors."""
        name = name or f"{self._graph.name}_front"
        # The masks cross as tensors: a second, implicit copy would only mislead.
        outputs = [
            _passed(without_mask(tensor), self._graph.input_tensors)
            for tensor in self.tensors
        ]
        front = Front(self._graph.inputs, outputs, name=name)
        behind = {id(call) for call in self._calls}
        before = [call for call in self._graph.side_effects if id(call) not in behind]
        _keras.repeat_side_effects(front, before, {})
        return front

    def rest(self, name=None):
        """The list of crossing tensors -> the model's outputs."""
        inputs = self.inputs()
        outputs, new = self._behind(inputs)
        name = name or f"{self._graph.name}_rest"
        rest = keras.Model(inputs, outputs, name=name)
        behind = [call for call in self._calls if _keras.side_effect(call.layer)]
        _keras.repeat_side_effects(rest, behind, new)
        return rest

    def inputs(self, given=()) -> list:
        """The `given` tensors, then new Inputs for the other crossing tensors."""
        if len(given) > len(self.tensors):
            raise InputError(
                f"{len(self.tensors)} tensors cross this cut, received "
                f"{len(given)} input layers"
            )
        names = _unique_names(f"{_keras.maker(t).name}_crossing" for t in self.tensors)
        missing = list(zip(self.tensors, names, strict=True))[len(given) :]
        return [*given, *(_keras.input_like(tensor, name) for tensor, name in missing)]

    def outputs(self, inputs):
        """The model's outputs as functions of `inputs`, one per crossing tensor."""
        return self._behind(inputs)[0]

    def _behind(self, inputs):
        """The outputs as functions of `inputs`, and what all old tensors became."""
        new = {id(old): x for old, x in zip(self.tensors, inputs, strict=True)}
        masked = {
            tensor_id: _attach(new[tensor_id], new[id(mask)])
            for tensor_id, mask in self._masks.items()
        }
        seen_by = {
            (reader, tensor_id): masked[tensor_id]
            for reader, tensor_id in self._received
            if tensor_id in masked
        }
        replay(self._calls, new, recorded_masks=True, seen_by=seen_by)

        def output(tensor):
            seen = seen_by.get((None, id(tensor)))
            return _passed(new[id(tensor)], inputs) if seen is None else seen

        return _keras.map_structure(output, self._graph.outputs), new


def _attach(tensor, mask):
    return AttachMask()([tensor, mask])


def _passed(tensor, inputs):
    """A tensor that may be an input, as an output.

    Keras 3 takes for the output of a model that passes its input through the very
    tensor that the model is called with, and so forgets who made that.
    """
    if _keras.LEGACY or not any(tensor is x for x in inputs):
        return tensor
    return DropMask()(tensor)


def _check_leads_to_an_output(graph, cut, calls):
    used = {id(t) for call in calls for t in call.inputs}
    used.update(id(t) for t in graph.output_tensors)
    for tensor in cut:
        if id(tensor) not in used:
            raise InputError(
                f"no output of model {graph.name!r} depends on cut point "
                f'"{_keras.maker(tensor).name}": there is nothing behind this cut'
            )


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
    halves = [_Halves(call, points, received, names) for call, points in inside]
    new = {}
    seen_by = {key: t for half in halves for key, t in half.unmasked(graph, received)}
    instead = {id(half.call): half for half in halves}
    replay(graph.calls, new, recorded_masks=True, seen_by=seen_by, instead=instead)

    def output(tensor):
        seen = seen_by.get((None, id(tensor)))
        return new.get(id(tensor), tensor) if seen is None else seen

    outputs = _keras.map_structure(output, graph.outputs)
    opened = keras.Model(graph.inputs, outputs, name=graph.name)
    _keras.repeat_side_effects(opened, graph.side_effects, new)
    points = {i: (new.get(id(tensor), tensor), None) for i, tensor in here.items()}
    for half in halves:
        points.update(half.crossing)
    cut, masks = zip(*(points[i] for i in sorted(points)), strict=True)
    return Graph(opened), list(cut), list(masks)


class Inner:
    """A call of a nested model, seen from inside.

    Attributes:
        call: the call.
        model: the nested model, the masks that reach its inputs made inputs as well.
    """

    def __init__(self, call, received):
        self.call = call
        self._model = Graph(call.layer)
        self._ranks = self._mask_ranks(received)
        self._new = {}
        self.model = (
            _with_masks(self._model, self._ranks, self._new)
            if self._ranks
            else call.layer
        )

    def point(self, point):
        """A point of the nested model in `model`, whose tensors may be others."""
        return self._new.get(id(point), point)

    def _mask_ranks(self, received) -> dict:
        """index of an input -> rank of the mask with which it reaches the model."""
        tensors = self._flat(self.call.args, self.call.kwargs)
        given = _given_masks(self.call.kwargs, len(tensors))
        ranks = {}
        for i, tensor in enumerate(tensors):
            rank = received.get((id(self.call), id(tensor)))
            if given[i] is not None or rank is not None:
                ranks[i] = rank if given[i] is None else len(given[i].shape)
        return ranks

    def _flat(self, args, kwargs) -> list:
        """The inputs of a call of the nested model, in the order of its own."""
        inputs = args[0] if args else kwargs["inputs"]
        if isinstance(inputs, dict):
            inputs = {name: inputs[name] for name in self._model.inputs}
        return _keras.flatten(inputs)


class _Halves(Inner):
    """What takes the place of a nested model's call: its front, then its rest.

    Attributes:
        crossing: once called: index of a cut point -> (its tensor, its mask or None).
    """

    def __init__(self, call, points, received, names):
        super().__init__(call, received)
        self.crossing = {}
        self._indices = list(points)
        self._cut = Cut(self.model, [self.point(point) for point in points.values()])
        name = call.layer.name
        self._front = self._cut.front(unique(f"{name}_front", names))
        self._rest = self._cut.rest(unique(f"{name}_rest", names))

    def unmasked(self, graph, received):
        """What else reads a masked input of the nested model, but receives no mask.

        MultiHeadAttention of Keras 3 takes the mask off its input, in a nested model
        off the tensor outside; the front of that model gets a copy instead. Yields
        ``(id of a call or None for an output, id of the tensor), tensor``.
        """
        tensors = self._flat(self.call.args, self.call.kwargs)
        for tensor in [tensors[i] for i in self._ranks]:
            keys = [
                (reader, id(tensor))
                for reader, read in graph.readers()
                if reader != id(self.call) and any(t is tensor for t in read)
            ]
            stripped = [key for key in keys if key not in received]
            if stripped:
                bare = DropMask()(tensor)
                yield from ((key, bare) for key in stripped)

    def __call__(self, *args, **kwargs):
        """The outputs of the nested model."""
        options = {k: v for k, v in kwargs.items() if k == "training"}
        if self._ranks:
            inputs = self._flat(args, kwargs)
            given = _given_masks(kwargs, len(inputs))
            masks = [
                mask_of(inputs[i], rank) if given[i] is None else given[i]
                for i, rank in self._ranks.items()
            ]
            # Keras warns of implicit masks that enter a model; they are explicit here.
            inputs = [
                DropMask()(x) if i in self._ranks else x for i, x in enumerate(inputs)
            ]
            crossing = self._front([*inputs, *masks], **options)
        else:
            crossing = self._front(*args, **kwargs)
        for i, index in enumerate(self._indices):
            mask = self._cut.mask_index[i]
            known = None if mask is None else crossing[mask]
            self.crossing[index] = crossing[i], known
        return self._rest(crossing, **options)


def _given_masks(kwargs, count) -> list:
    """The masks that a call of a model is given by keyword, one per input."""
    masks = _keras.flatten(kwargs.get("mask"))
    return masks if len(masks) == count else [None] * count


def _with_masks(graph, ranks, new):
    """A nested model that takes the masks of its inputs as inputs of their own.

    Its own symbolic tensors know nothing of masks that come from outside. What they
    became is added to `new`, dict, id of an old tensor -> the new one.
    """
    old = graph.input_tensors
    inputs = [_keras.input_like(t, _keras.maker(t).name) for t in old]
    masks = [
        keras.Input((None,) * (rank - 1), dtype="bool", name=f"{inputs[i].name}_mask")
        for i, rank in ranks.items()
    ]
    new.update({id(tensor): x for tensor, x in zip(old, inputs, strict=True)})
    for i, mask in zip(ranks, masks, strict=True):
        new[id(old[i])] = _attach(inputs[i], mask)
        _keras.forget_mask(new[id(old[i])])
    replay(graph.calls, new, recorded_masks=True)
    outputs = _keras.map_structure(lambda tensor: new[id(tensor)], graph.outputs)
    model = keras.Model([*inputs, *masks], outputs, name=graph.name)
    _keras.repeat_side_effects(model, graph.side_effects, new)
    return model


def _unique_names(names) -> list:
    seen = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return unique
