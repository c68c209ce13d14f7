"""The primitive under all surgery: calls of a model made again on other tensors."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert._identity import IdentityMap
from tiedbert.surgery.calls import Call
from tiedbert.surgery.graph import Graph


class Extended(NamedTuple):
    """What a function gives that takes the place of a layer, and gives more than it.

    Attributes:
        outputs: the tensors in the place of the outputs of the layer.
        additional: more tensors.
    """

    outputs: list
    additional: list


class Substitution:
    """What takes the place of tensors and layers when calls are made again.

    Attributes:
        new: map, an old tensor -> the tensor in its place. `replay` adds to it what the
            calls give.
        layers: dict, a call -> the function that is called in place of its layer. It
            gives as many tensors as the call did, or :class:`Extended`.
        after: map, an old tensor -> function of the new tensor in its place, which
            gives the one that takes its place instead.
        views: dict, a call, or None for the outputs of the model -> map, an old tensor
            -> function of `new` that gives what that reader alone is given instead.
    """

    def __init__(
        self,
        new: Iterable = (),
        layers: dict[Call, Callable] | None = None,
        after: Iterable = (),
    ) -> None:
        self.new = IdentityMap(new)
        self.layers = {} if layers is None else layers
        self.after = IdentityMap(after)
        self.views = {}

    def add(self, other: "Substitution") -> None:
        """Take over the layers and the functions after tensors of `other`."""
        self.layers.update(other.layers)
        self.after.update(other.after.items())

    def add_view(self, reader: Call | None, tensor: tf.Tensor, view: Callable) -> None:
        """Let a call, or the outputs (None), be given ``view(new)`` for a tensor."""
        self.views.setdefault(reader, IdentityMap())[tensor] = view

    def tensor(self, reader: Call | None, tensor: tf.Tensor) -> tf.Tensor:
        """What a call, or the outputs of the model (None), is given for a tensor."""
        view = self.views[reader].get(tensor) if reader in self.views else None
        return self.new.get(tensor, tensor) if view is None else view(self.new)

    def layer(self, call: Call) -> Callable:
        """What is called in place of the layer of a call."""
        return self.layers.get(call, call.layer)

    def reaches(self, call: Call) -> bool:
        """Whether a call has to be made again."""
        if call in self.layers:
            return True
        reached = call in self.views or any(t in self.new for t in call.inputs)
        return reached and not _keras.is_side_effect(call.layer)


def replay(
    calls: Iterable[Call], substitution: Substitution, recorded_masks: bool = False
) -> dict[Call, list]:
    """Call the layers of `calls` again, on the tensors that a substitution gives.

    A tensor without a substitute stays itself, and a call that nothing new reaches is
    not made again. The calls of one layer are made again in the order in which they
    were made.

    Args:
        calls: calls of one graph.
        substitution: what takes the place of tensors and layers; what the calls give
            is added to its `new`.
        recorded_masks: give each call the masks that Keras once filled in for it and
            recorded, and no others; else those of its new arguments.

    Returns:
        dict, a call -> the additional tensors of the :class:`Extended` that the
        function in place of its layer gave.
    """
    additional = {}
    for call in sorted(calls, key=lambda call: call.place):
        outputs = call.outputs
        if substitution.reaches(call):
            args, kwargs = _arguments(call, substitution, recorded_masks)
            outputs = substitution.layer(call)(*args, **kwargs)
            if isinstance(outputs, Extended):
                outputs, additional[call] = outputs
            outputs = _keras.flatten(outputs)
        for old, tensor in zip(call.outputs, outputs, strict=True):
            if recorded_masks and _keras.implicit_mask(old) is None:
                _keras.forget_mask(tensor)
            if old in substitution.after:
                tensor = substitution.after[old](tensor)
            if tensor is not old:
                substitution.new[old] = tensor
    return additional


def outputs_of(graph: Graph, substitution: Substitution) -> Any:
    """The outputs of a graph after `replay`, in their structure."""
    return _keras.map_structure(
        lambda tensor: substitution.tensor(None, tensor), graph.outputs
    )


def model_of(graph: Graph, substitution: Substitution) -> keras.Model:
    """The model of a graph after `replay`, with its inputs, name and output names."""
    model = keras.Model(graph.inputs, outputs_of(graph, substitution), name=graph.name)
    _keras.name_outputs(model, graph.output_names)
    _keras.repeat_side_effects(model, graph.side_effects, substitution.new)
    return model


def _arguments(call, substitution, recorded_masks) -> tuple[tuple, dict]:
    """The `args` and `kwargs` of `call` with new tensors for old ones."""
    given = IdentityMap()  # one view where a call reads a tensor twice

    def mapped(value):
        if not _keras.is_symbolic(value):
            return value
        if value not in given:
            given[value] = substitution.tensor(call, value)
        return given[value]

    implicit = {} if recorded_masks else _keras.masks_filled_in(call)
    kwargs = {name: call.kwargs[name] for name in call.kwargs if name not in implicit}
    args, kwargs = _keras.map_structure(mapped, (tuple(call.args), kwargs))
    for name, argument in implicit.items():
        # Keras would not record it beside another keyword argument, and a layer can
        # take the mask off its input before this call runs.
        tensors = _keras.map_structure(mapped, argument)
        masks = _keras.map_structure(_keras.implicit_mask, tensors)
        if any(_keras.is_symbolic(mask) for mask in _keras.flatten(masks)):
            kwargs[name] = masks
    return args, kwargs
