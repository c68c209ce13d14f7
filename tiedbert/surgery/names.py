"""The names of the tensors of a graph: ``"layer"``, ``"layer:2"``, ``"layer:2#1"``."""

import difflib
from collections.abc import Callable, Iterator, Sequence
from itertools import count

import tensorflow as tf

from tiedbert import _keras
from tiedbert.errors import InputError
from tiedbert.surgery.calls import Call


class Names:
    """Which tensor of one graph a name means, and what each tensor is called.

    Args:
        model_name: the name of the model, for messages.
        path: where the model lies in the one that a user gave, for messages.
        inputs: the model's inputs.
        calls: its calls.
        nested_paths: gives the paths of the layers in its nested models.
    """

    def __init__(
        self,
        model_name: str,
        path: str,
        inputs: Sequence,
        calls: Sequence[Call],
        nested_paths: Callable[[], list[str]],
    ) -> None:
        self._model_name, self._path = model_name, path
        self._calls, self._nested_paths = calls, nested_paths
        self._outputs = {}  # name -> the output list of each call of that layer
        for tensor in inputs:
            self._outputs.setdefault(_keras.maker(tensor).name, []).append([tensor])
        for call in sorted(calls, key=lambda call: call.index):
            self._outputs.setdefault(call.layer.name, []).append(call.outputs)

    def __iter__(self) -> Iterator[str]:
        """The names of the inputs and of the layers, each once."""
        return iter(self._outputs)

    def knows(self, point: str) -> bool:
        """Whether a layer or an input of this graph is meant, not a path into one."""
        return _split_name(point, self._outputs)[0] in self._outputs

    def of_call(self, call: Call) -> str:
        """The name by which a user can pick a call: ``"name"`` or ``"name:k"``."""
        name = call.layer.name
        return name if len(self._outputs[name]) == 1 else f"{name}:{call.index}"

    def of_outputs(self, call: Call) -> list[str]:
        """The names of what a call gives, one for each of its tensors."""
        return _numbered(self.of_call(call), call.outputs)

    def picked(self, point: str, every_call: bool = False) -> list[tf.Tensor]:
        """The tensors that a name picks, one for each of the calls that it picks.

        Raises:
            InputError: no such layer, call or output; or several calls, unless
                `every_call`, or several outputs.
        """
        name, _, which = _split_name(point, self._outputs)
        calls = self.outputs_at(point)
        if len(calls) > 1 and not every_call:
            end = "" if which is None else f"#{which}"
            named = {
                f"{name}:{k}{end}": outputs if which is None else outputs[which:][:1]
                for k, outputs in enumerate(calls)
            }
            self.refuse_several(name, named)
        return [self._only_output(point, which, outputs) for outputs in calls]

    def outputs_at(self, point: str) -> list[list]:
        """The output lists of the calls that a name picks."""
        name, which, _ = _split_name(point, self._outputs)
        calls = self._outputs.get(name)
        if calls is None:
            raise InputError(self._no_such_layer(name))
        if which is None:
            return calls
        if which >= len(calls):
            raise InputError(
                f'"{self._path}{point}" asks for call {which} of layer "{name}", which '
                f"is called {len(calls)} time(s) in model {self._model_name!r}, counted"
                " from 0"
            )
        return [calls[which]]

    def check_whole_layer(self, name: str) -> None:
        """InputError if a name picks one output of a layer."""
        if _split_name(name, self._outputs)[2] is not None:
            raise InputError(
                f'"{self._path}{name}" is one tensor of a layer: expected the name of '
                "a whole layer"
            )

    def parted(self, point: str) -> tuple[str, str, str]:
        """``"outer/inner"`` in two; Keras 2 allows a slash in a layer's own name."""
        slashes = [i for i, letter in enumerate(point) if letter == "/"]
        for i in reversed(slashes):
            if self.knows(point[:i]):
                return point[:i], "/", point[i + 1 :]
        return point.partition("/")

    def refuse_several(self, name: str, named: dict[str, list]) -> None:
        """InputError that lists names and the tensors of each."""
        listed = ", ".join(
            f'"{self._path}{point}" {_shapes(outputs)}'.rstrip()
            for point, outputs in named.items()
        )
        raise InputError(
            f'layer "{self._path}{name}" is called {len(named)} times in model '
            f"{self._model_name!r}: say which of {listed}"
        )

    def _only_output(self, point, which, outputs):
        """The tensor of a call that a name with ``"#which"`` or without it picks."""
        if which is None and len(outputs) == 1:
            return outputs[0]
        point = f"{self._path}{point}"
        if which is None:
            named = zip(_numbered(point, outputs), outputs, strict=True)
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

    def _no_such_layer(self, name) -> str:
        if wrapper := self._wrapper_of(name):
            return (
                f'no layer "{name}" in model {self._model_name!r}: it is inside '
                f'"{wrapper.name}" ({type(wrapper).__name__}), which runs it in a way '
                "that cannot be cut; the closest point is "
                f'"{self._path}{wrapper.name}"'
            )
        own = list(self._outputs)
        paths = {}  # name of a layer -> its paths, those of this model first
        for path in [*own, *self._nested_paths()]:
            paths.setdefault(path.rpartition("/")[2], []).append(path)
        close = difflib.get_close_matches(name, list(paths), n=3, cutoff=0.6)
        suggested = [path for match in close for path in paths[match]] or own
        return f'no layer "{name}" in model {self._model_name!r}: did you mean ' + (
            ", ".join(f'"{self._path}{path}"' for path in suggested[:3]) + "?"
        )

    def _wrapper_of(self, name):
        """The layer without a graph that holds a layer of about this name, or None."""
        held = {}
        for call in self._calls:
            if not _keras.has_graph(call.layer):
                for part in _keras.layers_within(call.layer)[1:]:
                    held.setdefault(part.name, call.layer)
        known = [*held, *self._outputs]
        close = [name] if name in held else difflib.get_close_matches(name, known, n=1)
        return held.get(close[0]) if close else None


def unique(name: str, taken: set[str]) -> str:
    """`name`, with a number if it is in the set `taken`, to which it is added."""
    numbered = (f"{name}_{number}" if number else name for number in count())
    name = next(candidate for candidate in numbered if candidate not in taken)
    taken.add(name)
    return name


def _split_name(point: str, names) -> tuple:
    """``"name:2#1"`` -> ``("name", 2, 1)``; None for what the point does not say.

    A layer whose own name has a colon or ``#1`` in it wins.
    """
    found = {}
    for sign in "#:":
        name, cut, number = point.rpartition(sign)
        if point not in names and cut and number.isdecimal():
            point, found[sign] = name, int(number)
    return point, found.get(":"), found.get("#")


def _numbered(name, outputs) -> list[str]:
    """``["name"]``, or ``["name#0", "name#1"]`` where there are several outputs."""
    if len(outputs) == 1:
        return [name]
    return [f"{name}#{k}" for k in range(len(outputs))]


def _shapes(tensors) -> str:
    return " ".join(str(tuple(t.shape)).replace("None", "?") for t in tensors)
