"""What a name picks, in which order, and what each mistake is told."""

import re
import sys
from types import SimpleNamespace

import models
import numpy as np
import pytest
import tensorflow as tf
from generation import IS_LEGACY
from tensorflow import keras

from tiedbert import _keras
from tiedbert._keras import internals, tensor_metadata
from tiedbert.errors import InputError
from tiedbert.surgery import cut_points, split
from tiedbert.surgery.graph import Graph

layers = keras.layers


def names(calls):
    return [call.layer.name for call in calls]


def makers(tensors):
    return [_keras.maker(tensor).name for tensor in tensors]


def resolve(graph, at):
    """The tensors of a graph that `at` names."""
    here, _ = graph.placed(at)
    return [here[i] for i in range(len(here))]


def context_of(graph, cut):
    return graph.context(cut, graph.downstream(cut))


def refused(model, at):
    """The message with which `at` is refused."""
    with pytest.raises(InputError) as caught:
        resolve(Graph(model), at)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_every_tensor_is_made_before_it_is_used():
    graph = Graph(models.residual())
    made = {id(tensor) for tensor in graph.input_tensors}
    for call in graph.calls:
        assert {id(tensor) for tensor in call.inputs} <= made
        made.update(id(tensor) for tensor in call.outputs)
    assert {id(tensor) for tensor in graph.output_tensors} <= made


def test_a_name_picks_the_tensor_its_layer_made():
    model = models.chain()
    (tensor,) = resolve(Graph(model), "middle")
    assert tensor is model.get_layer("middle").output


def test_inputs_have_names_too():
    model = models.dictionaries()
    features, tokens = resolve(Graph(model), ["features", "tokens"])
    assert features is model.input["features"]
    assert tokens is model.input["tokens"]


def test_names_and_tensors_may_be_mixed():
    model = models.residual()
    output = model.get_layer("b_norm").output
    assert makers(resolve(Graph(model), ("a_norm", output))) == ["a_norm", "b_norm"]


def test_a_number_picks_a_call_of_a_shared_layer():
    model = models.shared()
    left, right = model.inputs
    graph = Graph(model)
    by_number = [graph.producers[resolve(graph, f"dense:{k}")[0]] for k in range(3)]
    assert [call.index for call in by_number] == [0, 1, 2]
    assert by_number[0].inputs[0] is left
    assert by_number[1].inputs[0] is by_number[0].outputs[0]
    assert by_number[2].inputs[0] is right


def test_a_layer_called_once_is_also_its_call_0():
    graph = Graph(models.chain())
    assert resolve(graph, "middle:0")[0] is resolve(graph, "middle")[0]


def test_downstream_is_what_depends_on_the_cut_and_is_needed():
    graph = Graph(models.dictionaries())
    assert names(graph.downstream(resolve(graph, "summary"))) == ["both", "score"]
    assert "side" not in names(graph.downstream(resolve(graph, "embedding")))


def test_nothing_is_downstream_of_an_output():
    graph = Graph(models.chain())
    assert graph.downstream(graph.output_tensors) == []


def test_the_context_lists_skip_connections_then_independent_outputs():
    graph = Graph(models.dictionaries())
    context = context_of(graph, resolve(graph, "summary"))
    assert makers(context) == ["side", "side_score", "embedding"]


def test_the_context_is_without_what_the_cut_points_replace():
    graph = Graph(models.dictionaries())
    context = context_of(graph, resolve(graph, ["summary", "side"]))
    assert makers(context) == ["embedding"]


def test_an_unknown_name_shows_the_closest_ones():
    message = refused(models.chain(), "midle")
    assert message == 'no layer "midle" in model \'chain\': did you mean "middle"?'


def test_a_name_like_no_other_shows_some_that_exist():
    message = refused(models.chain(), "???")
    assert 'did you mean "x", "first", "middle"?' in message


@pytest.mark.parametrize("point", ["middle:", "middle:-1", "middle:x", "middle:²", ""])
def test_a_malformed_number_is_no_name(point):
    assert f'no layer "{point}"' in refused(models.chain(), point)


def test_a_name_of_several_calls_lists_them_with_their_shapes():
    message = refused(models.shared(), "dense")
    assert "is called 3 times in model 'shared'" in message
    assert (
        'say which of "dense:0" (?, 3), "dense:1" (?, 3), "dense:2" (?, 3)' in message
    )


def test_a_call_that_does_not_exist_tells_how_many_do():
    message = refused(models.shared(), "dense:3")
    assert '"dense:3" asks for call 3 of layer "dense"' in message
    assert "called 3 time(s) in model 'shared', counted from 0" in message


def test_a_layer_with_several_outputs_lists_their_names():
    message = refused(models.states(), "states")
    assert message == (
        'layer "states" gives 2 tensors: say which of '
        '"states#0" (?, 4, 3), "states#1" (?, 3)'
    )


def test_a_number_picks_an_output_of_a_layer():
    graph = Graph(models.states())
    (call,) = (call for call in graph.calls if call.layer.name == "states")
    for k, tensor in enumerate(call.outputs):
        assert graph.tensor_at(f"states#{k}") is tensor
        assert graph.tensor_at(f"states:0#{k}") is tensor
        assert graph.name_of(tensor) == f"states#{k}"
    assert graph.tensor_at("last#0") is graph.tensor_at("last")


def test_an_output_that_does_not_exist_tells_how_many_do():
    message = refused(models.states(), "states#2")
    assert message == (
        '"states#2" asks for output 2 of a layer that gives 2 tensor(s) '
        "(?, 4, 3) (?, 3), counted from 0"
    )


def called_twice():
    """A model with a layer of several outputs in it, called twice."""
    x = keras.Input((4, 3), name="x")
    sequence, state = layers.SimpleRNN(
        3, return_sequences=True, return_state=True, name="states"
    )(x)
    inner = keras.Model(x, layers.Add(name="sum")([sequence, state]), name="encoder")
    y = keras.Input((4, 3), name="y")
    return keras.Model(y, inner(inner(y)))


def test_each_message_names_the_point_that_the_next_call_needs():
    model = called_twice()
    graph = Graph(model)
    for point, told in [
        ("encoder/states", '"encoder:0/states", "encoder:1/states"'),
        ("encoder:1/states", '"encoder:1/states#0" (?, 4, 3), "encoder:1/states#1"'),
    ]:
        with pytest.raises(InputError, match=re.escape(f"say which of {told}")):
            graph.placed(point)
    _, ((call, inside),) = graph.placed("encoder:1/states#1")
    assert call.index == 1
    assert inside == {0: "states#1"}


@pytest.mark.parametrize("name", ["h#1", "h:1"])
@pytest.mark.skipif(IS_LEGACY, reason="Keras 2 has no such names")
def test_a_layers_own_name_with_a_sign_wins(name):
    x = keras.Input((3,), name="x")
    plain = layers.Activation("relu", name="h")
    model = keras.Model(x, layers.Activation("relu", name=name)(plain(x)))
    for point in (name, f"{name}:0", f"{name}#0", f"{name}:0#0"):
        assert makers(resolve(Graph(model), point)) == [name]


@pytest.mark.skipif(IS_LEGACY, reason="Keras 2 has no such names")
def test_a_name_that_another_layer_has_is_not_offered():
    x = keras.Input((4, 3), name="x")
    _, state = layers.SimpleRNN(
        3, return_state=True, return_sequences=True, name="rnn"
    )(x)
    model = keras.Model(x, layers.Activation("tanh", name="rnn#1")(state))
    assert makers(resolve(Graph(model), "rnn#1")) == ["rnn#1"]
    points = [point for point in cut_points(model) if point.at == "rnn#1"]
    assert [point.crossing for point in points] == [None, 1]
    assert "another layer has this very name" in points[0].why_not


def test_a_number_of_an_output_is_kept_where_the_calls_are_listed():
    x = keras.Input((4, 3), name="x")
    rnn = layers.SimpleRNN(3, return_sequences=True, return_state=True, name="rnn")
    model = keras.Model(x, rnn(rnn(x)[0])[1])
    assert 'say which of "rnn:0#1" (?, 3), "rnn:1#1" (?, 3)' in refused(model, "rnn#1")


def test_messages_about_cuts_in_nested_models_name_the_points_given():
    model = called_twice()
    with pytest.raises(InputError, match='"encoder:0/sum" lies downstream'):
        split(model, ["encoder:0/states#0", "encoder:0/sum"])
    x = keras.Input((4, 3), name="x")
    _, state = layers.SimpleRNN(
        3, return_state=True, return_sequences=True, name="rnn"
    )(x)
    inner = keras.Model(x, layers.Dense(2)(state), name="inner")
    y = keras.Input((4, 3), name="y")
    model = keras.Model(y, inner(y))
    with pytest.raises(InputError, match='cut point "inner/rnn#0"'):
        split(model, "inner/rnn#0")


@pytest.mark.parametrize(("name", "path"), [("insid", "inner/inside"), ("lst", "last")])
def test_closest_names_are_found_in_nested_models_too(name, path):
    x = keras.Input((3,), name="x")
    inner = keras.Model(x, layers.Dense(3, name="inside")(x), name="inner")
    y = keras.Input((3,), name="y")
    model = keras.Model(y, layers.Dense(2, name="last")(inner(y)))
    assert f'did you mean "{path}"' in refused(model, name)


def test_what_is_inside_a_wrapper_is_told():
    x = keras.Input((4, 3), name="x")
    inner = models.chain_of(3, "word")
    model = keras.Model(x, layers.TimeDistributed(inner, name="each")(x))
    name = inner.layers[1].name
    assert f'no layer "{name}"' in refused(model, name)
    for asked in (name, f"{name}s"):
        assert 'it is inside "each" (TimeDistributed)' in refused(model, asked)


def test_a_tensor_of_another_model_is_refused():
    other = models.chain().get_layer("middle").output
    message = refused(models.chain(), other)
    assert repr(other.name) in message
    assert "does not belong to model 'chain'" in message


@pytest.mark.parametrize(
    ("point", "kind"),
    [(3, "int"), (None, "NoneType"), (np.zeros(3), "ndarray"), (tf.zeros(3), "Tensor")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_cut_point_is_named(point, kind):
    message = refused(models.chain(), [point])
    assert "a cut point is a layer name or a symbolic tensor" in message
    assert message.endswith(kind)


def test_a_layer_is_no_cut_point():
    model = models.chain()
    assert refused(model, model.get_layer("middle")).endswith("received Dense")


@pytest.mark.parametrize("nothing", [[], ()])
def test_no_cut_point_at_all_is_refused(nothing):
    assert "received an empty list" in refused(models.chain(), nothing)


def test_the_same_tensor_twice_is_refused():
    model = models.chain()
    points = ["middle", model.get_layer("middle").output]
    assert "['middle', 'middle'] name a tensor twice" in refused(model, points)


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (lambda: Subclassed(), "Subclassed"),
        (lambda: keras.Sequential([layers.Dense(2)]), "Sequential"),
        (lambda: layers.Dense(2), "Dense"),
        (lambda: None, "NoneType"),
    ],
    ids=["subclassed", "unbuilt", "layer", "none"],
)
def test_a_model_without_a_graph_is_refused(model, kind):
    with pytest.raises(InputError, match=f"expected a functional model.*{kind}"):
        Graph(model())


# What a Keras that has moved a private attribute would look like.
BARE = SimpleNamespace()


@pytest.mark.parametrize(
    ("read", "missing"),
    [
        (lambda: _keras.calls(BARE), "_nodes_by_depth"),
        (lambda: _keras.structures(BARE), "_nested_inputs|_inputs_struct"),
        (lambda: _keras.maker(BARE), "_keras_history"),
        (
            lambda: _keras.maker(SimpleNamespace(_keras_history=BARE)),
            "layer|operation",
        ),
        (
            lambda: _keras.calls(SimpleNamespace(_nodes_by_depth={0: [BARE]})),
            "is_input",
        ),
    ],
    ids=["calls", "structures", "history", "maker", "node"],
)
def test_a_moved_internal_of_keras_is_one_clear_line(read, missing):
    with pytest.raises(RuntimeError) as caught:
        read()
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"Keras {_keras.VERSION} has no SimpleNamespace.")
    assert any(
        f".{name}, which tiedbert reads" in message for name in missing.split("|")
    )


@pytest.mark.parametrize(
    "missing",
    ["call_args", "call_kwargs", "keras_inputs", "outputs", "layer"]
    if IS_LEGACY
    else ["arguments", "input_tensors", "output_tensors", "operation"],
)
def test_a_moved_internal_of_a_call_is_one_clear_line(missing):
    class Moved:
        """A node of Keras without the one attribute."""

        def __init__(self, node):
            self.node = node

        def __getattr__(self, name):
            if name == missing:
                raise AttributeError(name)
            return getattr(self.node, name)

        def __eq__(self, other):
            return other is self.node

    model = models.chain()
    node = Moved(model.get_layer("middle")._inbound_nodes[0])
    model = SimpleNamespace(_nodes_by_depth={0: [node]})
    with pytest.raises(RuntimeError, match=f"has no Moved.{missing}, which"):
        _keras.calls(model)


def test_a_model_whose_nodes_have_moved_is_not_taken_for_one_without_a_graph():
    model = models.chain()
    vars(model).pop("_nodes_by_depth")
    assert _keras.has_graph(model)
    with pytest.raises(RuntimeError, match="has no Functional._nodes_by_depth, which"):
        Graph(model)


@pytest.mark.parametrize("moved", [0, 1], ids=tensor_metadata.METADATA[:2])
def test_moved_metadata_of_tensors_is_not_taken_for_none(moved, monkeypatch):
    names = list(tensor_metadata.METADATA)
    names[moved] = "_moved"
    monkeypatch.setattr(tensor_metadata, "METADATA", tuple(names))
    tensor_metadata.check_metadata.cache_clear()
    tensor = models.chain().outputs[0]
    with pytest.raises(RuntimeError, match="has no EagerTensor._moved, which"):
        _keras.implicit_mask(tensor)
    with pytest.raises(RuntimeError, match="has no EagerTensor._moved, which"):
        _keras.metadata_of(tf.zeros(3))
    monkeypatch.undo()
    tensor_metadata.check_metadata.cache_clear()
    assert _keras.implicit_mask(tensor) is None


def test_other_moved_internals_are_one_clear_line():
    with pytest.raises(RuntimeError, match="has no SimpleNamespace._update_input"):
        _keras.rewire(BARE, 0, None)
    dropout, table = layers.Dropout(0.5), layers.Embedding(3, 2)
    assert _keras.table_of(table) is None
    dropout(table(tf.zeros([1, 2])))
    if IS_LEGACY:
        object.__delattr__(dropout, "_random_generator")
        with pytest.raises(RuntimeError, match="has no Dropout._random_generator"):
            _keras.own_variables(dropout)
    else:
        object.__delattr__(table, "_embeddings")
        with pytest.raises(RuntimeError, match="has no Embedding._embeddings"):
            _keras.table_of(table)


def test_moved_modules_and_locals_of_keras_are_one_clear_line():
    with pytest.raises(RuntimeError, match=r"has no keras\.moved\.name, which"):
        internals.internal_in_module("keras.moved", "name")
    with pytest.raises(RuntimeError, match=r"has no math\.name, which"):
        internals.internal_in_module("math", "name")
    frame = sys._getframe()
    with pytest.raises(RuntimeError, match=f"has no made in {frame.f_code.co_name}, "):
        internals.internal_local(frame, "made")


def test_the_graph_of_a_nested_model_is_built_once():
    graph = Graph(models.nested())
    (layer,) = graph.nested_models
    inner = graph.nested(layer)
    assert graph.nested(layer) is inner
    deeper = graph.nested(layer, "encoder/")
    assert (deeper.path, inner.path) == ("encoder/", "")
    assert deeper.calls is inner.calls
    other = Graph(keras.Model(graph.inputs, graph.outputs))
    assert graph.in_another_form(models.chain(), {}).nested(layer) is inner
    assert other.nested(layer) is not inner
