"""A read-only view of a functional model: calls, producers, crossing tensors."""

import difflib
import heapq
from dataclasses import dataclass
from functools import cached_property

from tiedbert import _keras
from tiedbert.errors import InputError


@dataclass(frozen=True, eq=False)
class Call:
    """One use of a layer: the `index`-th of that layer in this model, from 0.

    Calls count in the order in which they were made. `place` counts all calls of the
    model so: a call comes after those that it needs and after those of its layer with
    a smaller index.
    """

    layer: object
    index: int
    place: int
    args: tuple
    kwargs: dict
    inputs: list
    outputs: list


class Graph:
    """The calls of `model` in the order in which they run, and who makes which tensor.

    Args:
        model: a functional model.
        path: where the model lies in the one that a user gave, ``"encoder/"``: for
            messages.
        stand_ins: dict, id of a tensor of another model -> the tensor of this one that
            is meant where a cut point is that tensor.
        points: dict, id of a tensor -> the cut point by which a user gave it.
        kind: the class of a model that has this graph in another form; by default that
            of `model` where inputs and outputs make one.
        entering: dict, index of an input -> shape of the mask with which a nested model
            is called, where that is known.
    """

    def __init__(
        self, model, path="", stand_ins=None, points=None, kind=None, entering=None
    ):
        # What has the graph inside of a Sequential has another name in Keras 3.
        graph = _keras.functional(model)
        self.name = model.name
        self.path = path
        self._stand_ins = stand_ins or {}
        self._points = points or {}
        self.entering = entering or {}
        self.kind = kind or _keras.class_of_edited(model)
        self.inputs, self.outputs = _keras.structures(graph)
        self.output_names = _keras.output_names(graph)
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
        return [call for call in self.calls if _keras.is_side_effect(call.layer)]

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

    def in_another_form(self, model, stand_ins):
        """The graph of a model that does the same; `stand_ins` as in the class."""
        return Graph(
            model, self.path, stand_ins, kind=self.kind, entering=self.entering
        )

    def shown(self, tensor) -> str:
        """A tensor as the user of the whole model would name it, for messages."""
        return self._points.get(id(tensor)) or self.path + self.name_of(tensor)

    def name_of(self, tensor) -> str:
        """The name by which a user can pick a tensor of this graph."""
        call = self.producers.get(id(tensor))
        if call is None:
            return _keras.maker(tensor).name
        return self.names_of(call)[index_of(tensor, call.outputs)]

    def names_of(self, call) -> list:
        """The names of what a call gives, one for each of its tensors."""
        return _numbered_outputs(self.call_name(call), call.outputs)

    def call_name(self, call) -> str:
        """The name by which a user can pick a call: ``"name"`` or ``"name:k"``."""
        name = call.layer.name
        return name if len(self._by_name[name]) == 1 else f"{name}:{call.index}"

    def resolve(self, at) -> list:
        """The tensors of this graph that `at` names: one cut point, or a list."""
        return _each_once(self, [self.tensor_at(point) for point in points_of(at)])

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
            call = self._only_call(calls, inner_point)
            if isinstance(inner_point, str):
                self._check_inside(call, inner_point)
            inside.setdefault(id(call), (call, {}))[1][i] = inner_point
        _each_once(self, list(here.values()))
        return here, list(inside.values())

    def tensor_at(self, point):
        """The tensor that one cut point of this graph names."""
        if isinstance(point, str):
            (tensor,) = self._picked(point, every_call=False)
            return tensor
        if not self.owns(point):
            raise InputError(
                f"the tensor {point.name!r} does not belong to model {self.name!r}: "
                "give a tensor of this model, or a layer's name"
            )
        return self._stand_ins.get(id(point), point)

    def tensors_at(self, point) -> list:
        """Like `tensor_at`, but a bare name means every call of the layer."""
        if isinstance(point, str):
            return self._picked(point, every_call=True)
        return [self.tensor_at(point)]

    def calls_at(self, name) -> list:
        """The calls of the layer `name`, or the one call that ``"name:k"`` says."""
        if _split_name(name, self._by_name)[2] is not None:
            raise InputError(
                f'"{self.path}{name}" is one tensor of a layer: expected the name of '
                "a whole layer"
            )
        calls = [self.producers.get(id(outputs[0])) for outputs in self._named(name)]
        if None in calls:
            raise InputError(
                f'"{self.path}{name}" is an input of model {self.name!r}, no layer'
            )
        return calls

    def owns(self, point) -> bool:
        """Whether `point` is a tensor of this graph; InputError if it is no tensor."""
        if not _keras.is_symbolic(point):
            raise InputError(
                "a cut point is a layer name or a symbolic tensor of the model, "
                f"received {type(point).__name__}"
            )
        known = id(point) in self.producers or id(point) in self._stand_ins
        return known or any(point is tensor for tensor in self.input_tensors)

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
                f'"{self.path}{point}" reaches into layer "{name}" '
                f"({type(calls[0].layer).__name__}), which has no graph inside: the "
                f'closest point is "{self.path}{outer}" itself'
            )
        return calls, inner

    def _check_inside(self, call, point):
        """InputError, with the whole path, unless `point` is one of a nested model."""
        path = f"{self.path}{self.call_name(call)}/"
        Graph(call.layer, path).placed(point)

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

    def _only_call(self, calls, inner):
        """The single call among those of a nested model; else InputError lists them."""
        if len(calls) > 1:
            rest = f"/{inner}" if isinstance(inner, str) else ""
            named = dict.fromkeys((f"{self.call_name(c)}{rest}" for c in calls), [])
            self._refuse_several(calls[0].layer.name, named)
        return calls[0]

    def _picked(self, point, every_call) -> list:
        """The tensors that a name picks, one for each of the calls that it picks."""
        name, _, which = _split_name(point, self._by_name)
        calls = self._named(point)
        if len(calls) > 1 and not every_call:
            end = "" if which is None else f"#{which}"
            named = {
                f"{name}:{k}{end}": outputs if which is None else outputs[which:][:1]
                for k, outputs in enumerate(calls)
            }
            self._refuse_several(name, named)
        return [self._only_output(point, which, outputs) for outputs in calls]

    def _only_output(self, point, which, outputs):
        """The tensor of a call that a name with ``"#which"`` or without it picks."""
        if which is None and len(outputs) == 1:
            return outputs[0]
        point = f"{self.path}{point}"
        if which is None:
            named = zip(_numbered_outputs(point, outputs), outputs, strict=True)
            listed = ", ".join(f'"{name}" {_shapes([t])}' for name, t in named)
            raise InputError(
                f'layer "{point}" gives {len(outputs)} tensors: say which of {listed}'
            )
        if which >= len(outputs):
            raise InputError(
                f'"{point}" asks for output {which} of a layer that gives '
                f"{len(outputs)} tensor(s) {_shapes(outputs)}, counted from 0"
            )
        return outputs[which]

    def _refuse_several(self, name, named):
        """InputError that lists names and the tensors of each."""
        listed = ", ".join(
            f'"{self.path}{point}" {_shapes(outputs)}'.rstrip()
            for point, outputs in named.items()
        )
        raise InputError(
            f'layer "{self.path}{name}" is called {len(named)} times in model '
            f"{self.name!r}: say which of {listed}"
        )

    def _named(self, point) -> list:
        """The output lists of the calls that a name picks."""
        name, which, _ = _split_name(point, self._by_name)
        calls = self._by_name.get(name)
        if calls is None:
            raise InputError(self._no_such_layer(name))
        if which is None:
            return calls
        if which >= len(calls):
            raise InputError(
                f'"{self.path}{point}" asks for call {which} of layer "{name}", which '
                f"is called {len(calls)} time(s) in model {self.name!r}, counted from 0"
            )
        return [calls[which]]

    def _no_such_layer(self, name) -> str:
        if wrapper := self._wrapper_of(name):
            return (
                f'no layer "{name}" in model {self.name!r}: it is inside '
                f'"{wrapper.name}" ({type(wrapper).__name__}), which runs it in a way '
                f'that cannot be cut; the closest point is "{self.path}{wrapper.name}"'
            )
        own = list(self._by_name)
        paths = {}  # name of a layer -> its paths, those of this model first
        for path in [*own, *self._nested_paths()]:
            paths.setdefault(path.rpartition("/")[2], []).append(path)
        close = difflib.get_close_matches(name, list(paths), n=3, cutoff=0.6)
        suggested = [path for match in close for path in paths[match]] or own
        return f'no layer "{name}" in model {self.name!r}: did you mean ' + (
            ", ".join(f'"{self.path}{path}"' for path in suggested[:3]) + "?"
        )

    def _wrapper_of(self, name):
        """The layer without a graph that holds a layer of about this name, or None."""
        held = {}
        for call in self.calls:
            if not _keras.has_graph(call.layer):
                for part in _keras.layers_within(call.layer)[1:]:
                    held.setdefault(part.name, call.layer)
        known = [*held, *self._by_name]
        close = [name] if name in held else difflib.get_close_matches(name, known, n=1)
        return held.get(close[0]) if close else None

    def _nested_paths(self) -> list:
        """The paths of the layers of nested models."""
        paths = []
        for layer in {id(call.layer): call.layer for call in self.calls}.values():
            if _keras.has_graph(layer):
                graph = Graph(layer)
                names = [*graph._by_name, *graph._nested_paths()]
                paths += [f"{layer.name}/{name}" for name in names]
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
                cut_tensor = next(t for t in call.outputs if id(t) in made)
                raise InputError(_dependent_cut(self.shown(cut_tensor)))
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
    places = _places(raw_calls)
    by_layer = {}
    for raw, place in zip(raw_calls, places, strict=True):
        by_layer.setdefault(id(raw.layer), []).append(place)
    ranks = {layer: sorted(found) for layer, found in by_layer.items()}
    return [
        Call(
            raw.layer,
            ranks[id(raw.layer)].index(place),
            place,
            raw.args,
            raw.kwargs,
            raw.inputs,
            raw.outputs,
        )
        for raw, place in zip(raw_calls, places, strict=True)
    ]


def _places(raw_calls) -> list:
    """The place of each call in a topological order.

    The calls of one layer keep the order in which Keras counts them, except where that
    is no order in which they can run: Keras 2 counts the calls of a model between
    tensors of another one backwards.
    """
    needed, readers = _dependencies(raw_calls)
    turns = {}  # id of a layer -> its calls that are to come, the next one last
    for i in sorted(range(len(raw_calls)), key=lambda i: -raw_calls[i].order):
        turns.setdefault(id(raw_calls[i].layer), []).append(i)

    def turn(i):
        return turns[id(raw_calls[i].layer)]

    ready = {i for i, others in enumerate(needed) if not others}
    now = [i for i in sorted(ready) if turn(i)[-1] == i]
    places = [None] * len(raw_calls)
    for place in range(len(raw_calls)):
        i = heapq.heappop(now) if now else min(ready)
        places[i] = place
        ready.discard(i)
        turn(i).remove(i)
        for j in readers[i]:
            needed[j].discard(i)
        ready.update(j for j in readers[i] if not needed[j])
        for j in {*readers[i], *turn(i)[-1:]} & ready:
            if turn(j)[-1] == j:
                heapq.heappush(now, j)
    return places


def _dependencies(raw_calls) -> tuple:
    """For each call the indices of those that it needs, and of those that need it."""
    makers = {id(t): i for i, raw in enumerate(raw_calls) for t in raw.outputs}
    needed = [
        {makers[id(t)] for t in raw.inputs if id(t) in makers} for raw in raw_calls
    ]
    readers = [set() for _ in raw_calls]
    for i, others in enumerate(needed):
        for j in others:
            readers[j].add(i)
    return needed, readers


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


def index_of(tensor, tensors) -> int:
    """Where a symbolic tensor stands in a list; Keras compares them by value."""
    return next(i for i, other in enumerate(tensors) if other is tensor)


def _each_once(graph, tensors) -> list:
    if len({id(tensor) for tensor in tensors}) < len(tensors):
        names = [graph.name_of(tensor) for tensor in tensors]
        raise InputError(f"the cut points {names} name a tensor twice: give it once")
    return tensors


def _split_name(point, names) -> tuple:
    """``"name:2#1"`` -> ``("name", 2, 1)``; None for what the point does not say.

    A layer whose own name has a colon or ``#1`` in it wins.
    """
    found = {}
    for sign in "#:":
        name, cut, number = point.rpartition(sign)
        if point not in names and cut and number.isdecimal():
            point, found[sign] = name, int(number)
    return point, found.get(":"), found.get("#")


def _numbered_outputs(name, outputs) -> list:
    """``["name"]``, or ``["name#0", "name#1"]`` where there are several outputs."""
    if len(outputs) == 1:
        return [name]
    return [f"{name}#{k}" for k in range(len(outputs))]


def _shapes(tensors) -> str:
    return " ".join(str(tuple(t.shape)).replace("None", "?") for t in tensors)


def _dependent_cut(name) -> str:
    return (
        f'cut point "{name}" lies downstream of another cut point: cut points must not '
        "depend on each other; split twice instead"
    )
