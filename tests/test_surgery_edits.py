"""Edits, each compared with the same model made by hand or run layer by layer."""

import models
import numpy as np
import pytest
import tensorflow as tf
from generation import IS_LEGACY
from models import Aware, CountCalls, Plain, ShowMask, assert_same, batch
from tensorflow import keras

from tiedbert import _keras
from tiedbert._keras import graphs
from tiedbert.errors import InputError
from tiedbert.surgery import (
    features,
    get_outputs_of,
    inject,
    insert,
    remove,
    replace,
    split,
)
from tiedbert.surgery.graph import Graph
from tiedbert.surgery.replay import Extended, Substitution, replay

layers = keras.layers

# Keras 3 says so of every nested model, also of those that pass the mask on; and of
# `Plain`, of which it is true.
MASK_WARNING = "Layer '.*' .* was passed an input with a mask attached to it"
pytestmark = pytest.mark.filterwarnings(f"ignore:{MASK_WARNING}:UserWarning:keras.src")


@pytest.fixture
def no_policy():
    """Back to float32 after a test that sets another precision policy."""
    yield keras.mixed_precision.set_global_policy
    keras.mixed_precision.set_global_policy("float32")


def encoder(name="encoder", width=4):
    """A masked, normalized, nested model."""
    x = keras.Input((None, width), name=f"{name}_x")
    h = layers.Dense(width, name="inside")(x)
    h = layers.LayerNormalization(name="norm")(h)
    return keras.Model(
        x, layers.SimpleRNN(width, return_sequences=True, name="rnn")(h), name=name
    )


def nested_text():
    """Padding outside steers a layer in the nested model, and what follows."""
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    e = layers.Embedding(9, 4, mask_zero=True, name="embedding")(tokens)
    h = encoder()(e)
    y = layers.GlobalAveragePooling1D(name="pooled")(h)
    return keras.Model(tokens, [y, ShowMask(name="mask")(h)], name="text")


def twice():
    """One nested model called on both inputs, and its result used."""
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    x = keras.Input((3,), name="x")
    inner = layers.Dense(3, activation="tanh", name="inside")
    side = keras.Model(x, layers.Dense(3, name="after")(inner(x)), name="encoder")
    return keras.Model([a, b], layers.Concatenate(name="both")([side(a), side(b)]))


def inner_layer(model, path):
    for name in path.split("/"):
        model = model.get_layer(name)
    return model


def refused(function, *args, **kwargs):
    """The one line with which an edit is refused."""
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def nodes(model):
    """How many uses of its layers a model sees."""
    return {
        depth: len(found)
        for depth, found in _keras.functional(model)._nodes_by_depth.items()
    }


# insert


def test_an_inserted_layer_changes_what_follows_and_nothing_else():
    model = models.chain()
    x = batch(model)
    scale = layers.Rescaling(2.0, name="scale")
    first, middle, last = (model.get_layer(n) for n in ("first", "middle", "last"))
    assert_same(insert(model, "middle", scale)(x), last(middle(first(x)) * 2.0))


def test_insertion_behind_an_input():
    model = models.chain()
    x = batch(model)
    assert_same(insert(model, "x", layers.Rescaling(2.0))(x), model(x * 2.0))


def test_insertion_behind_the_output():
    model = models.chain()
    x = batch(model)
    assert_same(insert(model, "last", layers.Rescaling(2.0))(x), model(x) * 2.0)


def test_what_nothing_follows_may_change_its_shape():
    model = models.chain()
    head = layers.Dense(7, name="head")
    assert tuple(insert(model, "last", head).output.shape) == (None, 7)


def test_every_call_of_a_shared_layer_gets_the_layer():
    model = models.shared()
    left, right = x = batch(model)
    dense, double = model.get_layer("dense"), lambda value: value * 2.0
    total = double(dense(double(dense(left)))) + double(dense(right))
    found = insert(model, "dense", layers.Rescaling(2.0))(x)
    np.testing.assert_allclose(found, model.get_layer("last")(total), rtol=1e-5)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_one_call_of_a_shared_layer_gets_the_layer(which):
    model = models.shared()
    left, right = x = batch(model)
    dense = model.get_layer("dense")
    factor = [2.0 if k == which else 1.0 for k in range(3)]
    total = dense(dense(left) * factor[0]) * factor[1] + dense(right) * factor[2]
    found = insert(model, f"dense:{which}", layers.Rescaling(2.0))(x)
    np.testing.assert_allclose(found, model.get_layer("last")(total), rtol=1e-5)


def test_the_kth_call_of_a_layer_stays_the_kth():
    """Also when the edit makes some of its calls again, and others not."""
    model = models.shared()
    left, right = x = batch(model)
    dense = model.get_layer("dense")
    total = dense(dense(left) * 2.0) * 2.0 + dense(right)
    expected = model.get_layer("last")(total)
    points = ["dense:0", "dense:1"]
    double = layers.Rescaling(2.0, name="double")
    for at in (points, points[::-1]):
        np.testing.assert_allclose(insert(model, at, double)(x), expected, rtol=1e-5)
    edited = insert(model, "left", Aware(name="aware"))
    np.testing.assert_allclose(insert(edited, points, double)(x), expected, rtol=1e-5)


def test_one_layer_behind_several_points_is_shared():
    model = models.chain()
    x = batch(model)
    shift = layers.Rescaling(1.0, offset=0.5, name="shift")
    first, middle, last = (model.get_layer(n) for n in ("first", "middle", "last"))
    edited = insert(model, ["first", "middle"], shift)
    assert_same(edited(x), last(middle(first(x) + 0.5) + 0.5))
    assert len([layer for layer in edited.layers if layer.name == "shift"]) == 1


def test_insertion_by_tensor():
    model = models.residual()
    x = batch(model)
    tensor = model.get_layer("a_sum").output
    by_name = insert(model, "a_sum", layers.Rescaling(2.0))
    assert_same(insert(model, tensor, layers.Rescaling(2.0))(x), by_name(x))
    assert np.any(by_name(x) != model(x))


def test_insertion_in_a_nested_model_means_each_of_its_calls():
    model = twice()
    a, b = x = batch(model)
    inside, after = (inner_layer(model, f"encoder/{n}") for n in ("inside", "after"))
    expected = tf.concat([after(inside(a) * 2.0), after(inside(b) * 2.0)], -1)
    edited = insert(model, "encoder/inside", layers.Rescaling(2.0, name="scale"))
    assert_same(edited(x), expected)
    assert inner_layer(edited, "encoder/scale").scale == 2.0


@pytest.mark.parametrize("which", [0, 1])
def test_insertion_in_one_call_of_a_nested_model_leaves_the_other(which):
    model = twice()
    x = batch(model)
    expected = np.split(model(x), 2, axis=-1)
    found = np.split(
        insert(model, f"encoder:{which}/inside", layers.Rescaling(2.0))(x), 2, axis=-1
    )
    assert np.all(found[which] != expected[which])
    assert_same(found[1 - which], expected[1 - which])


def test_insertion_in_both_calls_one_after_the_other():
    model = twice()
    x = batch(model)
    edited = insert(model, "encoder:0/inside", layers.Rescaling(2.0, name="one"))
    edited = insert(edited, "encoder/inside", layers.Rescaling(2.0, name="two"))
    both = insert(model, "encoder/inside", layers.Rescaling(2.0, name="both"))
    assert_same(edited(x), both(x))


@pytest.mark.parametrize("keep_mask", [True, False])
@pytest.mark.parametrize("at", ["embedding", "dense", "states"])
def test_keep_mask_is_for_layers_that_know_no_masks(at, keep_mask):
    model = models.recurrent()
    tokens = batch(model)
    edited = insert(model, at, Plain(name="plain"), keep_mask=keep_mask)
    mask = edited(tokens)[1]
    if keep_mask:
        assert_same(edited(tokens), model(tokens))
    else:
        assert np.all(mask == -1)


@pytest.mark.parametrize("keep_mask", [True, False])
def test_a_layer_that_knows_masks_decides_itself(keep_mask):
    model = models.recurrent()
    tokens = batch(model)
    edited = insert(model, "dense", Aware(name="aware"), keep_mask=keep_mask)
    assert_same(edited(tokens), model(tokens))


@pytest.mark.parametrize(
    "at", ["embedding", "encoder", "encoder/inside", "encoder/rnn"]
)
@pytest.mark.parametrize("kind", [Aware, Plain])
def test_masks_that_come_from_outside_of_a_nested_model_go_on(kind, at):
    """There the symbolic tensors say nothing of a mask."""
    model = nested_text()
    tokens = batch(model)
    _, mask = model(tokens)
    np.testing.assert_array_equal(mask, tokens != 0)
    assert_same(insert(model, at, kind(name="put_in"))(tokens), model(tokens))


def test_without_keep_mask_the_mask_ends_in_a_nested_model_too():
    model = nested_text()
    edited = insert(model, "encoder/inside", Plain(name="plain"), keep_mask=False)
    assert np.all(edited(batch(model))[1] == -1)


def test_no_layers_for_masks_where_there_are_none():
    names = {layer.name for layer in models.chain().layers}
    edited = insert(models.chain(), "middle", Plain(name="plain"))
    assert {layer.name for layer in edited.layers} == names | {"plain"}


@pytest.mark.parametrize(
    ("edit", "at"),
    [(insert, "middle"), (replace, "middle")],
    ids=["insert", "replace"],
)
def test_another_shape_is_refused_and_nothing_is_touched(edit, at):
    model = models.chain()
    before = nodes(model), model.get_config()
    layer = layers.Dense(6, name="wide")
    message = refused(edit, model, at, layer)
    assert 'layer "wide" gives (?, 6) float32' in message
    assert 'what follows "middle" expects (?, 5) float32' in message
    assert not layer.built
    assert layer._inbound_nodes == []
    assert (nodes(model), model.get_config()) == before


@pytest.mark.parametrize("edit", [insert, replace], ids=["insert", "replace"])
def test_another_shape_of_what_a_nested_model_gives_is_refused(edit):
    x = keras.Input((4,))
    inner = keras.Model(x, layers.Dense(5, name="end")(x), name="inner")
    y = keras.Input((4,))
    model = keras.Model(y, layers.Dense(2, name="last")(inner(y)))
    message = refused(edit, model, "inner/end", layers.Dense(6, name="wide"))
    assert message == (
        'layer "inner" gives (?, 6) float32 where what follows "inner" expects '
        "(?, 5) float32: shape and dtype must stay"
    )
    alone = keras.Model(y, inner(y))
    wide = edit(alone, "inner/end", layers.Dense(6, name="wide"))
    assert wide.output_shape == (None, 6)  # nothing follows


@pytest.mark.parametrize("at", ["middle", "last"])
def test_a_layer_that_gives_nothing_is_refused(at):
    class Nothing(layers.Layer):
        def call(self, inputs):
            return None

    message = refused(replace, models.chain(), at, Nothing(name="nothing"))
    assert 'layer "nothing"' in message


def test_another_dtype_is_refused():
    layer = layers.Dense(5, dtype="float16", name="half")
    message = refused(insert, models.chain(), "middle", layer)
    assert "gives (?, 5) float16" in message
    assert "expects (?, 5) float32" in message
    assert not layer.built


def test_a_layer_of_several_outputs_is_refused():
    layer = layers.SimpleRNN(3, return_sequences=True, return_state=True, name="two")
    x = keras.Input((5, 3))
    model = keras.Model(
        x, layers.Dense(2, name="last")(layers.Dense(3, name="dense")(x))
    )
    message = refused(insert, model, "dense", layer)
    assert 'layer "two" gives (?, 5, 3) float32, (?, 3) float32' in message


def test_a_layer_that_cannot_be_called_there_is_refused():
    layer = layers.SimpleRNN(5, name="recurrent")
    message = refused(insert, models.chain(), "middle", layer)
    assert 'layer "recurrent" cannot be called where "middle" gives (?, 5)' in message


@pytest.mark.parametrize("edit", [insert, replace], ids=["insert", "replace"])
def test_what_is_no_layer_is_refused(edit):
    message = refused(edit, models.chain(), "middle", tf.nn.relu)
    assert message == "expected a Keras layer or model, received function"


def test_a_name_that_is_taken_is_refused():
    layer = layers.Activation("relu", name="last")
    message = refused(insert, models.chain(), "middle", layer)
    assert "already: give the new one another name" in message
    assert '"last"' in message


def test_a_model_is_a_layer_too():
    x = keras.Input((5,))
    model = models.chain()
    inner = keras.Model(x, layers.Dense(5, name="inside")(x), name="adapter")
    edited = insert(model, "middle", inner)
    values = batch(model)
    hidden = features(model, "middle")(values)
    assert_same(edited(values), model.get_layer("last")(inner(hidden)))
    assert edited.get_layer("adapter") is inner


def test_an_edit_of_an_edit():
    model = models.chain()
    x = batch(model)
    once = insert(model, "first", layers.Rescaling(2.0, name="one"))
    again = insert(once, "one", layers.Rescaling(0.5, name="two"))
    assert_same(again(x), model(x))


# replace


def test_a_replacement_is_called_as_the_old_layer():
    model = models.chain()
    x = batch(model)
    new = layers.Dense(5, activation="relu", name="middle")
    edited = replace(model, "middle", new)
    hidden = new(model.get_layer("first")(x))
    assert_same(edited(x), model.get_layer("last")(hidden))


def test_the_arguments_by_keyword_reach_the_replacement():
    model = models.keywords()
    x = batch(model)
    new = models.Scaled(name="again")
    assert_same(replace(model, "scaled", new)(x), model(x))


def test_a_replacement_that_lacks_an_argument_is_refused():
    message = refused(replace, models.keywords(), "scaled", layers.Dense(3, name="new"))
    assert 'the call is made with scale, shift, which layer "new" (Dense)' in message


def test_training_is_left_out_where_it_means_nothing():
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dropout(0.5, name="dropout")(x, training=True))
    edited = replace(model, "dropout", layers.Rescaling(2.0))
    assert_same(edited(tf.ones([1, 3])), tf.ones([1, 3]) * 2.0)


@pytest.mark.parametrize("at", ["dense", "dense:1"])
def test_a_replacement_in_every_call_or_in_one(at):
    model = models.shared()
    left, right = x = batch(model)
    old = model.get_layer("dense")
    new = layers.Dense(3, activation="tanh", name="new")
    edited = replace(model, at, new)
    other = new if at == "dense" else old
    total = new(other(left)) + other(right)
    np.testing.assert_allclose(edited(x), model.get_layer("last")(total), rtol=1e-5)


def test_a_replacement_in_a_nested_model():
    model = twice()
    a, b = x = batch(model)
    new = layers.Dense(3, name="inside")
    edited = replace(model, "encoder/inside", new)
    after = inner_layer(model, "encoder/after")
    assert_same(edited(x), tf.concat([after(new(a)), after(new(b))], -1))


@pytest.mark.parametrize("keep_mask", [True, False])
def test_the_mask_that_the_old_layer_passed_on(keep_mask):
    model = models.recurrent()
    tokens = batch(model)
    edited = replace(model, "dense", Plain(name="plain"), keep_mask=keep_mask)
    mask = edited(tokens)[1]
    np.testing.assert_array_equal(
        mask, (tokens != 0) if keep_mask else -tf.ones_like(mask)
    )


@pytest.mark.parametrize("old", ["inside", "norm"])
def test_the_mask_that_the_old_layer_passed_on_in_a_nested_model(old):
    model = nested_text()
    tokens = batch(model)
    edited = replace(model, f"encoder/{old}", Plain(name="plain"))
    np.testing.assert_array_equal(edited(tokens)[1], tokens != 0)


def test_a_mask_that_the_old_layer_ended_stays_away():
    tokens = keras.Input((None,), dtype="int32")
    h = layers.Embedding(9, 4, mask_zero=True)(tokens)
    model = keras.Model(tokens, ShowMask()(Plain(name="plain")(h)))
    edited = replace(model, "plain", Plain(name="again"))
    assert np.all(edited(tf.constant([[1, 0]])) == -1)


@pytest.mark.parametrize("edit", [insert, replace])
def test_a_layer_of_several_outputs_cannot_stand_at_an_output(edit):
    x = keras.Input((None,))
    two = keras.Model(x, [layers.ReLU()(x), layers.Softmax()(x)], name="two")
    message = refused(edit, models.chain(), "last", two)
    assert message.startswith('layer "two" gives (')
    assert message.endswith(" float32: expected a layer of one output")


def test_what_takes_the_place_of_a_layer_gives_as_many_tensors():
    graph = Graph(models.chain())
    last = graph.calls[-1]
    one = last.outputs[0]
    for given in ([one, one], []):
        with pytest.raises(ValueError, match="zip"):
            replay(graph.calls, Substitution(layers={last: lambda _, t=given: t}))
    extended = Substitution(layers={last: lambda _: Extended([one], [one, one])})
    assert replay(graph.calls, extended) == {last: [one, one]}


def test_a_layer_of_several_outputs_cannot_be_replaced():
    message = refused(replace, models.states(), "states", layers.Dense(3))
    assert 'layer "states" gives 2 tensors; only a layer of one output' in message


def test_an_input_is_no_layer_to_replace():
    message = refused(replace, models.chain(), "x", layers.Dense(4))
    assert message == "\"x\" is an input of model 'chain', no layer"


def test_a_tensor_is_no_layer_to_replace():
    model = models.chain()
    message = refused(replace, model, model.output, layers.Dense(4))
    assert message.startswith("expected the name of one layer, as a string, received")


# remove


def test_dropout_is_removed():
    x = keras.Input((50,))
    h = layers.Dropout(0.5, name="dropout")(x)
    model = keras.Model(x, layers.Dense(2, name="last")(h))
    edited = remove(model, "dropout")
    assert [layer.name for layer in edited.layers][1:] == ["last"]
    values = tf.ones([2, 50])
    assert_same(edited(values, training=True), model(values))


def test_normalization_is_removed_with_the_mask_kept():
    model = models.attention()
    tokens = batch(model)
    summed = features(model, "sum")(tokens)
    pooled, mask = remove(model, "norm")(tokens)
    assert_same(pooled, model.get_layer("pooled")(summed, mask=tokens != 0))
    np.testing.assert_array_equal(mask, tokens != 0)


def test_the_query_stands_for_an_attention():
    model = models.attention()
    tokens = batch(model)
    e = features(model, "embedding")(tokens)
    pooled, _ = remove(model, "attention")(tokens)
    hidden = model.get_layer("norm")(e + e)
    expected = model.get_layer("pooled")(hidden, mask=tokens != 0)
    np.testing.assert_allclose(pooled, expected, rtol=1e-5)


def test_attention_of_a_list_of_the_same_tensor_is_removed():
    x = keras.Input((5, 3))
    h = layers.Attention(name="attention")([x, x])
    model = keras.Model(x, layers.Dense(2, name="last")(h))
    values = batch(model)
    assert_same(remove(model, "attention")(values), model.get_layer("last")(values))


def test_a_sum_of_two_has_no_stand_in():
    message = refused(remove, models.residual(), "a_sum")
    assert (
        'layer "a_sum" gives (?, 4, 4, 2) float32 from (?, 4, 4, 2) float32, '
        in message
    )
    assert "2 of them can stand for the output, and one must" in message


def test_a_layer_that_changes_the_shape_has_no_stand_in():
    message = refused(remove, models.chain(), "middle")
    assert 'layer "middle" gives (?, 5) float32 from (?, 3) float32' in message
    assert "none of them can stand for the output" in message


def test_a_layer_of_several_outputs_cannot_be_removed():
    message = refused(remove, models.states(), "states")
    assert 'layer "states" gives 2 tensors' in message


def test_removal_of_every_call_and_of_one():
    model = models.shared()
    left, right = x = batch(model)
    dense, last = model.get_layer("dense"), model.get_layer("last")
    assert_same(remove(model, "dense")(x), last(left + right))
    assert_same(remove(model, "dense:1")(x), last(dense(left) + dense(right)))


def test_removal_in_one_call_of_a_nested_model():
    model = twice()
    a, b = x = batch(model)
    encoder, after = model.get_layer("encoder"), inner_layer(model, "encoder/after")
    edited = remove(model, "encoder:1/inside")
    assert_same(edited(x), tf.concat([encoder(a), after(b)], -1))


# inject


def test_deltas_at_points_that_depend_on_each_other():
    model = models.chain()
    x = batch(model)
    first, middle, last = (model.get_layer(n) for n in ("first", "middle", "last"))
    one, two = tf.ones([3, 3]), tf.ones([3, 5]) * 2.0
    expected = last(middle(first(x) + one) + two)
    assert_same(inject(model, ["first", "middle"])([x, one, two]), expected)
    assert_same(inject(model, ["middle", "first"])([x, two, one]), expected)


def test_an_input_and_an_output_can_be_perturbed():
    model = models.chain()
    x = batch(model)
    injected = inject(model, ["x", "last"])
    assert_same(injected([x, x, tf.ones([3, 2])]), model(x + x) + 1.0)


def test_a_model_of_a_dict_takes_its_deltas_by_name():
    model = models.dictionaries()
    x = batch(model)
    injected = inject(model, ["summary", "side"])
    assert set(injected.input) == {*x, "summary_delta", "side_delta"}
    deltas = {"summary_delta": tf.ones([3, 4]), "side_delta": tf.zeros([3, 4])}
    front, rest = split(model, "summary")
    hidden, *context = front(x)
    assert_same(injected({**x, **deltas}), rest([hidden + 1.0, *context]))


@pytest.mark.parametrize("name", ["a", "z"])
def test_a_nested_model_of_a_dict(name):
    """Keras 3 sorts the inputs of a dict: the delta may come before them."""
    inside = keras.Input((3,), name=name)
    h = layers.Dense(3, name="inside")(inside)
    inner = keras.Model({name: inside}, layers.Dense(3, name="after")(h), name="inner")
    x = keras.Input((3,), name="x")
    model = keras.Model(x, inner({name: x}))
    values = batch(model)
    expected = inner.get_layer("after")(inner.get_layer("inside")(values) + 1.0)
    found = inject(model, "inner/inside")([values, tf.ones([3, 3])])
    assert_same(found, expected)


def test_deltas_in_both_calls_of_a_nested_model():
    model = twice()
    a, b = x = batch(model)
    inside, after = (inner_layer(model, f"encoder/{n}") for n in ("inside", "after"))
    deltas = [tf.ones([3, 3]), tf.ones([3, 3]) * 2.0]
    expected = tf.concat([after(inside(a) + 1.0), after(inside(b) + 2.0)], -1)
    injected = inject(model, ["encoder:0/inside", "encoder:1/inside"])
    assert_same(injected([*x, *deltas]), expected)


def test_the_mask_stays_on_a_perturbed_tensor():
    model = models.recurrent()
    tokens = batch(model)
    injected = inject(model, "embedding")
    zeros = tf.zeros([*tokens.shape, 4])
    assert_same(injected([tokens, zeros]), model(tokens))
    np.testing.assert_array_equal(injected([tokens, zeros + 1.0])[1], tokens != 0)


def test_a_model_can_be_injected_again():
    model = models.chain()
    x = batch(model)
    again = inject(inject(model, "middle"), "middle")
    one = tf.ones([3, 5])
    assert_same(again([x, one, one * 0.0]), inject(model, "middle")([x, one]))


def run_eagerly(model, values):
    return model(values)


def predict(model, values):
    return model.predict(values, verbose=0)


@pytest.mark.parametrize(
    ("run", "shape"),
    [(run_eagerly, (3, 1)), (run_eagerly, (1, 5)), (predict, (3, 1))],
    ids=["width", "batch", "predict"],
)
def test_a_delta_is_not_broadcast(run, shape):
    injected = inject(models.chain(), "middle")
    # Keras 2 gives what is raised in `predict` a type of its own.
    kind = Exception if run is predict and IS_LEGACY else InputError
    message = r"a delta has the shape of the tensor .*, \((3|None), 5\); received"
    with pytest.raises(kind, match=message):
        run(injected, [tf.ones([3, 4]), tf.zeros(shape)])


def test_keras_itself_refuses_a_delta_of_another_width():
    injected = inject(models.chain(), "middle")
    message = r"expected shape=\(None, 5\), found shape=\(3, 4\)"
    with pytest.raises(ValueError, match=message):
        injected([tf.ones([3, 4]), tf.zeros([3, 4])])


def test_ids_cannot_be_perturbed():
    message = refused(inject, models.dictionaries(), "tokens")
    assert message.startswith('a delta is added to floats, and "tokens" holds int32')


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_delta_has_the_dtype_of_its_tensor(no_policy, policy):
    no_policy(policy)
    model = models.chain()
    x = batch(model)
    injected = inject(model, "middle")
    assert _keras.dtype_name(injected.inputs[1]) == policy.removeprefix("mixed_")
    (hidden,) = split(model, "middle")[0](x)
    delta = tf.ones_like(hidden)
    expected = split(model, "middle")[1]([hidden + delta])
    assert_same(injected([x, delta]), expected)
    assert_same(injected([x, delta * 0]), model(x))


# features


def counted():
    """A model whose every layer counts how often it runs, also in a nested model."""
    inside = keras.Input((3,))
    h = CountCalls(name="one")(inside)
    inner = keras.Model(inside, CountCalls(name="two")(h), name="inner")
    x = keras.Input((3,))
    h = CountCalls(name="before")(x)
    h = inner(h)
    return keras.Model(x, CountCalls(name="after")(h))


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("before", [1, 0, 0, 0]),
        ("inner/one", [1, 1, 0, 0]),
        (["inner/one", "before"], [1, 1, 0, 0]),
        (["inner/one", "inner"], [1, 1, 1, 0]),
        (["before", "inner/one", "inner/two", "after"], [1, 1, 1, 1]),
    ],
    ids=str,
)
def test_no_layer_runs_twice_and_none_unneeded(at, expected):
    model = counted()
    features(model, at)(tf.ones([1, 3]))
    paths = ["before", "inner/one", "inner/two", "after"]
    assert [int(inner_layer(model, path).calls) for path in paths] == expected


def test_features_are_the_tensors_in_the_order_given():
    model = models.chain()
    x = batch(model)
    first = model.get_layer("first")(x)
    middle = model.get_layer("middle")(first)
    assert_same(features(model, ["middle", "x", "first"])(x), [middle, x, first])


@pytest.mark.parametrize("at", ["middle", ["middle"]])
def test_a_single_feature_is_a_tensor(at):
    model = models.chain()
    assert tuple(features(model, at).output.shape) == (None, 5)


def test_features_of_one_call_of_a_nested_model():
    model = twice()
    _, b = x = batch(model)
    found = features(model, ["encoder:1/inside", "encoder:0"])(x)
    assert_same(found[0], inner_layer(model, "encoder/inside")(b))
    assert_same(found[1], model.get_layer("encoder")(x[0]))


def test_features_of_both_calls_of_a_nested_model():
    model = twice()
    x = batch(model)
    inside = inner_layer(model, "encoder/inside")
    found = features(model, ["encoder:1/inside", "encoder:0/inside"])(x)
    assert_same(found, [inside(x[1]), inside(x[0])])


@pytest.mark.parametrize("time", [None, 5])
def test_the_input_of_a_nested_model_is_a_feature(time):
    x = keras.Input((time, 4), name="x")
    h = layers.Dense(4, name="before")(x)
    model = keras.Model(x, encoder()(h))
    values = batch(model)
    expected = model.get_layer("before")(values)
    assert_same(features(model, "encoder/encoder_x")(values), expected)


@pytest.mark.parametrize("at", ["embedding", "encoder/inside"])
def test_features_have_their_masks(at):
    model = nested_text()
    tokens = batch(model)
    found = ShowMask()(features(model, at)(tokens))
    np.testing.assert_array_equal(found, tokens != 0)


# split in nested models


@pytest.mark.cases(1)
@pytest.mark.parametrize("at", ["encoder/inside", "encoder/rnn", "encoder/encoder_x"])
def test_a_cut_in_a_nested_model(at):
    model = nested_text()
    tokens = batch(model)
    front, rest = split(model, at)
    hidden, *context = front(tokens)
    assert_same(hidden, features(model, at)(tokens))
    assert_same(rest([hidden + 0.0, *context]), model(tokens))


def test_a_cut_in_both_calls_of_a_nested_model():
    model = twice()
    a, b = x = batch(model)
    front, rest = split(model, ["encoder:0/inside", "encoder:1/inside"])
    inside, after = (inner_layer(model, f"encoder/{n}") for n in ("inside", "after"))
    first, second = front(x)
    assert_same([first, second], [inside(a), inside(b)])
    assert_same(
        rest([first + 1.0, second]), tf.concat([after(first + 1.0), after(second)], -1)
    )


def test_a_cut_in_a_nested_model_by_tensor():
    model = nested_text()
    tokens = batch(model)
    tensor = inner_layer(model, "encoder/inside").output
    front, rest = split(model, tensor)
    assert_same(rest(front(tokens)), model(tokens))
    assert_same(front(tokens)[0], features(model, "encoder/inside")(tokens))


@pytest.mark.parametrize("which", [0, 1])
def test_the_kth_call_in_a_nested_model_that_masks_reach(which):
    """The second call of the layer is the deeper one in the graph."""
    x = keras.Input((None, 4))
    dense = layers.Dense(4, name="dense")
    first = dense(x)
    second = dense(layers.Dense(4, name="between")(layers.ReLU(name="deep")(x)))
    inner = keras.Model(
        x,
        layers.Subtract()([second, layers.ReLU()(layers.ReLU()(layers.ReLU()(first)))]),
        name="inner",
    )
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    e = layers.Embedding(9, 4, mask_zero=True, name="embedding")(tokens)
    model = keras.Model(tokens, inner(e))
    values = batch(model)
    hidden = model.get_layer("embedding")(values)
    if which == 1:
        hidden = inner.get_layer("between")(tf.nn.relu(hidden))
    at = f"inner/dense:{which}"
    assert_same(split(model, at)[0](values)[0], dense(hidden))
    assert_same(features(model, at)(values), dense(hidden))


def test_a_nested_model_whose_input_is_of_fixed_length_outside():
    """Keras 3 mixes up the inputs and outputs of a nested model that passes one on."""
    x = keras.Input((5, 4), name="x")
    inside = keras.Input((None, 4))
    h = layers.Dense(4, name="inside")(inside)
    inner = keras.Model(inside, layers.Add(name="sum")([inside, h]), name="inner")
    model = keras.Model(x, layers.Dense(2)(inner(layers.Dense(4, name="before")(x))))
    values = batch(model)
    front, rest = split(model, "inner/inside")
    assert_same(rest(front(values)), model(values))


def test_halves_are_models_for_inputs_of_another_shape():
    """What crosses as it came in is still what the front was called with."""
    x = keras.Input((None, 4), name="x")
    h = layers.Dense(4, name="dense")(x)
    model = keras.Model(x, layers.Add()([h, x]))
    front, rest = split(model, "dense")
    fixed = keras.Input((5, 4))
    composed = keras.Model(fixed, rest(front(fixed)))
    values = batch(composed)
    assert_same(composed(values), model(values))


@pytest.mark.parametrize(
    "edit", [split, inject, features], ids=lambda function: function.__name__
)
def test_a_point_in_several_calls_lists_them(edit):
    message = refused(edit, twice(), "encoder/inside")
    assert 'layer "encoder" is called 2 times' in message
    assert 'say which of "encoder:0/inside", "encoder:1/inside"' in message


def test_a_nested_model_that_is_given_its_mask():
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    mask = keras.Input((None,), dtype="bool", name="mask")
    e = layers.Embedding(9, 4, name="embedding")(tokens)
    h = encoder()(e, mask=mask)
    model = keras.Model([tokens, mask], [h, ShowMask()(h)])
    values = batch(models.recurrent())
    x = [values, values != 0]
    expected = model(x)
    np.testing.assert_array_equal(expected[1], x[1])
    for at in ("encoder/inside", "encoder/norm", "embedding", "encoder"):
        front, rest = split(model, at)
        hidden, *context = front(x)
        assert_same(rest([hidden + 0.0, *context]), expected)


def test_a_mask_that_a_recurrent_layer_is_given():
    """No layer of this model makes a mask: it comes as an argument and goes on."""
    x = keras.Input((5, 4), name="x")
    mask = keras.Input((5,), dtype="bool", name="mask")
    h = layers.SimpleRNN(4, return_sequences=True, name="rnn")(x, mask=mask)
    h = layers.Dense(4, name="dense")(h)
    model = keras.Model([x, mask], [layers.SimpleRNN(2)(h), ShowMask()(h)])
    tokens = batch(models.recurrent())
    values = [tf.random.stateless_normal([3, 5, 4], (1, 2)), tokens != 0]
    expected = model(values)
    for at in ("rnn", "dense"):
        front, rest = split(model, at)
        hidden, *context = front(values)
        assert_same(rest([hidden + 0.0, *context]), expected)
        assert_same(insert(model, at, Plain())(values), expected)


# what is refused, whatever the edit


def test_a_cut_point_behind_another_is_refused_by_split_alone():
    model = models.chain()
    x = batch(model)
    points = ["first", "middle"]
    assert "must not depend on each other" in refused(split, model, points)
    assert len(features(model, points)(x)) == 2
    zeros = [tf.zeros([3, 3]), tf.zeros([3, 5])]
    assert_same(inject(model, points)([x, *zeros]), model(x))


def test_a_cut_point_behind_another_in_a_nested_model_is_refused():
    points = ["encoder/inside", "encoder/rnn"]
    assert "must not depend on each other" in refused(split, nested_text(), points)
    points = ["embedding", "encoder/rnn"]
    assert "must not depend on each other" in refused(split, nested_text(), points)


def test_an_input_that_nothing_uses_is_no_cut_point():
    x, unused = keras.Input((3,), name="x"), keras.Input((3,), name="unused")
    model = keras.Model([x, unused], layers.Dense(2)(x), name="m")
    message = refused(split, model, "unused")
    assert "no output of model 'm' depends on cut point \"unused\"" in message


def test_a_layer_has_no_inside():
    message = refused(split, models.chain(), "middle/x")
    assert (
        '"middle/x" reaches into layer "middle" (Dense), which has no graph' in message
    )
    assert 'the closest point is "middle" itself' in message


def test_an_unknown_name_in_a_nested_model():
    message = refused(split, nested_text(), "encoder/insid")
    assert (
        message
        == 'no layer "insid" in model \'encoder\': did you mean "encoder/inside"?'
    )


def test_a_name_that_is_only_in_a_nested_model_is_told_with_its_path():
    message = refused(split, nested_text(), "inside")
    assert 'did you mean "encoder/inside"?' in message


def test_tensors_of_two_models():
    model, other = models.chain(), models.shared()
    points = [model.get_layer("middle").output, other.get_layer("sum").output]
    for edit in (split, inject, features):
        assert "does not belong to model 'chain'" in refused(edit, model, points)


class OwnCall(keras.Model):
    def call(self, inputs, training=None, mask=None):
        return super().call(inputs) * 2.0


def test_a_functional_model_with_a_call_of_its_own_is_refused():
    x = keras.Input((3,))
    model = OwnCall(x, layers.Dense(2, name="dense")(x))
    for edit in (split, inject, features):
        assert "its class OwnCall overrides `call`" in refused(edit, model, "dense")
    assert "class OwnCall overrides `call`" in refused(insert, model, "dense", Aware())
    assert "class OwnCall overrides `call`" in refused(remove, model, "dense")
    outer = keras.Model(x, model(x))
    message = refused(split, outer, f"{model.name}/dense")
    assert "has no graph inside" in message


# names


@pytest.mark.parametrize("build", [models.sequential, models.chain])
def test_an_edited_model_has_the_name_of_the_old_one(build):
    model = build()
    for edited in (
        insert(model, "first", Aware(name="put_in")),
        replace(model, "first", layers.Dense(3, name="first")),
        insert(model, "first", layers.Dropout(0.1, name="dropout")),
    ):
        assert edited.name == model.name
    assert remove(edited, "dropout").name == model.name


def test_a_nested_sequential_keeps_its_name_so_that_paths_go_on():
    """The graph inside a Sequential of Keras 3 has another name."""
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="inside")], name="inner"
    )
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2)(inner(x)))
    edited = insert(model, "inner/inside", Aware(name="put_in"))
    values = batch(model)
    assert_same(edited(values), model(values))
    assert_same(remove(edited, "inner/put_in")(values), model(values))


def test_front_and_rest_are_named_after_a_sequential():
    model = models.sequential()
    front, rest = split(model, "first")
    assert (front.name, rest.name) == (f"{model.name}_front", f"{model.name}_rest")


# training


def dropout_chain():
    x = keras.Input((30,))
    h = layers.Dropout(0.5, name="one")(x)
    h = layers.BatchNormalization(momentum=0.5, name="norm")(
        layers.Dense(30, name="dense")(h)
    )
    return keras.Model(x, layers.Dropout(0.5, name="two")(h))


def test_a_training_call_draws_and_counts_as_the_whole_model():
    model = dropout_chain()
    x = batch(model)
    front, rest = split(model, "dense")
    layers_ = _keras.layers_within(model)
    state = [
        (v, tf.convert_to_tensor(v))
        for layer in layers_
        for v in _keras.own_variables(layer)
    ]

    def run(function):
        tf.random.set_seed(1)
        for variable, value in state:
            variable.assign(value)
        output = function()
        return output, [tf.convert_to_tensor(variable) for variable, _ in state]

    whole = run(lambda: model(x, training=True))
    halves = run(lambda: rest(front(x, training=True), training=True))
    assert_same(halves, whole)
    assert np.any(whole[0] == 0)
    mean = model.get_layer("norm").moving_mean
    assert np.any(np.not_equal(mean, 0))


@pytest.mark.parametrize("edit", [insert, features, inject], ids=lambda f: f.__name__)
def test_the_training_argument_reaches_an_edited_model(edit):
    model = dropout_chain()
    x = tf.ones([2, 30])
    if edit is insert:
        run = insert(model, "dense", Aware())
    elif edit is features:
        run = features(model, "two")
    else:
        injected = inject(model, "dense")
        run = lambda x, **options: injected([x, tf.zeros([2, 30])], **options)  # noqa: E731
    assert np.any(run(x, training=True) == 0)
    assert_same(run(x), model(x))


# losses


def test_losses_of_weights_belong_to_the_part_with_the_weight():
    x = keras.Input((3,))
    h = layers.Dense(3, kernel_regularizer="l2", name="one")(x)
    model = keras.Model(x, layers.Dense(3, kernel_regularizer="l1", name="two")(h))
    front, rest = split(model, "one")
    assert_same([*front.losses, *rest.losses], list(model.losses))
    assert len(front.losses) == 1


@keras.utils.register_keras_serializable("tests")
class Penalty(layers.Layer):
    """Its input, and the sum of it as a loss."""

    def call(self, inputs):
        self.add_loss(tf.reduce_sum(inputs))
        return tf.identity(inputs)


def with_losses():
    x = keras.Input((3,), name="x")
    h = layers.Dense(3, activity_regularizer="l2", name="one")(x)
    h = Penalty(name="penalty")(h)
    h = layers.Dense(3, name="middle")(h)
    h = Penalty(name="late")(h)
    return keras.Model(x, layers.Dense(3, activity_regularizer="l1", name="two")(h))


def test_losses_of_activities_are_those_of_the_layers_that_run():
    model = with_losses()
    x = batch(model)
    model(x)
    whole = [float(loss) for loss in model.losses]
    front, rest = split(model, "middle")
    crossing = front(x)
    early = [float(loss) for loss in front.losses]
    rest(crossing)
    late = [float(loss) for loss in rest.losses]
    assert len(whole) == 4
    np.testing.assert_allclose(sorted([*early, *late]), sorted(whole), rtol=1e-6)


def test_losses_of_activities_in_other_edits():
    model = with_losses()
    x = batch(model)
    model(x)
    whole = sorted(float(loss) for loss in model.losses)
    edited = insert(model, "middle", Aware(name="put_in"))
    injected = inject(model, "middle")
    edited(x)
    np.testing.assert_allclose(sorted(map(float, edited.losses)), whole, rtol=1e-6)
    injected([x, tf.zeros([3, 3])])
    np.testing.assert_allclose(sorted(map(float, injected.losses)), whole, rtol=1e-6)


@pytest.mark.skipif(not IS_LEGACY, reason="Keras 3 has no symbolic add_loss")
@pytest.mark.parametrize("nested", [False, True])
def test_symbolic_losses_and_metrics_go_with_their_tensor(nested):
    x = keras.Input((3,), name="x")
    h = layers.Dense(3, name="one")(x)
    y = layers.Dense(3, name="two")(h)
    model = keras.Model(x, layers.Dense(3, name="three")(y), name="inner")
    model.add_loss(tf.reduce_sum(h) * 3.0)
    model.add_loss(tf.reduce_sum(y) * 5.0)
    model.add_metric(tf.reduce_mean(h), name="early")
    model.add_metric(tf.reduce_mean(y), name="late")
    at = "two"
    if nested:
        outer = keras.Input((3,), name="outer")
        model = keras.Model(outer, layers.Dense(2)(model(outer)))
        at = "inner/two"
    values = batch(model)
    model(values)
    whole = [float(loss) for loss in model.losses]
    front, rest = split(model, at)
    crossing = front(values)
    rest(crossing)
    assert len(whole) == 2
    np.testing.assert_allclose(
        [*map(float, front.losses), *map(float, rest.losses)], whole, rtol=1e-6
    )
    assert [metric.name for metric in front.metrics] == ["early"]
    assert [metric.name for metric in rest.metrics] == ["late"]


# kinds of inputs


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize(
    "build",
    [models.chain, models.residual, models.attention, twice],
    ids=lambda f: f.__name__,
)
def test_edits_under_a_precision_policy(no_policy, policy, build):
    no_policy(policy)
    model = build()
    x = batch(model)
    expected = model(x)
    at = {
        models.chain: "middle",
        models.residual: "a_sum",
        models.attention: "norm",
        twice: "encoder:1/inside",
    }[build]
    front, rest = split(model, at)
    hidden, *context = front(x)
    assert_same(rest([hidden + tf.zeros_like(hidden), *context]), expected)
    assert_same(features(model, at)(x), hidden)
    assert_same(insert(model, at, Plain())(x), expected)
    assert_same(
        inject(model, at)([*tf.nest.flatten(x), tf.zeros_like(hidden)]), expected
    )


def sparse(values):
    return tf.sparse.from_dense(values)


def test_a_sparse_input_crosses_or_is_cut():
    x = keras.Input((4,), sparse=True, name="x")
    first = layers.Dense(3, name="first")(x)
    second = layers.Dense(3, name="second")(x)
    model = keras.Model(x, layers.Add(name="sum")([first, second]))
    values = sparse(tf.constant([[0.0, 1.0, 0.0, 2.0]]))
    front, rest = split(model, "sum")
    assert_same(rest(front(values)), model(values))
    assert_same(features(model, "first")(values), model.get_layer("first")(values))
    assert_same(insert(model, "first", Aware())(values), model(values))
    assert_same(inject(model, "first")([values, tf.zeros([1, 3])]), model(values))


@pytest.mark.skipif(not IS_LEGACY, reason="layers of Keras 3 take no ragged tensors")
def test_a_ragged_input():
    tokens = keras.Input((None,), dtype="int32", ragged=True, name="tokens")
    h = layers.Embedding(9, 4, name="embedding")(tokens)
    h = layers.Dense(4, name="dense")(h)
    model = keras.Model(tokens, layers.SimpleRNN(3, name="rnn")(h))
    values = tf.ragged.constant([[1, 2, 3], [4]])
    for at in ("embedding", "dense", "rnn"):
        front, rest = split(model, at)
        hidden, *context = front(values)
        assert_same(rest([hidden + 0.0, *context]), model(values))
        np.testing.assert_array_equal(
            *(
                tf.convert_to_tensor(v.to_tensor() if hasattr(v, "to_tensor") else v)
                for v in (features(model, at)(values), hidden)
            )
        )
        assert_same(insert(model, at, Plain())(values), model(values))


# questions that people asked


def test_stackoverflow_49492255():
    """How to replace or insert an intermediate layer of a built model?

    The answers rebuild the model in a loop over `model.layers`, which is right for a
    chain only. Here it is a model with skip connections.
    """
    model = models.residual()
    x = batch(model)
    norm = model.get_layer("b_norm")
    inserted = insert(model, "b_norm", layers.Rescaling(2.0, name="doubled"))
    before, after = features(model, ["b_norm", "a_sum"])(x)
    summed = tf.nn.relu(before * 2.0) + after
    pooled = tf.reduce_mean(summed, [1, 2])
    np.testing.assert_allclose(inserted(x), model.get_layer("last")(pooled), rtol=1e-5)
    fresh = layers.BatchNormalization(name="fresh")
    replaced = replace(model, "b_norm", fresh)
    fresh.set_weights(norm.get_weights())
    assert_same(replaced(x), model(x))
    assert norm not in replaced.layers


def test_keras_issue_16123():
    """Cut at a layer of a nested model: Keras says "graph disconnected"."""
    model = nested_text()
    tokens = batch(model)
    inside = inner_layer(model, "encoder/inside")
    with pytest.raises(ValueError, match="(?i)disconnected|not connected"):
        keras.Model(model.input, inside.output)
    front, rest = split(model, "encoder/inside")
    hidden, *context = front(tokens)
    assert_same(hidden, inside(model.get_layer("embedding")(tokens)))
    assert_same(rest([hidden, *context]), model(tokens))


# what many cuts leave behind


def test_a_cut_looks_only_at_the_calls_of_its_model(monkeypatch):
    """Each cut leaves calls at the shared layers: those of others must cost nothing."""
    model = models.residual()
    seen = []
    read = graphs.raw_call
    monkeypatch.setattr(
        graphs, "raw_call", lambda node: seen.append(node) or read(node)
    )

    def count():
        seen.clear()
        split(model, "a_norm")
        return len(seen)

    first = count()
    for _ in range(10):
        split(model, "b_norm")
    assert count() == first


class Unread(list):
    """A layer's list of nodes that may grow, but not be walked through."""

    def refuse(self, *args):
        raise AssertionError("walked through")

    index = __contains__ = __iter__ = refuse


def test_reading_a_graph_walks_through_no_calls_of_a_shared_layer():
    model = models.residual()
    for layer in model.layers:
        vars(layer)["_inbound_nodes"] = Unread(layer._inbound_nodes)
    graph = Graph(model)
    cut = [graph.tensor_at("a_norm")]
    assert len(graph.context(cut, graph.downstream(cut))) == 1


@pytest.mark.parametrize("edit", [split, features, inject], ids=lambda f: f.__name__)
def test_keras_whose_internals_moved_is_one_clear_line(edit):
    model = models.chain()
    vars(model).pop("_nodes_by_depth")
    with pytest.raises(
        RuntimeError, match=rf"^Keras {_keras.VERSION} has no .*_nodes_by_depth, which"
    ):
        edit(model, "middle")


def marker(name):
    """A layer of one's own that changes its input, so that its place shows."""
    return layers.Rescaling(2.0, offset=1.0, name=name)


@pytest.mark.parametrize("by", ["tensor", "number"])
def test_points_of_one_insertion_are_those_of_the_model_given(by):
    """The second point lies behind the first, and is no other call after it."""
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    dense = layers.Dense(3, activation="tanh", name="dense")
    first = dense(left)
    second = dense(first)
    model = keras.Model([left, right], [second, dense(right)])
    points = [first, second] if by == "tensor" else ["dense:0", "dense:1"]
    x = batch(model)
    mark = marker("mark")
    expected = [mark(dense(mark(dense(x[0])))), dense(x[1])]
    edited = insert(model, points, mark)
    assert_same(edited(x), expected)
    # The numbers still mean the same calls.
    assert_same(features(edited, "dense:2")(x), expected[1])


def test_different_calls_of_a_nested_model_are_edited_at_once():
    model = twice()
    x = batch(model)
    both = insert(model, ["encoder:0/inside", "encoder:1/inside"], marker("mark"))
    assert_same(both(x), insert(model, "encoder/inside", marker("mark"))(x))


@pytest.mark.filterwarnings(
    "ignore:The structure of `inputs` doesn't match:UserWarning"
)
@pytest.mark.parametrize("given", ["list for a dict", "dict for a list"])
def test_a_nested_model_may_be_called_with_another_structure(given):
    """Keras sorts the names of a dict."""
    z, a = keras.Input((3,), name="z"), keras.Input((3,), name="a")
    h = layers.Dense(3, name="inside")(layers.Subtract(name="gap")([z, a]))
    declared = {"a": a, "z": z} if given == "list for a dict" else [z, a]
    inner = keras.Model(declared, h, name="inner")
    p, q = keras.Input((3,), name="p"), keras.Input((3,), name="q")
    called = [p, q] if given == "list for a dict" else {"a": p, "z": q}
    model = keras.Model([p, q], layers.Dense(2, name="last")(inner(called)))
    x = batch(model)
    expected = model(x)
    front, rest = split(model, "inner/gap")
    assert_same(rest(front(x)), expected)
    zero = tf.zeros_like(features(model, "inner/gap")(x))
    assert_same(inject(model, "inner/gap")([*x, zero]), expected)
    assert_same(insert(model, "inner/gap", Aware(name="aware"))(x), expected)


@pytest.mark.skipif(not IS_LEGACY, reason="Keras 3 wants a keyword")
def test_training_given_by_position_reaches_both_halves_of_a_nested_model():
    x = keras.Input((64,))
    h = layers.Dense(64, name="inside")(x)
    inner = keras.Model(x, layers.Dropout(0.5, name="dropout")(h), name="inner")
    y = keras.Input((64,), name="y")
    model = keras.Model(y, inner(y, True))
    front, rest = split(model, "inner/inside")
    values = tf.ones([1, 64])
    assert np.any(rest(front(values)) == 0.0)
    zero = tf.zeros([1, 64])
    assert np.any(inject(model, "inner/inside")([values, zero]) == 0.0)


@models.register
class OwnMask(layers.Embedding):
    """An embedding with a mask of its own making."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.supports_masking = True

    def compute_mask(self, inputs, mask=None):
        return (tf if IS_LEGACY else keras.ops).not_equal(inputs, 1)


def test_a_mask_that_no_option_tells_of_crosses_a_nested_cut():
    x = keras.Input((None,), dtype="int32")
    e = layers.Dense(4, name="inside")(OwnMask(9, 4, name="embedding")(x))
    inner = keras.Model(x, e, name="inner")
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    h = inner(tokens)
    pooled = layers.GlobalAveragePooling1D(name="pooled")(h)
    model = keras.Model(tokens, [pooled, ShowMask(name="mask")(h)])
    ids = tf.constant([[1, 2, 3], [4, 1, 1]])
    expected = model(ids)
    np.testing.assert_array_equal(expected[1], ids != 1)
    for at in ("inner/inside", "inner/embedding", "inner"):
        front, rest = split(model, at)
        assert_same(rest(front(ids)), expected)


@pytest.mark.parametrize(
    "at", ["encoder:0/inside", ["encoder:0/inside", "encoder:1/inside"]]
)
def test_the_parts_of_a_model_called_twice_can_be_saved(at, tmp_path):
    """Keras cannot load a layer that is in two models: all calls are split alike."""
    model = twice()
    x = batch(model)
    parts = split(model, at)
    for name, part in zip("fr", parts, strict=True):
        part.save(tmp_path / f"{name}.keras")
    front, rest = (keras.models.load_model(tmp_path / f"{n}.keras") for n in "fr")
    assert_same(rest(front(x)), model(x))


def test_an_inserted_model_keeps_the_mask_as_a_layer_does():
    model = models.attention()
    x = keras.Input((None, 4))
    identity = keras.Model(x, layers.Activation("linear")(x), name="identity")
    tokens = batch(model)
    assert_same(insert(model, "embedding", identity)(tokens), model(tokens))


def test_a_front_stays_a_front():
    model = models.chain()
    front, rest = split(model, "middle")
    edited = insert(front, "first", Aware(name="aware"))
    crossing = edited(batch(model))
    assert isinstance(crossing, list)
    assert_same(rest(crossing), model(batch(model)))


def test_an_input_layer_of_another_shape_is_refused():
    model = models.chain()
    message = refused(get_outputs_of, model, "first", keras.Input((7,)))
    assert "(?, 3) float32" in message
    assert "(?, 7) float32" in message
