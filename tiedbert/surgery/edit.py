"""What each edit shares: a model rebuilt from where it changes, nested ones too."""

from dataclasses import dataclass, field
from itertools import count

from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError
from tiedbert.surgery.graph import Graph
from tiedbert.surgery.masks.order import settled, settled_inside
from tiedbert.surgery.replay import outputs_of, replay


@dataclass
class Changes:
    """What an edit changes in one graph.

    Attributes:
        instead: dict, id of a call -> what is called in place of its layer.
        after: dict, id of a tensor -> function of it that gives what takes its place.
    """

    instead: dict = field(default_factory=dict)
    after: dict = field(default_factory=dict)

    def add(self, other):
        """Take over the changes of `other`."""
        self.instead.update(other.instead)
        self.after.update(other.after)


def rebuild(graph, changes, more_inputs=(), name=None):
    """The model of `graph` with `changes`; what they do not reach is shared with it."""
    new = {}
    for tensor in graph.input_tensors:
        if id(tensor) in changes.after:
            new[id(tensor)] = changes.after[id(tensor)](tensor)
    instead = _with_siblings(graph, changes)
    replay(graph.calls, new, instead=instead, after=changes.after)
    outputs = outputs_of(graph, new)
    inputs = with_more(graph.inputs, more_inputs)
    _check_names(graph, inputs, outputs)
    model = graph.kind(inputs, outputs, name=name or graph.name)
    _keras.name_outputs(model, graph.output_names)
    _keras.repeat_side_effects(model, graph.side_effects, new)
    return model


def with_more(inputs, more):
    """The inputs of a model and more of them: a dict stays one, all else is a list."""
    if not more:
        return inputs
    if isinstance(inputs, dict):
        return {**inputs, **{_keras.maker(tensor).name: tensor for tensor in more}}
    return [*_keras.flatten(inputs), *more]


def edited(model, points, change):
    """`model` with `change(graph, point)` made where each point lies, nested or not.

    A nested model is edited once and takes the place of the old one in each call that
    the same points mean.
    """
    return _edited(settled(Graph(model), points), points, change)


def _edited(graph, points, change):
    changes = Changes()
    inside = {}  # id of a call of a nested model -> (the call, the points in it)
    for point in points:
        found = graph.inside(point)
        if found is None:
            changes.add(change(graph, point))
            continue
        for call in found[0]:
            inside.setdefault(id(call), (call, []))[1].append(found[1])
    changes.instead.update(_edited_inside(graph, inside, change))
    return rebuild(graph, changes)


def _edited_inside(graph, inside, change) -> dict:
    """id of a call -> the edited nested model in the place of its layer."""
    stay = {id(c.layer) for c in graph.calls if id(c) not in inside}
    names, models, instead = graph.names, {}, {}
    for call, points in inside.values():
        alike = id(call.layer), *(p if isinstance(p, str) else id(p) for p in points)
        if alike not in models:
            inner = settled_inside(graph, call.layer, points)
            inner = _edited(inner, points, change)
            if id(call.layer) in stay:
                # Two layers cannot have one name.
                inner = renamed(inner, unique(f"{inner.name}_edited", names))
            models[alike] = inner
            stay.add(id(call.layer))
        instead[id(call)] = models[alike]
    return instead


def _with_siblings(graph, changes) -> dict:
    """What to call in place of layers, the calls that must be made again among it.

    If one call of a layer is made again, so are the others, or ``"name:k"`` would
    mean another call in the new model than in the old one.
    """
    instead = dict(changes.instead)
    while True:
        reached, new = set(), set(changes.after)
        for call in graph.calls:
            if id(call) in instead or any(id(t) in new for t in call.inputs):
                reached.add(id(call.layer))
                new.update(id(t) for t in call.outputs)
        siblings = [
            call
            for call in graph.calls
            if id(call.layer) in reached
            and id(call) not in instead
            and not any(id(t) in new for t in call.inputs)
            and not _keras.is_side_effect(call.layer)
        ]
        if not siblings:
            return instead
        instead.update({id(call): call.layer for call in siblings})


def renamed(model, name):
    """The same functional model under another name."""
    return keras.Model(*_keras.structures(_keras.functional(model)), name=name)


def _check_names(graph, inputs, outputs):
    """Keras wants each name once; the message must say whose it is."""
    layers = {id(layer): layer for layer in _keras.ancestors((inputs, outputs))}
    seen = {}
    for layer in layers.values():
        if layer.name in seen:
            raise InputError(
                f'model {graph.name!r} has a layer named "{layer.name}" already: give '
                "the new one another name"
            )
        seen[layer.name] = layer


def unique(name, taken):
    """`name`, with a number if it is in the set `taken`, to which it is added."""
    numbered = (f"{name}_{number}" if number else name for number in count())
    name = next(candidate for candidate in numbered if candidate not in taken)
    taken.add(name)
    return name


def check_layer(layer):
    """InputError unless `layer` is a Keras layer or model."""
    if not isinstance(layer, keras.layers.Layer):
        raise InputError(
            f"expected a Keras layer or model, received {type(layer).__name__}"
        )


def check_fits(layer, args, kwargs, expected):
    """InputError unless `layer` gives a tensor of the shape and dtype of `expected`.

    A layer that is not built yet is tried as a copy: a refused layer stays untouched.
    """
    try:
        outputs = _keras.flatten(_trial(layer)(*args, **kwargs))
    except (ValueError, TypeError) as error:
        raise InputError(
            f'layer "{layer.name}" cannot be called where "{_maker(expected)}" gives '
            f"{describe(expected)}: {_why(error)}"
        ) from error
    if len(outputs) != 1 or not alike(outputs[0], expected):
        raise InputError(
            f'layer "{layer.name}" gives {", ".join(map(describe, outputs))} where '
            f'what follows "{_maker(expected)}" expects {describe(expected)}: shape '
            "and dtype must stay"
        )


def _why(error) -> str:
    """The first line of Keras' message that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith("Exception encountered")]
    return (telling or lines or [type(error).__name__])[0]


def _trial(layer):
    if layer.built:
        return layer
    try:
        return type(layer).from_config(layer.get_config())
    except (NotImplementedError, TypeError, ValueError):
        return layer  # Not every layer can be copied: a Lambda, one without a config.


def describe(tensor) -> str:
    """``"(?, 4) float32"``."""
    shape = ", ".join("?" if size is None else str(size) for size in tensor.shape)
    return f"({shape}) {_keras.dtype_name(tensor)}"


def _maker(tensor):
    return _keras.maker(tensor).name


def alike(tensor, expected) -> bool:
    """Whether `tensor` can stand where `expected` is, as far as shapes are known."""
    return (
        _keras.dtype_name(tensor) == _keras.dtype_name(expected)
        and len(tensor.shape) == len(expected.shape)
        and all(
            size is None or wanted is None or size == wanted
            for size, wanted in zip(tensor.shape, expected.shape, strict=True)
        )
    )


def free_to_change(graph, tensor) -> bool:
    """Whether no call uses `tensor`, so that nothing depends on its shape."""
    return not any(t is tensor for call in graph.calls for t in call.inputs)
