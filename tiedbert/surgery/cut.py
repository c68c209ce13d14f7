"""A functional model cut in two, whatever crosses the cut handed over."""

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError
from tiedbert.surgery.edit import alike, describe, unique
from tiedbert.surgery.masks.explicit import AttachMask, DropMask, mask_of, without_mask
from tiedbert.surgery.masks.order import check_in_both_modes
from tiedbert.surgery.masks.received import masks_received
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
        return [
            None if tensor is None else tf.identity(tensor)  # None: an optional input
            for tensor in _keras.flatten(outputs)
        ]


class Cut:
    """The tensors that cross a cut of a graph, and the models on its two sides.

    Args:
        graph: the calls of a model.
        cut: the cut tensors, of this graph and none downstream of another.
        masks: for each of them its mask, where that is a tensor already, or None.

    Attributes:
        width: the number of cut tensors, which come first in `tensors`.
        tensors: the crossing tensors, in the order of `split`. Those of a cut inside a
            nested model belong to a copy of the model that has that model split.
        mask_index: for each cut tensor the index of its mask in `tensors`, or None.
    """

    def __init__(self, graph, cut, masks):
        self._graph = graph
        self._calls = self._graph.downstream(cut)
        _check_leads_to_an_output(self._graph, cut, self._calls)
        self._received = masks_received(self._graph)
        context = self._graph.context(cut)
        self._masks = self._masks_to_attach(cut, context)
        attached = {id(mask): mask for mask in self._masks.values()}
        # Keras 3 hands masks to some layers as edges: those are in the context too.
        context = [tensor for tensor in context if id(tensor) not in attached]
        crossing = [*cut, *context, *attached.values()]
        self.tensors = list({id(tensor): tensor for tensor in crossing}.values())
        self.width = len(cut)
        self.mask_index = [
            self._index(self._masks.get(id(tensor), mask))
            for tensor, mask in zip(cut, masks, strict=True)
        ]

    def _masks_to_attach(self, cut, context) -> dict:
        """id of a crossing tensor -> its mask, where a call behind the cut needs it.

        The mask of a cut tensor crosses in any case: it tells what is padding.
        """
        readers = [*map(id, self._calls), None]
        masks = {}
        for tensor in [*cut, *context]:
            keys = [(reader, id(tensor)) for reader in readers]
            check_in_both_modes(self._graph, self._received, tensor, keys)
            shapes = [self._received[key] for key in keys if key in self._received]
            if shapes or any(tensor is point for point in cut):
                mask = mask_of(tensor, *shapes[:1])
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
        _keras.name_outputs(rest, self._graph.output_names)
        behind = [call for call in self._calls if _keras.is_side_effect(call.layer)]
        _keras.repeat_side_effects(rest, behind, new)
        return rest

    def call_in_rest(self, name, index) -> int:
        """Which call of a layer, counted in the rest, its `index`-th call is."""
        behind = [call.index for call in self._calls if call.layer.name == name]
        return sum(other < index for other in behind)

    def inputs(self, given=()) -> list:
        """The `given` tensors, then new Inputs for the other crossing tensors."""
        if len(given) > len(self.tensors):
            raise InputError(
                f"{len(self.tensors)} tensors cross this cut, received "
                f"{len(given)} input layers"
            )
        for i, (tensor, expected) in enumerate(
            zip(given, self.tensors[: len(given)], strict=True)
        ):
            _check_stands_for(i, tensor, expected)
        taken = set()
        names = [
            unique(f"{_keras.maker(tensor).name}_crossing", taken)
            for tensor in self.tensors
        ]
        missing = list(zip(self.tensors, names, strict=True))[len(given) :]
        return [*given, *(_keras.input_like(tensor, name) for tensor, name in missing)]

    def outputs(self, inputs):
        """The model's outputs as functions of `inputs`, one per crossing tensor."""
        return self._behind(inputs)[0]

    def _behind(self, inputs):
        """The outputs as functions of `inputs`, and what all old tensors became."""
        new = {id(old): x for old, x in zip(self.tensors, inputs, strict=True)}
        masked = {
            tensor_id: attach(new[tensor_id], new[id(mask)])
            for tensor_id, mask in self._masks.items()
        }
        seen_by = {
            (reader, tensor_id): lambda _, seen=masked[tensor_id]: seen
            for reader, tensor_id in self._received
            if tensor_id in masked
        }
        replay(self._calls, new, recorded_masks=True, seen_by=seen_by)

        def output(tensor):
            if (None, id(tensor)) in seen_by:
                return masked[id(tensor)]
            return _passed(new[id(tensor)], inputs)

        return _keras.map_structure(output, self._graph.outputs), new


def attach(tensor, mask):
    """`tensor` with `mask` as its implicit mask."""
    return AttachMask()([tensor, mask])


def _passed(tensor, inputs):
    """A tensor that may be an input, as an output.

    Keras 3 takes for the output of a model that passes its input through the very
    tensor that the model is called with, and so forgets who made that.
    """
    passed = any(tensor is x for x in inputs)
    if passed and _keras.returns_inputs_themselves():
        return DropMask()(tensor)
    return tensor


def _check_leads_to_an_output(graph, cut, calls):
    used = {id(t) for call in calls for t in call.inputs}
    used.update(id(t) for t in graph.output_tensors)
    for tensor in cut:
        if id(tensor) not in used:
            raise InputError(
                f"no output of model {graph.name!r} depends on cut point "
                f'"{graph.shown(tensor)}": there is nothing behind this cut'
            )


def _check_stands_for(i, tensor, expected):
    received = type(tensor).__name__
    if _keras.is_symbolic(tensor):
        if alike(tensor, expected):
            return
        received = describe(tensor)
    raise InputError(
        f"input layer {i} stands for what "
        f'"{_keras.maker(expected).name}" gives, {describe(expected)}: received '
        f"{received}"
    )
