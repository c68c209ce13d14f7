"""The calls of a model as they run, numbered in the order in which they were made."""

import heapq
from dataclasses import dataclass
from typing import Any

from tensorflow import keras

from tiedbert import _keras
from tiedbert._identity import IdentityMap


@dataclass(frozen=True, eq=False)
class Call:
    """One use of a layer in a model. Two calls are equal only if they are one object.

    Attributes:
        layer: the layer, or an operation of Keras 3.
        index: how many calls of this layer in the model come before it.
        place: how many calls of the model come before it in the order in which they
            can be made again: after the calls that it needs, and after those of its
            layer with a smaller index.
        args: the positional arguments.
        kwargs: the keyword arguments.
        inputs: the symbolic tensors among the arguments.
        outputs: the symbolic tensors that the call gave.
    """

    layer: Any
    index: int
    place: int
    args: tuple
    kwargs: dict
    inputs: list
    outputs: list


def read_calls(model: keras.Model) -> list[Call]:
    """The calls of a functional model, in the order in which Keras runs them."""
    raw_calls = _keras.calls(model)
    places = _places(raw_calls)
    by_layer = IdentityMap()  # layer -> the places of its calls
    for raw, place in zip(raw_calls, places, strict=True):
        by_layer.setdefault(raw.layer, []).append(place)
    for found in by_layer.values():
        found.sort()
    return [
        Call(
            raw.layer,
            by_layer[raw.layer].index(place),
            place,
            raw.args,
            raw.kwargs,
            raw.inputs,
            raw.outputs,
        )
        for raw, place in zip(raw_calls, places, strict=True)
    ]


def _places(raw_calls) -> list[int]:
    """The place of each call in a topological order.

    The calls of one layer keep the order in which Keras counts them, unless that order
    is not topological: Keras 2 counts the calls of a model between tensors of another
    one backwards.
    """
    needed, readers = _dependencies(raw_calls)
    turns = IdentityMap()  # layer -> its calls that are to come, the next one last
    for i in sorted(range(len(raw_calls)), key=lambda i: -raw_calls[i].order):
        turns.setdefault(raw_calls[i].layer, []).append(i)

    def turn(i):
        return turns[raw_calls[i].layer]

    ready = {i for i, others in enumerate(needed) if not others}
    now = [i for i in sorted(ready) if turn(i)[-1] == i]
    places = [0] * len(raw_calls)
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


def _dependencies(raw_calls) -> tuple[list[set], list[set]]:
    """For each call the indices of those that it needs, and of those that need it."""
    makers = IdentityMap((t, i) for i, raw in enumerate(raw_calls) for t in raw.outputs)
    needed = [{makers[t] for t in raw.inputs if t in makers} for raw in raw_calls]
    readers = [set() for _ in raw_calls]
    for i, others in enumerate(needed):
        for j in others:
            readers[j].add(i)
    return needed, readers
