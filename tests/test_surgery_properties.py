"""What holds of every edit, on random models: the whole model tells what is right.

By default the simplest model and a random one. With more, as in `make test-all`:

    TIEDBERT_EXAMPLES=40 python -m pytest tests/test_surgery_properties.py

The draws are the same each time. A failure prints the smallest description of a model
that fails; `random_models.build` makes the model of it.
"""

import json
import os
import tempfile
import zipfile
from dataclasses import dataclass

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import Aware, Plain
from random_models import batch, build, descriptions
from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError
from tiedbert.surgery import features, inject, insert, remove, replace, split
from tiedbert.surgery.graph import Graph

EXAMPLES = int(os.environ.get("TIEDBERT_EXAMPLES", "2"))

# Keras 3 says so of every nested model, also of those that pass the mask on; and of
# `Plain`, of which it is true.
MASK_WARNING = "Layer '.*' .* was passed an input with a mask attached to it"
pytestmark = pytest.mark.filterwarnings(f"ignore:{MASK_WARNING}:UserWarning:keras.src")


@dataclass(frozen=True)
class Point:
    """A cut point: `every` means each call of its layer and of the models around it."""

    at: object
    every: str
    is_float: bool
    layer: object = None  # of one output

    def __repr__(self):
        return repr(self.at)


def points(graph, path="", every=""):
    """Every tensor that an output of its graph needs, in nested models too."""
    needed = graph.needed_for(graph.output_tensors)
    calls = [call for call in graph.calls if id(call) in needed]
    used = {id(t) for call in calls for t in call.inputs}
    used.update(id(tensor) for tensor in graph.output_tensors)
    for tensor in graph.input_tensors:
        name = _keras.maker(tensor).name
        if id(tensor) in used:
            yield Point(path + name, every + name, is_float(tensor))
    for call in calls:
        name = call.layer.name
        several = sum(other.layer is call.layer for other in graph.calls) > 1
        numbered = f"{path}{name}:{call.index}" if several else path + name
        tensor = call.outputs[0]
        if len(call.outputs) == 1 and "bool" not in _keras.dtype_name(tensor):
            yield Point(numbered, every + name, is_float(tensor), call.layer)
        if _keras.has_graph(call.layer):
            yield from points(Graph(call.layer), f"{numbered}/", f"{every}{name}/")


def is_float(tensor):
    return "float" in _keras.dtype_name(tensor)


def picked(model, numbers):
    """Points of a model, each once."""
    candidates = list(points(Graph(model)))
    chosen = [candidates[-1 - i % len(candidates)] for i in numbers]
    return list(dict.fromkeys(chosen))


def cut(model, numbers):
    """`split` at points that do not depend on each other, and these points."""
    chosen, halves = [], None
    for point in picked(model, numbers):
        try:
            halves = split(model, [p.at for p in [*chosen, point]])
            chosen.append(point)
        except InputError as error:
            known = "must not depend on each other", "no output of model"
            if not any(text in str(error) for text in known):
                raise
    hypothesis.assume(chosen)
    hypothesis.note(f"cut at {chosen}")
    return *halves, chosen


def fresh(values):
    """The same inputs: Keras may leave the mask of one call on its tensors."""
    return tf.nest.map_structure(tf.identity, values)


def mask_of(value):
    mask = _keras.implicit_mask(value)
    return None if mask is None else tf.convert_to_tensor(mask)


def assert_same(found, expected, masks=True):
    """The same structure, types and bits, and the same masks on them."""
    tf.nest.assert_same_structure(found, expected)
    for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
        if masks:
            assert (mask_of(a) is None) == (mask_of(b) is None)
            if mask_of(a) is not None:
                np.testing.assert_array_equal(mask_of(a), mask_of(b))


def all_calls(graph):
    """The calls of a graph and of those nested in it."""
    for call in graph.calls:
        yield call
        if _keras.has_graph(call.layer):
            yield from all_calls(Graph(call.layer))


def with_deltas(x, deltas, injected):
    if not isinstance(x, dict):
        return [*x, *deltas]
    names = [name for name in injected.input if name not in x]
    return {**x, **dict(zip(names, deltas, strict=True))}


def alone(values):
    """What Keras gives for a list of one output."""
    return values[0] if len(values) == 1 else values


def composition(model, x, numbers):
    """rest(front(x)) is model(x), whatever arithmetic comes between."""
    front, rest, chosen = cut(model, numbers)
    expected = model(fresh(x))
    crossing = front(fresh(x))
    assert isinstance(crossing, list)
    hidden, context = crossing[: len(chosen)], crossing[len(chosen) :]
    assert_same(rest([*hidden, *context]), expected)
    zeros = [value + tf.zeros_like(value) for value in hidden]
    assert_same(rest([*zeros, *context]), expected)
    found = features(model, [point.at for point in chosen])(fresh(x))
    assert_same(found, alone(hidden), masks=False)
    used = [{id(weight) for weight in part.weights} for part in (front, rest, model)]
    assert used[0] | used[1] == used[2]


def injection(model, x, numbers):
    """A delta of zero is the model, another one a perturbation between the halves."""
    front, rest, chosen = cut(model, numbers)
    hypothesis.assume(all(point.is_float for point in chosen))
    crossing = front(fresh(x))
    hidden, context = crossing[: len(chosen)], crossing[len(chosen) :]
    draw = np.random.default_rng(2)
    deltas = [tf.cast(draw.normal(size=h.shape), h.dtype) for h in hidden]
    perturbed = [h + delta for h, delta in zip(hidden, deltas, strict=True)]
    injected = inject(model, [point.at for point in chosen])
    found = injected(with_deltas(fresh(x), deltas, injected))
    assert_same(found, rest([*perturbed, *context]))
    zeros = [tf.zeros_like(delta) for delta in deltas]
    assert_same(injected(with_deltas(fresh(x), zeros, injected)), model(fresh(x)))


def dependent_points(model, x, numbers):
    """`inject` and `features` take points of which one depends on another."""
    chosen = [point for point in picked(model, numbers) if point.is_float]
    hypothesis.assume(chosen)
    hypothesis.note(f"points {chosen}")
    at = [point.at for point in chosen]
    values = [features(model, point)(fresh(x)) for point in at]
    # A mask that a nested model is given hangs on the tensor if that model runs too.
    assert_same(features(model, at)(fresh(x)), alone(values), masks=False)
    injected = inject(model, at)
    zeros = [tf.zeros_like(value) for value in values]
    assert_same(injected(with_deltas(fresh(x), zeros, injected)), model(fresh(x)))


def neutral_edits(model, x, numbers):
    """Layers that change nothing, put in and taken out again."""
    (point,) = picked(model, numbers[:1])
    expected = model(fresh(x))
    for kind in (Aware, Plain):
        for at in dict.fromkeys([point.at, point.every]):
            hypothesis.note(f"insert {kind.__name__} at {at}")
            edited = insert(model, at, kind(name="put_in"))
            assert_same(edited(fresh(x)), expected)
        outer, slash, _ = point.every.rpartition("/")
        assert_same(remove(edited, f"{outer}{slash}put_in")(fresh(x)), expected)


def replacement(model, x, numbers):
    """A layer in the place of itself."""
    layers = [
        p for p in points(Graph(model)) if isinstance(p.layer, keras.layers.Layer)
    ]
    hypothesis.assume(layers)
    point = layers[-1 - numbers[0] % len(layers)]
    for at in dict.fromkeys([point.at, point.every]):
        hypothesis.note(f"replace {at}")
        assert_same(replace(model, at, point.layer)(fresh(x)), model(fresh(x)))


def source(model, x, numbers):
    """Every edit leaves the model it is made from as it was."""
    (point,) = picked(model, numbers[:1])
    before, expected = state_of(model), model(fresh(x))
    cut(model, numbers[:1])
    features(model, point.at)
    if point.is_float:
        inject(model, point.at)
    for kind in (Aware, Plain):
        edited = insert(model, point.at, kind(name="put_in"))
        edited(fresh(x))
    assert state_of(model) == before
    assert_same(model(fresh(x)), expected)


def state_of(model):
    """What a model shows of itself."""
    lines = []
    model.summary(print_fn=lambda line, **_: lines.append(line), expand_nested=True)
    nodes = _keras.functional(model)._nodes_by_depth
    calls = list(all_calls(Graph(model)))
    tensors = [tensor for call in calls for tensor in [*call.inputs, *call.outputs]]
    with tempfile.TemporaryDirectory() as directory:
        model.save(f"{directory}/model.keras")
        with zipfile.ZipFile(f"{directory}/model.keras") as archive:
            saved = json.loads(archive.read("config.json"))
    return (
        lines,
        {depth: len(found) for depth, found in nodes.items()},
        [(id(t), id(_keras.maker(t)), id(_keras.implicit_mask(t))) for t in tensors],
        model.get_config(),
        saved,
    )


def saving(model, x, numbers):
    """Halves that come back from files, unless Keras cannot save such a model."""
    front, rest, _ = cut(model, numbers)
    hypothesis.assume(not any(shares_layers(part) for part in (model, front, rest)))
    try:
        expected = saved_and_loaded(model)(fresh(x))
        assert_same(expected, model(fresh(x)))
    except Exception:
        hypothesis.reject()
    crossing = saved_and_loaded(front)(fresh(x))
    assert_same(saved_and_loaded(rest)(crossing), expected)


def shares_layers(model):
    """Whether two graphs in a model hold one layer: Keras makes two of it."""
    layers = [layer for graph in graphs_within(model) for layer in graph.layers]
    return len({id(layer) for layer in layers}) < len(layers)


def graphs_within(model):
    return [part for part in _keras.layers_within(model) if _keras.has_graph(part)]


def saved_and_loaded(model):
    with tempfile.TemporaryDirectory() as directory:
        model.save(f"{directory}/model.keras")
        return keras.models.load_model(f"{directory}/model.keras")


def gradients(model, x, numbers):
    """Of all weights; the tape adds what comes from several branches in any order."""
    front, rest, _ = cut(model, numbers)
    weights = model.trainable_variables

    def of(function):
        with tf.GradientTape() as tape:
            outputs = tf.nest.flatten(function(fresh(x)))
            outputs = [tf.cast(output, "float32") for output in outputs]
            loss = tf.add_n([tf.reduce_sum(tf.square(output)) for output in outputs])
        return tape.gradient(loss, weights)

    half = any(
        _keras.dtype_name(t) in HALVES
        for c in all_calls(Graph(model))
        for t in c.outputs
    )
    tolerance = 0.02 if half else 1e-5
    for a, b in zip(of(lambda x: rest(front(x))), of(model), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            a, b = tf.convert_to_tensor(a), tf.convert_to_tensor(b)
            size = tf.reduce_max(tf.abs(b))
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * size)


HALVES = "float16", "bfloat16"


def training(model, x, numbers):
    """The draws of dropout, and the statistics that normalization keeps."""
    layers = [id(call.layer) for call in all_calls(Graph(model))]
    # The calls of one layer may come in another order, and so its draws.
    hypothesis.assume(len(set(layers)) == len(layers))
    front, rest, _ = cut(model, numbers)
    within = _keras.layers_within(model)
    variables = [v for layer in within for v in _keras.own_variables(layer)]
    start = [tf.convert_to_tensor(variable) for variable in variables]

    def run(function):
        tf.random.set_seed(3)  # Keras 2 draws from here
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        outputs = function()
        return outputs, [tf.convert_to_tensor(variable) for variable in variables]

    whole = run(lambda: model(fresh(x), training=True))
    halves = run(lambda: rest(front(fresh(x), training=True), training=True))
    assert_same(halves, whole)


PROPERTIES = [
    composition,
    injection,
    dependent_points,
    neutral_edits,
    replacement,
    source,
    saving,
    gradients,
    training,
]


@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda check: check.__name__)
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),  # Models take long to build.
)
@given(
    description=descriptions,
    numbers=st.lists(st.integers(0, 30), min_size=1, max_size=3),
)
def test_of_random_models(holds, description, numbers):
    keras.backend.clear_session()
    model = build(description)
    try:
        holds(model, batch(model), numbers)
    except InputError as error:
        if not may_be_refused(repr(description), str(error)):
            raise
        hypothesis.reject()  # No part can repeat such a model.


def may_be_refused(description, message):
    """Whether a mask may be taken off in inference alone, or come from deep inside."""
    if "depends on `training`" in message:
        return "dropout" in description and "heads" in description
    deep = description.count("Nested") > 1 and "mask=True" in description
    return deep and "the graph does not tell which" in message
