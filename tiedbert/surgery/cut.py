"""A functional model cut in two; all that the rest needs crosses."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert._identity import IdentityMap, IdentitySet
from tiedbert.errors import InputError
from tiedbert.surgery.crossing import Crossing, UnreadMask
from tiedbert.surgery.fitting import alike, describe
from tiedbert.surgery.masks.explicit import DropMask, ReadMask, attach, without_mask
from tiedbert.surgery.masks.received import Masks
from tiedbert.surgery.names import unique
from tiedbert.surgery.replay import Substitution, replay


@keras.utils.register_keras_serializable("tiedbert")
class Front(keras.Model):
    """The part before a cut: a functional model that gives a list, even of one.

    Keras unpacks a list of one; ``hidden, *context = front(x)`` must not depend on
    how many tensors cross a cut. Save it as ``.keras``: older formats do not know it.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> list:
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
        masks: a graph, and the masks that arrive in it.
        cut: the cut tensors, of this graph and none downstream of another.
        known_masks: for each of them its mask, where that is a tensor already, or None.
            Default: none is.

    Attributes:
        num_cut: the number of cut tensors, which come first in `tensors`.
        tensors: the crossing tensors, in the order of `split`. Those of a cut inside a
            nested model belong to a copy of the model that has that model split.
        mask_index: for each cut tensor the index of its mask in `tensors`, or None.

    Raises:
        InputError: a cut tensor depends on another, no output depends on one, or masks
            depend on `training`.
    """

    def __init__(
        self,
        masks: Masks,
        cut: Sequence[tf.Tensor],
        known_masks: Sequence | None = None,
    ) -> None:
        self._graph, self._received = masks.graph, masks.received
        crossing = Crossing(masks, cut)
        _check_used(self._graph, crossing)
        self._calls = crossing.calls
        self._masks = _made(crossing.masks())
        attached = IdentitySet(self._masks.values())
        # Keras 3 hands masks to some layers as edges: those are in the context too.
        context = [tensor for tensor in crossing.context if tensor not in attached]
        self.tensors = list(IdentitySet([*cut, *context, *attached]))
        self.num_cut = len(cut)
        self.mask_index = [
            self._index(self._masks.get(tensor, mask))
            for tensor, mask in zip(cut, known_masks or [None] * len(cut), strict=True)
        ]

    def _index(self, mask):
        found = [i for i, tensor in enumerate(self.tensors) if tensor is mask]
        return found[0] if found else None

    def front(self, name: str | None = None) -> Front:
        """The model's inputs -> the list of crossing tensors."""
        name = name or f"{self._graph.name}_front"
        # The masks cross as tensors: a second, implicit copy would only mislead.
        outputs = [
            _passed(without_mask(tensor), self._graph.input_tensors)
            for tensor in self.tensors
        ]
        front = Front(self._graph.inputs, outputs, name=name)
        behind = set(self._calls)
        before = [call for call in self._graph.side_effects if call not in behind]
        _keras.repeat_side_effects(front, before, IdentityMap())
        return front

    def rest(self, name: str | None = None) -> keras.Model:
        """The list of crossing tensors -> the model's outputs."""
        inputs = self.inputs()
        outputs, new = self._behind(inputs)
        name = name or f"{self._graph.name}_rest"
        rest = keras.Model(inputs, outputs, name=name)
        _keras.name_outputs(rest, self._graph.output_names)
        behind = [call for call in self._calls if _keras.is_side_effect(call.layer)]
        _keras.repeat_side_effects(rest, behind, new)
        return rest

    def call_in_rest(self, name: str, index: int) -> int:
        """Which call of a layer, counted in the rest, its `index`-th call is."""
        behind = [call.index for call in self._calls if call.layer.name == name]
        return sum(other < index for other in behind)

    def inputs(self, given: Sequence = ()) -> list[tf.Tensor]:
        """The `given` tensors, then new Inputs for the other crossing tensors.

        Raises:
            InputError: a given tensor has another shape or dtype than the crossing
                tensor, or there are too many.
        """
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

    def outputs(self, inputs: Sequence[tf.Tensor]) -> Any:
        """The model's outputs as functions of `inputs`, one per crossing tensor."""
        return self._behind(inputs)[0]

    def _behind(self, inputs) -> tuple[Any, IdentityMap]:
        """The outputs as functions of `inputs`, and what all old tensors became."""
        substitution = Substitution(zip(self.tensors, inputs, strict=True))
        new = substitution.new
        masked = IdentityMap(
            (tensor, attach(new[tensor], new[mask]))
            for tensor, mask in self._masks.items()
        )
        for tensor, with_mask in masked.items():
            for reader in self._received.get(tensor, ()):
                substitution.add_view(reader, tensor, lambda _, seen=with_mask: seen)
        replay(self._calls, substitution, recorded_masks=True)

        def output(tensor):
            if tensor in masked and None in self._received.get(tensor, ()):
                return masked[tensor]
            return _passed(new[tensor], inputs)

        return _keras.map_structure(output, self._graph.outputs), new


def _made(masks) -> IdentityMap:
    """The same masks as tensors of the graph, those that are none yet."""
    return IdentityMap(
        (tensor, ReadMask(mask.shape)(tensor) if isinstance(mask, UnreadMask) else mask)
        for tensor, mask in masks.items()
    )


def _passed(tensor, inputs):
    """A tensor that may be an input, as an output.

    Keras 3 takes for the output of a model that passes its input through the very
    tensor that the model is called with, and so forgets who made that.
    """
    passed = any(tensor is x for x in inputs)
    if passed and _keras.returns_inputs_themselves():
        return DropMask()(tensor)
    return tensor


def _check_used(graph, crossing) -> None:
    for tensor in crossing.unused():
        raise InputError(
            f"no output of model {graph.name!r} depends on cut point "
            f'"{graph.shown(tensor)}": there is nothing behind this cut'
        )


def _check_stands_for(i, tensor, expected) -> None:
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
