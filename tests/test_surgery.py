"""A cut loses nothing: the uncut model tells what the two halves must give."""

import models
import numpy as np
import pytest
import tensorflow as tf
from generation import IS_LEGACY
from models import MODELS, CountCalls, assert_same, batch
from tensorflow import keras

from tiedbert.errors import InputError
from tiedbert.surgery import get_outputs_of, split
from tiedbert.surgery.graph import Graph

layers = keras.layers


@pytest.fixture(params=MODELS, ids=lambda build: build.__name__)
def model(request):
    return request.param()


# One cut in the middle of each model, where a test of every cut would take long.
MIDDLE = [
    (models.chain, "middle"),
    (models.sequential, "first"),
    (models.residual, "a_norm"),
    (models.recurrent, "dense"),
    (models.attention, "attention"),
    (models.dictionaries, "embedding"),
    (models.shared, "dense:2"),
    (models.keywords, "shift"),
    (models.constants, "middle"),
    (models.nested, "inner:0"),
]
at_middle = pytest.mark.parametrize(
    ("build", "at"), MIDDLE, ids=lambda value: getattr(value, "__name__", value)
)


def tensors(model):
    """Every tensor of a model that can be perturbed, its inputs among them."""
    graph = Graph(model)
    made = [tensor for call in graph.calls for tensor in call.outputs]
    return [t for t in graph.input_tensors + made if "bool" not in str(t.dtype)]


def ids(items):
    return {id(item) for item in items}


def test_rest_of_front_is_the_model_at_every_cut(model):
    """Also after arithmetic, which drops the masks that Keras keeps for itself."""
    x = batch(model)
    expected = model(x)
    for at in tensors(model):
        front, rest = split(model, at)
        hidden, *context = front(x)
        assert_same(rest([hidden, *context]), expected)
        assert_same(rest([hidden + tf.zeros_like(hidden), *context]), expected)


def test_a_perturbation_arrives():
    model = models.chain()
    front, rest = split(model, "middle")
    (hidden,) = front(batch(model))
    expected = model.get_layer("last")(hidden + 1.0)
    assert_same(rest([hidden + 1.0]), expected)


def test_an_lstm_gets_its_mask_after_a_cut():
    model = models.recurrent(last=layers.LSTM)
    x = batch(model)
    front, rest = split(model, "dense")
    hidden, *context = front(x)
    assert_same(rest([hidden + 0.0, *context]), model(x))


@pytest.mark.parametrize("build", [models.recurrent, models.attention])
def test_layers_after_a_cut_receive_the_mask_of_the_padding(build):
    """So what the cuts above are compared with is a mask, not the lack of one."""
    model = build()
    tokens = batch(model)
    _, mask, *_ = model(tokens)
    np.testing.assert_array_equal(mask, tokens != 0)


@at_middle
def test_masks_cross_as_booleans_after_the_values(build, at):
    front, _ = split(build(), at)
    of_bool = [tensor.dtype == tf.bool for tensor in front(batch(front))]
    masked = build in (models.recurrent, models.attention, models.dictionaries)
    assert any(of_bool) == masked
    assert of_bool == sorted(of_bool)


@pytest.mark.parametrize("at", ["embedding", "states"])
def test_outputs_keep_their_masks_for_what_comes_after(at):
    model = models.recurrent()
    tokens = batch(model)
    front, rest = split(model, at)  # "states" makes the output itself
    for outputs in (model(tokens), rest(front(tokens))):
        mask_seen = models.ShowMask()(outputs[-1])
        np.testing.assert_array_equal(mask_seen, tokens != 0)


@pytest.mark.parametrize("at", ["middle", ["middle"], ("middle",)])
def test_front_gives_a_list_even_of_one(at):
    model = models.chain()
    front, _ = split(model, at)
    crossing = front(batch(model))
    assert isinstance(crossing, list)
    assert len(crossing) == 1


def test_the_cut_tensor_comes_first_and_is_the_feature_of_the_model():
    model = models.residual()
    x = batch(model)
    feature = keras.Model(model.input, model.get_layer("a_norm").output)
    front, _ = split(model, "a_norm")
    hidden, *context = front(x)
    assert_same(hidden, feature(x))
    assert_same(context, [x])  # the skip connection


def test_an_input_is_a_cut_point():
    model = models.dictionaries()
    x = batch(model)
    front, rest = split(model, "tokens")
    tokens, *context = front(x)
    assert_same(tokens, x["tokens"])
    changed = tf.roll(x["tokens"], 1, axis=0)
    assert_same(rest([changed, *context]), model({**x, "tokens": changed}))


def test_outputs_that_do_not_depend_on_the_cut_cross():
    model = models.dictionaries()
    x = batch(model)
    front, rest = split(model, "summary")
    hidden, *context = front(x)
    changed, expected = rest([hidden + 1.0, *context]), model(x)
    assert_same(changed["side"], expected["side"])
    assert_same(changed["states"], expected["states"])
    assert np.all(changed["score"] != expected["score"])


@pytest.mark.parametrize("order", [["text", "side"], ["side", "text"]])
def test_parallel_cut_points_come_in_the_order_given(order):
    model = models.dictionaries()
    names = {"text": "summary", "side": "side"}
    x = batch(model)
    front, rest = split(model, [names[key] for key in order])
    crossing = front(x)
    assert_same(rest(crossing), model(x))
    zeroed = [crossing[0] * 0.0, crossing[1] * 0.0]
    score = rest([*zeroed, *crossing[2:]])["score"]
    assert_same(score, tf.zeros_like(score) + model.get_layer("score").bias)
    for name, value in zip(order, crossing, strict=False):
        feature = keras.Model(model.input, model.get_layer(names[name]).output)
        assert_same(value, feature(x))


def test_cut_points_that_depend_on_each_other_are_refused():
    with pytest.raises(InputError, match='"last" lies downstream of another cut point'):
        split(models.chain(), ["middle", "last"])


@pytest.mark.parametrize("which", [0, 1, 2])
def test_one_call_of_a_shared_layer_is_cut(which):
    model = models.shared()
    left, right = x = batch(model)
    dense = model.get_layer("dense")
    values = [dense(left), dense(dense(left)), dense(right)]
    front, rest = split(model, f"dense:{which}")
    hidden, *context = front(x)
    assert_same(hidden, values[which])
    if which == 0:  # the first call feeds the second
        total = dense(hidden + 1.0) + values[2]
    else:
        total = values[1] + values[2] + 1.0
    expected = model.get_layer("last")(total)
    np.testing.assert_allclose(rest([hidden + 1.0, *context]), expected, rtol=1e-5)


def test_calls_of_a_shared_layer_count_as_they_were_made():
    """Not by their depth in the graph: the second call is the deeper one here."""
    a, b = keras.Input((3,)), keras.Input((3,))
    dense = layers.Dense(3, name="dense")
    first, second = dense(a), dense(b)
    model = keras.Model([a, b], [first, layers.Dense(1)(layers.Dense(2)(second))])
    x = [tf.ones([1, 3]), tf.zeros([1, 3])]
    assert_same(split(model, "dense:0")[0](x)[0], dense(x[0]))
    assert_same(split(model, "dense:1")[0](x)[0], dense(x[1]))


def test_calls_by_other_models_do_not_count():
    x = keras.Input((3,))
    dense = layers.Dense(3, name="dense")
    dense(dense(x))
    h = keras.Input((3,))
    keras.Model(h, dense(h))
    model = keras.Model(x, layers.Dense(2)(dense(x)))
    front, rest = split(model, "dense")
    values = batch(model)
    assert_same(rest(front(values)), model(values))


@pytest.mark.parametrize("output", [0, 1])
def test_a_cut_at_one_output_of_a_layer_hands_over_the_others(output):
    model = models.states()
    x = batch(model)
    sequence, state = values = model.get_layer("states")(x)
    front, rest = split(model, model.get_layer("states").output[output])
    hidden, *context = front(x)
    assert_same(hidden, values[output])
    changed = [sequence, state]
    changed[output] = hidden * 2.0
    again = model.get_layer("again")(changed[0], initial_state=changed[1])
    expected = [model.get_layer("last")(again), changed[1]]
    assert_same(rest([hidden * 2.0, *context]), expected)


@at_middle
def test_the_halves_hold_the_variables_of_the_model(build, at):
    model = build()
    front, rest = split(model, at)
    assert ids(front.weights) | ids(rest.weights) == ids(model.weights)
    assert ids(front.weights) < ids(model.weights)


@pytest.mark.cases(5)
@at_middle
def test_a_cut_leaves_the_model_as_it_was(build, at):
    model = build()
    x = batch(model)

    def state():
        graph = Graph(model)
        calls = [(call.layer.name, call.index) for call in graph.calls]
        return calls, ids(model.layers), ids(graph.output_tensors), model.get_config()

    before, expected = state(), model(x)
    front, rest = split(model, at)
    rest(front(x))
    assert state() == before
    assert_same(model(x), expected)


@pytest.mark.cases(5)
@at_middle
def test_halves_survive_saving(build, at, tmp_path):
    if IS_LEGACY and build is models.constants:
        pytest.skip("Keras 2 cannot load the whole model either")
    model = build()
    x = batch(model)
    halves = split(model, at)
    for name, half in zip(["front", "rest"], halves, strict=True):
        half.save(tmp_path / f"{name}.keras")
    front, rest = (
        keras.models.load_model(tmp_path / f"{name}.keras")
        for name in ["front", "rest"]
    )
    crossing = front(x)
    assert_same(crossing, halves[0](x))
    assert_same(rest(crossing), model(x))


def test_a_front_of_one_tensor_gives_a_list_after_loading(tmp_path):
    model = models.chain()
    front, _ = split(model, "middle")
    front.save(tmp_path / "front.keras")
    assert isinstance(
        keras.models.load_model(tmp_path / "front.keras")(batch(model)), list
    )


@pytest.mark.cases(5)
@at_middle
def test_gradients_are_those_of_the_model(build, at):
    model = build()
    x = batch(model)
    front, rest = split(model, at)
    weights = model.trainable_variables

    def gradients(function):
        with tf.GradientTape() as tape:
            outputs = tf.nest.flatten(function(x))
            loss = tf.add_n([tf.reduce_sum(tf.square(output)) for output in outputs])
        gradients = tape.gradient(loss, weights)
        return [tf.convert_to_tensor(gradient) for gradient in gradients]

    expected = gradients(model)
    assert all(np.any(gradient) for gradient in expected)
    for gradient, value in zip(
        gradients(lambda x: rest(front(x))), expected, strict=True
    ):
        np.testing.assert_allclose(gradient, value, rtol=1e-5, atol=1e-6)


@pytest.mark.cases(2)
@at_middle
def test_a_composition_trains_the_variables_of_the_model(build, at):
    model = build()
    front, rest = split(model, at)
    composed = keras.Model(front.input, rest(front(front.input)))
    assert ids(composed.trainable_variables) == ids(model.trainable_variables)
    x = batch(model)
    y = tf.nest.map_structure(tf.zeros_like, model(x))
    start = model.get_weights()

    def trained(whole):
        model.set_weights(start)
        losses = tf.nest.map_structure(lambda _: "mse", y)
        whole.compile("sgd", losses, run_eagerly=True)
        whole.fit(x, y, batch_size=3, verbose=0)
        return model.get_weights()

    for found, expected, old in zip(
        trained(composed), trained(model), start, strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        assert np.any(found != old)


@pytest.mark.cases(5)
@at_middle
def test_the_symbolic_outputs_of_front_are_inputs_for_rest(build, at):
    model = build()
    front, rest = split(model, at)
    composed = keras.Model(front.inputs, rest(front.outputs))
    x = batch(model)
    assert_same(composed(tf.nest.flatten(x)), model(x))


def test_what_is_before_the_cut_runs_once():
    x = keras.Input((3,))
    before = CountCalls(name="before")
    h = layers.Dense(3, name="dense")(before(x))
    after = CountCalls(name="after")
    model = keras.Model(x, layers.Add()([after(h), before.output, x]))
    front, rest = split(model, "dense")
    for _ in range(2):
        crossing = front(tf.ones([1, 3]))
    assert (int(before.calls), int(after.calls)) == (2, 0)
    rest(crossing)
    assert (int(before.calls), int(after.calls)) == (2, 1)


def test_dropout_before_the_cut_is_drawn_once():
    """Both branches must see the same draw: their difference is then 0."""
    x = keras.Input((50,))
    dropped = layers.Dropout(0.5)(x)
    branch = layers.Activation("linear", name="branch")(dropped)
    model = keras.Model(x, layers.Subtract()([branch, dropped]))
    front, rest = split(model, "branch")
    hidden, *context = front(tf.ones([2, 50]), training=True)
    assert np.any(hidden == 0)
    assert not np.any(rest([hidden, *context], training=True))


def test_dropout_after_the_cut_obeys_the_training_argument():
    x = keras.Input((50,))
    h = layers.Activation("linear", name="branch")(x)
    front, rest = split(keras.Model(x, layers.Dropout(0.5)(h)), "branch")
    hidden = front(tf.ones([2, 50]))
    assert np.all(rest(hidden) == 1)
    assert np.any(rest(hidden, training=True) == 0)


@pytest.mark.cases(3)
def test_a_mixed_precision_model_is_exact(mixed_bfloat16, model):
    x = batch(model)
    expected = model(x)
    for at in tensors(model):
        front, rest = split(model, at)
        hidden, *context = front(x)
        assert_same(rest([hidden + tf.zeros_like(hidden), *context]), expected)


@pytest.fixture
def mixed_bfloat16():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    yield
    keras.mixed_precision.set_global_policy("float32")


def test_numbers_of_a_crossing_input_stay_whole_in_mixed_precision(mixed_bfloat16):
    """bert4keras feeds token ids as floats: bfloat16 would round 1001 to 1000."""
    ids = keras.Input((2,), name="ids")
    h = layers.Embedding(2000, 3, name="embedding")(ids)
    front, rest = split(keras.Model(ids, [h, ids]), "embedding")
    values = tf.constant([[1001.0, 1003.0]])
    assert_same(rest(front(values))[1], values)


def test_a_cut_twice_equals_a_cut_once():
    """`rest` is a model like any other."""
    model = models.residual()
    x = batch(model)
    front, rest = split(model, "a_sum")
    middle, last = split(rest, "b_sum")
    assert_same(last(middle(front(x))), model(x))


def test_get_outputs_of_as_in_2019():
    """`Model(*get_outputs_of(model, tensor))` is the rest of the model."""
    model = models.chain()
    middle = model.get_layer("middle").output
    inputs, outputs = get_outputs_of(model, middle)
    front = keras.Model(model.input, middle)
    x = batch(model)
    assert_same(keras.Model(inputs, outputs)(front(x)), model(x))


def test_get_outputs_of_gives_a_list_when_several_tensors_cross():
    model = models.residual()
    x = batch(model)
    inputs, outputs = get_outputs_of(model, "a_norm")
    front, _ = split(model, "a_norm")
    assert_same(keras.Model(inputs, outputs)(front(x)), model(x))


def test_get_outputs_of_puts_the_given_tensors_in_place():
    model = models.residual()
    x = batch(model)
    noisy, skip = keras.Input((4, 4, 2)), keras.Input((4, 4, 2))
    shifted = layers.Rescaling(2.0)(noisy)
    inputs, outputs = get_outputs_of(model, "a_norm", [shifted, skip])
    assert inputs[0] is shifted
    assert inputs[1] is skip
    hidden, context = split(model, "a_norm")[0](x)
    halved = keras.Model([noisy, skip], outputs)([hidden / 2.0, context])
    assert_same(halved, model(x))


def test_get_outputs_of_adds_the_inputs_that_are_not_given():
    model = models.residual()
    hidden = keras.Input((4, 4, 2))
    inputs, outputs = get_outputs_of(model, "a_norm", input_layers=hidden)
    assert inputs[0] is hidden
    assert len(inputs) == 2
    front, _ = split(model, "a_norm")
    x = batch(model)
    assert_same(keras.Model(inputs, outputs)(front(x)), model(x))


def test_get_outputs_of_refuses_more_tensors_than_cross():
    given = [keras.Input((5,)), keras.Input((5,))]
    with pytest.raises(InputError, match="1 tensors cross this cut, received 2"):
        get_outputs_of(models.chain(), "middle", given)


def test_inputs_of_rest_keep_shape_batch_size_and_type():
    ids = keras.Input((4,), batch_size=2, dtype="int32", name="ids")
    h = layers.Embedding(5, 3, name="embedding")(ids)
    model = keras.Model(ids, [layers.Dense(1)(h), ids])
    _, rest = split(model, "embedding")
    found = [(tuple(t.shape), tf.as_dtype(t.dtype)) for t in rest.inputs]
    assert found == [((2, 4, 3), tf.float32), ((2, 4), tf.int32)]
