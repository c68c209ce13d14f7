"""Rebuilds a model from its first changed call on, nested models included."""

from collections.abc import Callable, Sequence
from typing import Any

from tensorflow import keras

from tiedbert import _keras
from tiedbert._identity import IdentityMap, IdentitySet
from tiedbert.errors import InputError
from tiedbert.surgery.calls import Call
from tiedbert.surgery.fitting import alike, free_to_change, other_output
from tiedbert.surgery.graph import Graph, same_points
from tiedbert.surgery.masks.order import settled, settled_inside
from tiedbert.surgery.masks.received import Masks
from tiedbert.surgery.names import unique
from tiedbert.surgery.replay import Substitution, outputs_of, replay


def rebuild(
    graph: Graph, changes: Substitution, more_inputs: Sequence = (), name: str = ""
) -> keras.Model:
    """The model of `graph` with `changes`; what they do not reach is shared with it.

    Args:
        graph: the calls of a model.
        changes: what is called in place of layers, and after tensors.
        more_inputs: inputs that the model has beside those of the graph.
        name: its name. Default: that of the graph's model.
    """
    for tensor in graph.input_tensors:
        if tensor in changes.after:
            changes.new[tensor] = changes.after[tensor](tensor)
    changes.layers.update(_siblings(graph, changes))
    replay(graph.calls, changes)
    outputs = outputs_of(graph, changes)
    inputs = _with_more(graph.inputs, more_inputs)
    _check_names(graph, inputs, outputs)
    model = graph.model_class(inputs, outputs, name=name or graph.name)
    _keras.name_outputs(model, graph.output_names)
    _keras.repeat_side_effects(model, graph.side_effects, changes.new)
    return model


def _with_more(inputs, more):
    """The inputs of a model and more of them: a dict stays one, all else is a list."""
    if not more:
        return inputs
    if isinstance(inputs, dict):
        return {**inputs, **{_keras.maker(tensor).name: tensor for tensor in more}}
    return [*_keras.flatten(inputs), *more]


def edited(
    graph: Graph, points: Sequence, change: Callable[[Graph, Any], Substitution]
) -> keras.Model:
    """The model of `graph` with ``change(graph, point)`` where each point lies.

    A nested model is edited once and takes the place of the old one in each call that
    the same points mean.

    Args:
        graph: the calls of the model.
        points: cut points, in nested models too.
        change: function of the graph in which a point lies and of the point there.
    """
    return _edited(settled(Masks(graph), points), points, change)


def _edited(masks, points, change) -> keras.Model:
    graph, changes = masks.graph, Substitution()
    inside = {}  # a call of a nested model -> the points in it
    for point in points:
        found = graph.inside(point)
        if found is None:
            changes.add(change(graph, point))
            continue
        calls, inner_point = found
        for call in calls:
            inside.setdefault(call, []).append(inner_point)
    changes.layers.update(_edited_inside(masks, inside, change))
    return rebuild(graph, changes)


def _edited_inside(masks, inside, change) -> dict[Call, keras.Model]:
    """A call -> the edited nested model in the place of its layer."""
    graph = masks.graph
    taken = IdentitySet(call.layer for call in graph.calls if call not in inside)
    names, models = set(graph.names), IdentityMap()
    for call, points in inside.items():
        made = models.setdefault(call.layer, [])  # (points, the model edited there)
        if not any(same_points(points, others) for others, _ in made):
            model = _edited(settled_inside(masks, call.layer, points), points, change)
            if call.layer in taken:
                # Two layers cannot have one name.
                model = _renamed(model, unique(f"{model.name}_edited", names))
            taken.add(call.layer)
            made.append((points, model))
    chosen = {
        call: next(
            model for others, model in models[call.layer] if same_points(points, others)
        )
        for call, points in inside.items()
    }
    for call, model in chosen.items():
        _check_outputs(graph, call, model)
    return chosen


def _check_outputs(graph, call, model) -> None:
    """InputError if what follows a nested model cannot use what it gives now."""
    for old, new in zip(call.outputs, model.outputs, strict=True):
        if not free_to_change(graph, old) and not alike(new, old):
            raise other_output(model, model.outputs, old)


def _siblings(graph, changes) -> dict[Call, Callable]:
    """The calls that must be made again although nothing new reaches them.

    If one call of a layer is made again, so are the others, or ``"name:k"`` would
    mean another call in the new model than in the old one.
    """
    siblings = {}
    while True:
        layers, new = IdentitySet(), IdentitySet(changes.after)
        unreached = []
        for call in graph.calls:
            again = call in changes.layers or call in siblings
            if again or any(t in new for t in call.inputs):
                layers.add(call.layer)
                new.update(call.outputs)
            elif not _keras.is_side_effect(call.layer):
                unreached.append(call)
        found = [call for call in unreached if call.layer in layers]
        if not found:
            return siblings
        siblings.update((call, call.layer) for call in found)


def _renamed(model, name) -> keras.Model:
    """The same functional model under another name."""
    return keras.Model(*_keras.structures(_keras.functional(model)), name=name)


def _check_names(graph, inputs, outputs) -> None:
    """Keras wants each name once; the message must say whose it is."""
    seen = set()
    for layer in IdentitySet(_keras.ancestors((inputs, outputs))):
        if layer.name in seen:
            raise InputError(
                f'model {graph.name!r} has a layer named "{layer.name}" already: give '
                "the new one another name"
            )
        seen.add(layer.name)
