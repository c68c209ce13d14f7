"""Several cut points of a model: where they lie, and in which order it is cut there.

A cut takes points of which none depends on another. Points that do are cut one after
another, each in the rest that the cut before left.
"""

import itertools
import re
from dataclasses import dataclass
from typing import Any

from tensorflow import keras

from tiedbert._identity import IdentitySet
from tiedbert.errors import InputError
from tiedbert.surgery import cut_at
from tiedbert.surgery.graph import Graph, index_of


@dataclass(frozen=True, eq=False)
class Location:
    """Where a cut point lies in a model.

    Attributes:
        point: as a user gave it: a name or a symbolic tensor.
        calls: tuple of the calls of nested models that lead to it, outermost first.
        tensor: the tensor in the innermost of them.
        place: its place in the topological order of the model: one tuple of int per
            level of nesting, to compare.
    """

    point: Any
    calls: tuple
    tensor: Any
    place: tuple

    def made_from(self) -> list:
        """The tensors of the outer graph from which it is computed, or itself."""
        return list(self.calls[0].inputs) if self.calls else [self.tensor]


class Locations:
    """The locations of cut points in a model, of which each graph is built once.

    Args:
        model: a functional model.
    """

    def __init__(self, model: keras.Model):
        self._graph = Graph(model)

    def locate(self, point: Any) -> Location:
        """Where a cut point lies; InputError where it names no tensor, or several."""
        calls, tensor, place = self._find(self._graph, point)
        return Location(point, calls, tensor, place)

    def levels(self, points: list[str]) -> list[list[Location]]:
        """Points that can be cut at once, together; each level after those it needs.

        Args:
            points: names of cut points.

        Raises:
            InputError: a symbolic tensor, a name of no tensor, or two of the same.
        """
        for point in points:
            if not isinstance(point, str):
                raise InputError("several cut points are given by name, not as tensors")
        found = [self.locate(point) for point in points]
        if len({location.place for location in found}) < len(found):
            raise InputError(
                f"the cut points {points} name a tensor twice: give it once"
            )
        levels = []
        for location in sorted(found, key=lambda location: location.place):
            needed = [
                i + 1
                for i, level in enumerate(levels)
                if any(self._depends(location, other) for other in level)
            ]
            level = max(needed, default=0)
            if level == len(levels):
                levels.append([])
            levels[level].append(location)
        return levels

    def _find(self, graph, point) -> tuple:
        here, inside = graph.placed(point)
        if here:
            return (), here[0], (_place(graph, here[0]),)
        ((call, points),) = inside
        calls, tensor, place = self._find(graph.nested(call.layer), points[0])
        return (call, *calls), tensor, ((graph.calls.index(call),), *place)

    def _depends(self, location, other) -> bool:
        """Whether a point is computed from another one.

        A call of a nested model counts as a whole, unless both are in it.
        """
        graph, calls, others = self._graph, location.calls, other.calls
        while calls and others and calls[0] is others[0]:
            graph, calls, others = graph.nested(calls[0].layer), calls[1:], others[1:]
        sources = others[0].outputs if others else [other.tensor]
        needed = calls[0].inputs if calls else [location.tensor]
        reached = IdentitySet(sources)
        for call in graph.downstream(sources):
            reached.update(call.outputs)
        return any(tensor in reached for tensor in needed)


def cuts_in_order(model: keras.Model, levels: list[list[Location]]) -> list:
    """Cut a model at the first level, its rest at the second, and so on.

    Args:
        model: a functional model.
        levels: as :meth:`Locations.levels` gives them.

    Returns:
        list of :class:`tiedbert.surgery.cut.Cut`, one per level.
    """
    names = [[location.point for location in level] for level in levels]
    cuts = []
    for i, level in enumerate(levels):
        cut = cut_at(model, names[i])
        cuts.append(cut)
        if i + 1 < len(levels):
            model = cut.rest()
        for j in range(i + 1, len(levels)):
            pairs = zip(names[j], levels[j], strict=True)
            names[j] = [_name_in_rest(name, x, level, cut) for name, x in pairs]
    return cuts


def _place(graph, tensor) -> tuple:
    """The place of a tensor in topological order; inputs come first."""
    for i, call in enumerate(graph.calls):
        for k, output in enumerate(call.outputs):
            if output is tensor:
                return i, k
    return -1, index_of(tensor, graph.input_tensors)


def _name_in_rest(name, location, cut_before, cut) -> str:
    """The name of a later point in the rest that a cut leaves.

    There, calls of a layer that come before the cut do not count. A nested model that
    was cut leaves its second half, with ``_rest`` at the end of its name.

    Args:
        name: in the model that was cut.
        location: of the point.
        cut_before: the locations at which the model was cut.
        cut: the cut.
    """
    path = name.split("/")
    opened = max(_common_calls(location, other) for other in cut_before)
    if not opened:
        return "/".join([_renumbered(path[0], cut), *path[1:]])
    if ":" in name:
        raise InputError(
            f'"{name}" is one of several calls, in a nested model that has another '
            "cut point before it: give it a name of its own with tiedbert.surgery."
            f'insert(model, "{name}", keras.layers.Activation("linear", name=...))'
        )
    return "/".join([*(f"{outer}_rest" for outer in path[:opened]), *path[opened:]])


def _renumbered(name, cut) -> str:
    """``"name:2#1"`` with the number that its call has in the rest."""
    numbered = re.fullmatch(r"(.*):(\d+)(#\d+)?", name)
    if numbered is None:
        return name
    layer, index, output = numbered.groups(default="")
    return f"{layer}:{cut.call_in_rest(layer, int(index))}{output}"


def _common_calls(location, other) -> int:
    """How many calls of nested models two points have in common."""
    pairs = zip(location.calls, other.calls, strict=False)
    return len(list(itertools.takewhile(lambda pair: pair[0] is pair[1], pairs)))
