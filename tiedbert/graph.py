"""A read-only view of a functional model: calls, producers, crossing tensors."""

import difflib
from dataclasses import dataclass
from functools import cached_property

from tiedbert import _keras
from tiedbert.errors import InputError


@dataclass(frozen=True, eq=False)
class Call:
    """One use of a layer: the `index`-th of that layer in this model, from 0.

    Calls count in the order in which they were made.
    """

    layer: object
    index: int
    args: tuple
    kwargs: dict
    inputs: list
    outputs: list


class Graph:
    """The calls of `model` in topological order, and who makes which tensor."""

    def __init__(self, model):
        # What has the graph inside of a Sequential has another name in Keras 3.
        graph = _keras.functional(model)
        self.name = model.name
        #: The class of a model that has this graph in another form.
        self.kind = _keras.kind_of_edited(model)
        self.inputs, self.outputs = _keras.structures(graph)
        self.calls = _numbered(_keras.calls(graph))
        self.producers = {id(t): call for call in self.calls for t in call.outputs}

    @cached_property
    def input_tensors(self) -> list:
        """The model's inputs as a flat list."""
        return _keras.flatten(self.inputs)

    @cached_property
    def output_tensors(self) -> list:
        """The model's outputs as a flat list."""
        return _keras.flatten(self.outputs)

    def readers(self):
        """(id of a call, its inputs) for each call, then (None, the outputs)."""
        yield from ((id(call), call.inputs) for call in self.calls)
        yield None, self.output_tensors

    @cached_property
    def side_effects(self) -> list:
        """The calls that add a loss or a metric, which no output needs (Keras 2)."""
        return [call for call in self.calls if _keras.side_effect(call.layer)]

    @property
    def names(self) -> set:
        """The names of its inputs and layers."""
        return set(self._by_name)

    @cached_property
    def _by_name(self) -> dict:
        """name -> the list of output lists of each call of that layer."""
        table = {}
        for tensor in self.input_tensors:
            table.setdefault(_keras.maker(tensor).name, []).append([tensor])
        for call in sorted(self.calls, key=lambda call: call.index):
            table.setdefault(call.layer.name, []).append(call.outputs)
        return table

    def resolve(self, at) -> list:
        """The tensors of this graph that `at` names: one cut point, or a list."""
        return _each_once([self.tensor_at(point) for point in points_of(at)])

    def placed(self, at) -> tuple:
        """Where cut points lie.

        Returns:
            ``(here, inside)``: dict, index of a point -> its tensor in this graph; and
            for each call of a nested model with points in it ``(call, points)``, dict,
            index -> the point as that model names it.
        """
        here, inside = {}, {}
        for i, point in enumerate(points_of(at)):
            found = self.inside(point)
            if found is None:
                here[i] = self.tensor_at(point)
                continue
            calls, inner_point = found
            call = only_one(calls, calls[0].layer.name, self.name)
            inside.setdefault(id(call), (call, {}))[1][i] = inner_point
        _each_once(list(here.values()))
        return here, list(inside.values())

    def tensor_at(self, point):
        """The tensor that one cut point of this graph names."""
        if isinstance(point, str):
            return _only_tensor(self._named(point), point, self.name)
        if not self.owns(point):
            raise InputError(
                f"the tensor {point.name!r} does not belong to model {self.name!r}: "
                "give a tensor of this model, or a layer's name"
            )
        return point

    def tensors_at(self, point) -> list:
        """Like `tensor_at`, but a bare name means every call of the layer."""
        if isinstance(point, str):
            return [
                _only_tensor([outputs], point, self.name)
                for outputs in self._named(point)
            ]
        return [self.tensor_at(point)]

    def calls_at(self, name) -> list:
        """The calls of the layer `name`, or the one call that ``"name:k"`` says."""
        calls = [self.producers.get(id(outputs[0])) for outputs in self._named(name)]
        if None in calls:
            raise InputError(f'"{name}" is an input of model {self.name!r}, no layer')
        return calls

    def owns(self, point) -> bool:
        """Whether `point` is a tensor of this graph; InputError if it is no tensor."""
        if not _keras.is_symbolic(point):
            raise InputError(
                "a cut point is a layer name or a symbolic tensor of the model, "
                f"received {type(point).__name__}"
            )
        return id(point) in self.producers or any(
            point is tensor for tensor in self.input_tensors
        )

    def inside(self, point):
        """Where a point in a nested model lies: (its calls, the point in it), or None.

        The calls are those of the nested model: all of them unless the point says
        which, as in ``"encoder:1/norm"``.
        """
        if not isinstance(point, str):
            return None if self.owns(point) else self._inside_of_tensor(point)
        if _split_name(point, self._by_name)[0] in self._by_name:
            return None
        outer, slash, inner = self._parted(point)
        if not slash:
            return None
        calls = self.calls_at(outer)
        if not _keras.has_graph(calls[0].layer):
            name = calls[0].layer.name
            raise InputError(
                f'"{point}" reaches into layer "{name}" '
                f"({type(calls[0].layer).__name__}), which has no graph inside: the "
                f'closest point is "{outer}" itself'
            )
        return calls, inner

    def _parted(self, point) -> tuple:
        """``"outer/inner"`` in two; Keras 2 allows a slash in a layer's own name."""
        slashes = [i for i, letter in enumerate(point) if letter == "/"]
        for i in reversed(slashes):
            if _split_name(point[:i], self._by_name)[0] in self._by_name:
                return point[:i], "/", point[i + 1 :]
        return point.partition("/")

    def _inside_of_tensor(self, tensor):
        for call in self.calls:
            if _keras.has_graph(call.layer):
                graph = Graph(call.layer)
                if graph.owns(tensor) or graph.inside(tensor) is not None:
                    return [c for c in self.calls if c.layer is call.layer], tensor
        return None

    def _named(self, point) -> list:
        """The output lists of the calls that a name picks."""
        name, which = _split_name(point, self._by_name)
        calls = self._by_name.get(name)
        if calls is None:
            raise InputError(self._no_such_layer(name))
        if which is None:
            return calls
        if which >= len(calls):
            raise InputError(
                f'"{point}" asks for call {which} of layer "{name}", which is called '
                f"{len(calls)} time(s) in model {self.name!r}, counted from 0"
            )
        return [calls[which]]

    def _no_such_layer(self, name) -> str:
        names = list(self._by_name)
        nested = [f"{outer}/{name}" for outer in self._nested_with(name)]
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.6) or names[:3]
        return (
            f'no layer "{name}" in model {self.name!r}: did you mean '
            + ", ".join(f'"{n}"' for n in nested or close)
            + "?"
        )

    def _nested_with(self, name) -> list:
        """The paths of the nested models that have a layer `name`."""
        paths = []
        for layer in {id(call.layer): call.layer for call in self.calls}.values():
            if _keras.has_graph(layer):
                graph = Graph(layer)
                paths += [layer.name] if name in graph._by_name else []
                paths += [f"{layer.name}/{path}" for path in graph._nested_with(name)]
        return paths

    def downstream(self, cut) -> list:
        """The calls that the outputs need and that depend on a tensor of `cut`.

        The calls that make the cut tensors themselves are not among them.
        """
        made = {id(t) for t in cut}
        effects = [tensor for call in self.side_effects for tensor in call.outputs]
        needed = self.needed_for([*self.output_tensors, *effects], given=cut)
        calls = []
        for call in self.calls:
            makes_cut = any(id(t) in made for t in call.outputs)
            depends = any(id(t) in made for t in call.inputs)
            if makes_cut and depends:
                raise InputError(_nested_cut(call))
            if depends and id(call) in needed:
                calls.append(call)
            if depends:
                made.update(id(t) for t in call.outputs)
        return calls

    def needed_for(self, wanted, given=()) -> set:
        """ids of the calls that make the tensors `wanted` once those `given` are."""
        given = {id(t) for t in given}
        needed, wanted = set(), {id(t) for t in wanted} - given
        for call in reversed(self.calls):
            if any(id(t) in wanted for t in call.outputs):
                needed.add(id(call))
                wanted.update({id(t) for t in call.inputs} - given)
        return needed

    def context(self, cut) -> list:
        """What the part after `cut` needs beside the cut tensors, without masks.

        In the order of first use: inputs of downstream calls that are made upstream,
        then outputs of the model that do not depend on the cut.
        """
        calls = self.downstream(cut)
        known = {id(t) for t in cut}
        known.update(id(t) for call in calls for t in call.outputs)
        needed = [t for call in calls for t in call.inputs] + self.output_tensors
        context = []
        for tensor in needed:
            if id(tensor) not in known:
                known.add(id(tensor))
                context.append(tensor)
        return context


def _numbered(raw_calls) -> list:
    orders = {}
    for raw in raw_calls:
        orders.setdefault(id(raw.layer), []).append(raw.order)
    return [
        Call(
            raw.layer,
            sorted(orders[id(raw.layer)]).index(raw.order),
            raw.args,
            raw.kwargs,
            raw.inputs,
            raw.outputs,
        )
        for raw in raw_calls
    ]


def model_arguments(graph, args, kwargs) -> tuple:
    """The inputs of a call of a nested model, as its graph declares them, and the rest.

    Keras takes a list for a dict and a dict for a list.
    """
    names = ("inputs", "training", "mask")
    options = {**dict(zip(names, args, strict=False)), **kwargs}
    inputs = options.pop("inputs")
    if isinstance(graph.inputs, dict):
        if isinstance(inputs, dict):
            return {name: inputs[name] for name in graph.inputs}, options
        given = zip(sorted(graph.inputs), _keras.flatten(inputs), strict=True)
        return dict(given), options
    if isinstance(inputs, dict):
        inputs = [inputs[_keras.maker(t).name] for t in graph.input_tensors]
    return inputs, options


def points_of(at) -> list:
    """One cut point or a list of them, as a list."""
    points = list(at) if isinstance(at, list | tuple) else [at]
    if not points:
        raise InputError("expected at least one cut point, received an empty list")
    return points


def _each_once(tensors) -> list:
    if len({id(tensor) for tensor in tensors}) < len(tensors):
        names = [_keras.maker(tensor).name for tensor in tensors]
        raise InputError(f"the cut points {names} name a tensor twice: give it once")
    return tensors


def only_one(calls, point, model_name):
    """The single call among `calls`; InputError that lists them when there are more."""
    if len(calls) > 1:
        _refuse_several([call.outputs for call in calls], point, model_name)
    return calls[0]


def _only_tensor(calls, point, model_name):
    if len(calls) > 1:
        _refuse_several(calls, point, model_name)
    outputs = calls[0]
    if len(outputs) != 1:
        raise InputError(
            f'layer "{point}" gives {len(outputs)} tensors {_shapes(outputs)}: '
            "give the tensor itself instead of the name"
        )
    return outputs[0]


def _refuse_several(calls, name, model_name):
    listed = ", ".join(
        f'"{name}:{k}" {_shapes(outputs)}' for k, outputs in enumerate(calls)
    )
    raise InputError(
        f'layer "{name}" is called {len(calls)} times in model '
        f"{model_name!r}: say which of {listed}"
    )


def _split_name(point, names) -> tuple:
    """``"name:2"`` -> ``("name", 2)``; a layer whose own name has a colon wins."""
    name, colon, which = point.rpartition(":")
    if point in names or not colon or not which.isdecimal():
        return point, None
    return name, int(which)


def _shapes(tensors) -> str:
    return " ".join(str(tuple(t.shape)).replace("None", "?") for t in tensors)


def _nested_cut(call) -> str:
    return (
        f'cut point "{call.layer.name}" lies downstream of another cut point: '
        "cut points must not depend on each other; split twice instead"
    )
