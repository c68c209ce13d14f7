"""A read-only view of a functional model: its calls, cut points and dependencies."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert._identity import IdentityMap, IdentitySet
from tiedbert.errors import InputError
from tiedbert.surgery.calls import Call, read_calls
from tiedbert.surgery.names import Names


class Graph:
    """The calls of a model, who makes which tensor, and what a cut point means.

    Args:
        model: a functional model.
        path: where the model lies in the one that a user gave, ``"encoder/"``: for
            messages.
        stand_ins: map, a tensor of another model -> the tensor of this one that is
            meant where a cut point is that tensor.
        given_names: map, a tensor -> the cut point by which a user gave it.
        model_class: the class of a model that has this graph in another form; by
            default that of `model` where inputs and outputs make one.
        nested: map, a nested model -> dict, a path -> its graph. Graphs that share it
            build each of these once. Default: none is built yet.

    Attributes:
        name: the name of the model.
        inputs: its inputs, in their structure.
        outputs: its outputs, in their structure.
        output_names: the names of the outputs, for `compile`.
        calls: the calls in the order in which they run.
        producers: map, a tensor -> the call that gave it.

    Raises:
        InputError: the model has no graph.
    """

    def __init__(
        self,
        model: keras.Model,
        path: str = "",
        *,
        stand_ins: Mapping | None = None,
        given_names: Mapping | None = None,
        model_class: type | None = None,
        nested: IdentityMap | None = None,
    ) -> None:
        # What has the graph inside of a Sequential has another name in Keras 3.
        functional = _keras.functional(model)
        self.name = model.name
        self.path = path
        self._stand_ins = IdentityMap() if stand_ins is None else stand_ins
        self._given_names = IdentityMap() if given_names is None else given_names
        self.model_class = model_class or _keras.class_of_edited(model)
        self.inputs, self.outputs = _keras.structures(functional)
        self.output_names = _keras.output_names(functional)
        self._nested = IdentityMap() if nested is None else nested
        # The paths to one model differ, its calls do not.
        known = next(iter(self._nested.get(model, {}).values()), None)
        if known is None:
            _keras.keep_names_unique(functional)
        self.calls = read_calls(functional) if known is None else known.calls
        self.producers = IdentityMap(
            (t, call) for call in self.calls for t in call.outputs
        )

    def nested(self, layer: keras.Model, path: str = "") -> "Graph":
        """The graph of a nested model; it is built once."""
        graphs = self._nested.setdefault(layer, {})
        if path not in graphs:
            graphs[path] = Graph(layer, path, nested=self._nested)
        return graphs[path]

    def in_another_form(self, model: keras.Model, new: Mapping) -> "Graph":
        """The graph of a model that computes the same.

        Args:
            model: the other model.
            new: map, a tensor of this graph -> the one in its place. Cut points that
                are tensors of this graph mean those.
        """
        stand_ins = IdentityMap(
            (point, new.get(tensor, tensor))
            for point, tensor in self._stand_ins.items()
        )
        stand_ins.update(new.items())
        return Graph(
            model,
            self.path,
            stand_ins=stand_ins,
            model_class=self.model_class,
            nested=self._nested,
        )

    @cached_property
    def input_tensors(self) -> list[tf.Tensor]:
        """The model's inputs as a flat list."""
        return _keras.flatten(self.inputs)

    @cached_property
    def output_tensors(self) -> list[tf.Tensor]:
        """The model's outputs as a flat list."""
        return _keras.flatten(self.outputs)

    @cached_property
    def side_effects(self) -> list[Call]:
        """The calls that add a loss or a metric, which no output needs (Keras 2)."""
        return [call for call in self.calls if _keras.is_side_effect(call.layer)]

    @cached_property
    def nested_models(self) -> IdentitySet:
        """The models among the layers."""
        layers = IdentitySet(call.layer for call in self.calls)
        return IdentitySet(layer for layer in layers if _keras.has_graph(layer))

    # Names

    @cached_property
    def names(self) -> Names:
        """The names of its tensors."""
        return Names(
            self.name, self.path, self.input_tensors, self.calls, self._nested_paths
        )

    def name_of(self, tensor: tf.Tensor) -> str:
        """The name by which a user can pick a tensor of this graph."""
        call = self.producers.get(tensor)
        if call is None:
            return _keras.maker(tensor).name
        return self.names.of_outputs(call)[index_of(tensor, call.outputs)]

    def shown(self, tensor: tf.Tensor) -> str:
        """A tensor as the user of the whole model would name it, for messages."""
        return self._given_names.get(tensor) or self.path + self.name_of(tensor)

    def path_of(self, call: Call) -> str:
        """The path to what is inside the nested model of a call."""
        return f"{self.path}{self.names.of_call(call)}/"

    def _nested_paths(self) -> list[str]:
        """The paths of the layers of nested models."""
        paths = []
        for layer in self.nested_models:
            graph = self.nested(layer)
            names = [*graph.names, *graph._nested_paths()]
            paths += [f"{layer.name}/{name}" for name in names]
        return paths

    # Cut points

    def placed(self, at: Any) -> tuple[dict, list]:
        """Where cut points lie.

        Args:
            at: one cut point, or a list of them.

        Returns:
            ``(here, inside)``: dict, index of a point -> its tensor in this graph; and
            for each call of a nested model with points in it ``(call, points)``, dict,
            index -> the point as that model names it.

        Raises:
            InputError: a point that is none, or that names several tensors.
        """
        here, inside = {}, {}
        for i, point in enumerate(points_of(at)):
            found = self.inside(point)
            if found is None:
                here[i] = self.tensor_at(point)
                continue
            calls, inner_point = found
            call = self._only_call(calls, inner_point)
            if isinstance(inner_point, str):
                # The messages have the whole path.
                self.nested(call.layer, self.path_of(call)).placed(inner_point)
            inside.setdefault(call, {})[i] = inner_point
        self._check_each_once(list(here.values()))
        return here, list(inside.items())

    def tensor_at(self, point: Any) -> tf.Tensor:
        """The tensor that one cut point of this graph names."""
        if isinstance(point, str):
            (tensor,) = self.names.picked(point)
            return tensor
        if not self.owns(point):
            raise InputError(
                f"the tensor {point.name!r} does not belong to model {self.name!r}: "
                "give a tensor of this model, or a layer's name"
            )
        return self._stand_ins.get(point, point)

    def tensors_at(self, point: Any) -> list[tf.Tensor]:
        """Like `tensor_at`, but a bare name means every call of the layer."""
        if isinstance(point, str):
            return self.names.picked(point, every_call=True)
        return [self.tensor_at(point)]

    def calls_at(self, name: str) -> list[Call]:
        """The calls of the layer `name`, or the one call that ``"name:k"`` says."""
        self.names.check_whole_layer(name)
        calls = [self.producers.get(made[0]) for made in self.names.outputs_at(name)]
        if None in calls:
            raise InputError(
                f'"{self.path}{name}" is an input of model {self.name!r}, no layer'
            )
        return calls

    def owns(self, point: Any) -> bool:
        """Whether `point` is a tensor of this graph; InputError if it is no tensor."""
        if not _keras.is_symbolic(point):
            raise InputError(
                "a cut point is a layer name or a symbolic tensor of the model, "
                f"received {type(point).__name__}"
            )
        known = point in self.producers or point in self._stand_ins
        return known or any(point is tensor for tensor in self.input_tensors)

    def inside(self, point: Any) -> tuple[list[Call], Any] | None:
        """Where a point in a nested model lies: (its calls, the point in it), or None.

        The calls are those of the nested model: all of them unless the point says
        which, as in ``"encoder:1/norm"``.
        """
        if not isinstance(point, str):
            return None if self.owns(point) else self._inside_of_tensor(point)
        if self.names.knows(point):
            return None
        outer, slash, inner = self.names.parted(point)
        if not slash:
            return None
        calls = self.calls_at(outer)
        layer = calls[0].layer
        if not _keras.has_graph(layer):
            raise InputError(
                f'"{self.path}{point}" reaches into layer "{layer.name}" '
                f"({type(layer).__name__}), which has no graph inside: the closest "
                f'point is "{self.path}{outer}" itself'
            )
        return calls, inner

    def _inside_of_tensor(self, tensor):
        for layer in self.nested_models:
            graph = self.nested(layer)
            if graph.owns(tensor) or graph.inside(tensor) is not None:
                return [call for call in self.calls if call.layer is layer], tensor
        return None

    def _only_call(self, calls, inner_point) -> Call:
        """The single call among those of a nested model; else InputError lists them."""
        if len(calls) > 1:
            rest = f"/{inner_point}" if isinstance(inner_point, str) else ""
            paths = [f"{self.names.of_call(call)}{rest}" for call in calls]
            self.names.refuse_several(calls[0].layer.name, dict.fromkeys(paths, []))
        return calls[0]

    def _check_each_once(self, tensors) -> None:
        if len(IdentitySet(tensors)) < len(tensors):
            names = [self.name_of(tensor) for tensor in tensors]
            raise InputError(
                f"the cut points {names} name a tensor twice: give it once"
            )

    # What depends on what

    def downstream(self, cut: Sequence) -> list[Call]:
        """The calls that the outputs need and that depend on a tensor of `cut`.

        The calls that make the cut tensors themselves are not among them.

        Raises:
            InputError: a cut tensor depends on another.
        """
        made = IdentitySet(cut)
        effects = [tensor for call in self.side_effects for tensor in call.outputs]
        needed = self.needed_for([*self.output_tensors, *effects], given=cut)
        calls = []
        for call in self.calls:
            if not any(t in made for t in call.inputs):
                continue
            for tensor in call.outputs:
                if tensor in made:
                    raise InputError(_dependent_cut(self.shown(tensor)))
            if call in needed:
                calls.append(call)
            made.update(call.outputs)
        return calls

    def needed_for(self, wanted: Iterable, given: Iterable = ()) -> set[Call]:
        """The calls that make the tensors `wanted` once those `given` are."""
        given = IdentitySet(given)
        wanted = IdentitySet(t for t in wanted if t not in given)
        needed = set()
        for call in reversed(self.calls):
            if any(t in wanted for t in call.outputs):
                needed.add(call)
                wanted.update(t for t in call.inputs if t not in given)
        return needed

    def context(self, cut: Sequence, calls: Sequence[Call]) -> list[tf.Tensor]:
        """What the part after `cut` needs beside the cut tensors, without masks.

        In the order of first use: inputs of the downstream calls that are made
        upstream, then outputs of the model that do not depend on the cut.

        Args:
            cut: the cut tensors.
            calls: what is `downstream` of them.
        """
        made = IdentitySet(cut)
        made.update(tensor for call in calls for tensor in call.outputs)
        read = [tensor for call in calls for tensor in call.inputs]
        context = IdentitySet([*read, *self.output_tensors])
        return [tensor for tensor in context if tensor not in made]


def points_of(at: Any) -> list:
    """One cut point or a list of them, as a list."""
    points = list(at) if isinstance(at, list | tuple) else [at]
    if not points:
        raise InputError("expected at least one cut point, received an empty list")
    return points


def same_points(points: Sequence, others: Sequence) -> bool:
    """Whether two lists of cut points are equal; tensors are so if they are one."""
    return len(points) == len(others) and all(
        a is b or (isinstance(a, str) and isinstance(b, str) and a == b)
        for a, b in zip(points, others, strict=True)
    )


def index_of(tensor: tf.Tensor, tensors: Sequence) -> int:
    """Where a symbolic tensor stands in a list; Keras compares them by value."""
    return next(i for i, other in enumerate(tensors) if other is tensor)


def _dependent_cut(name) -> str:
    return (
        f'cut point "{name}" lies downstream of another cut point: cut points must not '
        "depend on each other; split twice instead"
    )
