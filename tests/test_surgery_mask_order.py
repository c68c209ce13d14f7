"""Masks that depend on which call runs first, and that Keras recorded: kept by all.

MultiHeadAttention of Keras 3 takes the mask off its inputs, so a parallel reader
receives it or not; Keras 2 has no such order, and the same must hold there.
"""

import numpy as np
import pytest
import tensorflow as tf
from generation import IS_LEGACY
from models import Plain, ShowMask
from tensorflow import keras
from variants import others_slow

from tiedbert.errors import InputError
from tiedbert.surgery import (
    clone,
    cut_points,
    features,
    inject,
    insert,
    remove,
    replace,
    split,
)
from tiedbert.surgery.drawing import drawing_of
from tiedbert.surgery.graph import Graph

layers = keras.layers
IDS = np.array([[3, 4, 5, 0, 0], [1, 0, 0, 0, 0], [2, 7, 3, 8, 1]], "int32")
keras_3 = pytest.mark.skipif(IS_LEGACY, reason="the order of Keras 3")
# Keras 3 says so of a nested model that passes the mask on.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Layer '.*' .* was passed an input with a mask:UserWarning:keras.src"
)


def embedded():
    ids = keras.Input((5,), dtype="int32", name="ids")
    options = {"mask_zero": True, "embeddings_initializer": "normal"}
    return ids, layers.Embedding(9, 6, name="table", **options)(ids)


def heads(name):
    return layers.MultiHeadAttention(2, 3, name=name)


def side_by_side():
    """Two attentions read one masked tensor."""
    ids, e = embedded()
    both = layers.Add(name="both")([heads("a")(e, e), heads("b")(e, e)])
    return keras.Model(ids, both)


def beside_additive():
    """An Attention and an AdditiveAttention beside one that takes the mask off."""
    ids, e = embedded()
    parts = [
        layers.Attention(name="dot")([e, e]),
        heads("heads")(e, e),
        layers.AdditiveAttention(name="additive")([e, e]),
    ]
    return keras.Model(ids, layers.Add(name="all")(parts))


def through_projections():
    """The projection makes one of them run later."""
    ids, e = embedded()
    query = layers.Dense(6, name="project")(e)
    parts = [heads("late")(query, e), heads("early")(e, e), ShowMask(name="show")(e)]
    sum_ = layers.Add(name="sum")(parts[:2])
    return keras.Model(ids, [layers.GRU(3, name="gru")(sum_), parts[2], e])


def in_a_nested_model():
    """The same in a model that the mask enters from outside."""
    ids, e = embedded()
    x = keras.Input((None, 6), name="x")
    both = layers.Add(name="both")([heads("a")(x, x), heads("b")(x, x)])
    inner = keras.Model(x, both, name="inner")
    return keras.Model(ids, layers.Add(name="sum")([inner(e), e]))


PARALLEL = [
    "side_by_side",
    "beside_additive",
    "through_projections",
    "in_a_nested_model",
    "with_a_mask_by_keyword",
    "behind_a_nested_model",
]


def with_a_mask_by_keyword():
    """Keras puts that mask on the very tensor, for all that read it later."""
    ids, e = embedded()
    x = keras.Input((5, 6), name="x")
    pool = layers.GlobalAveragePooling1D
    inner = keras.Model(x, pool(name="pool")(x), name="inner")
    h = layers.Dense(6, name="dense")(layers.Masking(7.0, name="no_mask")(e))
    h = Plain(name="unmasked")(h)
    mask = tf.equal(ids, 3) if IS_LEGACY else keras.ops.equal(ids, 3)
    outputs = [inner(h, mask=mask), pool(name="late")(h)]
    return keras.Model(ids, [*outputs, layers.Dense(2, name="last")(h)])


def behind_a_nested_model():
    """What reads the tensor behind a nested model gets no mask, whatever is edited."""
    ids, e = embedded()
    x = keras.Input((5, 6), name="x")
    inner = keras.Model(x, heads("a")(x, x), name="inner")
    h = layers.Add(name="sum")([inner(e), e])
    return keras.Model(ids, [heads("b")(h, h), e])


def batch():
    return tf.constant(IDS)


def flat(outputs):
    return tf.nest.flatten(outputs)


def assert_same(found, expected):
    for a, b in zip(flat(found), flat(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def point_names(model):
    return [p.at for p in cut_points(model) if p.crossing and "float" in p.tensor]


@pytest.mark.parametrize("name", others_slow([PARALLEL[0], PARALLEL[-1]], PARALLEL))
def test_every_cut_and_edit_of_parallel_readers_is_exact(name):
    model = globals()[name]()
    expected = model(batch())
    for at in point_names(model):
        front, rest = split(model, at)
        crossing = front(batch())
        assert_same(rest(crossing), expected)
        assert_same(features(model, at)(batch()), crossing[0])
        zero = tf.zeros_like(crossing[0])
        assert_same(inject(model, at)([batch(), zero]), expected)
        linear = layers.Activation("linear", name="linear")
        assert_same(insert(model, at, linear)(batch()), expected)
        plain = insert(model, at, Plain(name="plain"))
        assert_same(plain(batch()), expected)
        outer = at.rpartition("/")[0]
        assert_same(remove(plain, f"{outer}/plain".lstrip("/"))(batch()), expected)
    assert_same(clone(model)(batch()), expected)


@pytest.mark.parametrize("name", others_slow(PARALLEL[-1:], PARALLEL))
def test_points_are_counted_as_they_are_cut(name):
    model = globals()[name]()
    for point in cut_points(model):
        if point.crossing is not None:
            front, _ = split(model, point.at)
            assert len(front.outputs) == point.crossing, point.at


def test_several_points_and_tensors_as_points():
    model = side_by_side()
    a, b = (model.get_layer(name).output for name in "ab")
    front, rest = split(model, [b, "a"])
    assert_same(rest(front(batch())), model(batch()))
    found = features(model, [a, "b"])(batch())
    assert_same(found[0] + found[1], model(batch()))


def test_edited_parts_can_be_edited_again(tmp_path):
    model = side_by_side()
    once = insert(model, "a", layers.Activation("linear", name="linear"))
    front, rest = split(once, "b")
    assert_same(rest(front(batch())), model(batch()))
    once.save(tmp_path / "once.keras")
    assert_same(
        keras.models.load_model(tmp_path / "once.keras")(batch()), once(batch())
    )


def test_a_layer_in_the_place_of_itself():
    model = side_by_side()
    for name in ("table", "a", "b"):
        replaced = replace(model, name, model.get_layer(name))
        assert_same(replaced(batch()), model(batch()))


@keras_3
def test_no_layer_is_put_in_where_the_order_is_given():
    ids, e = embedded()
    h = layers.Add(name="sum")([e, heads("a")(e, e)])
    model = keras.Model(ids, layers.Add()([h, heads("b")(h, h)]))
    edited = insert(model, "sum", layers.Activation("linear", name="linear"))
    kinds = [type(layer).__name__ for layer in edited.layers]
    assert not [kind for kind in kinds if kind.endswith("Mask")]


@keras_3
def test_a_model_without_masks_is_not_run():
    x = keras.Input((49, 4), name="x")
    h = layers.Add(name="sum")([heads("a")(x, x), Fails(name="fails")(x)])
    front, rest = split(keras.Model(x, layers.Dense(2)(h)), "sum")
    assert len(front.outputs) == len(rest.inputs) == 1


@keras_3
def test_points_where_masks_depend_on_training_are_listed_with_the_reason():
    ids, e = embedded()
    d = layers.Dropout(0.5, name="drop")(e)
    h = layers.Add(name="sum")([heads("a")(d, d), e])
    model = keras.Model(ids, layers.SimpleRNN(2, name="last")(h))
    points = {point.at: point for point in cut_points(model)}
    assert points["ids"].crossing == points["last"].crossing == 1
    for at in ("table", "drop", "a", "sum"):
        assert "depends on `training`" in points[at].why_not
        with pytest.raises(InputError, match="depends on `training`"):
            split(model, at)


@keras_3
def test_a_nested_model_whose_masks_depend_on_training_can_be_cut_around():
    x, mask = keras.Input((5, 6), name="x"), keras.Input((5,), dtype="bool")
    i = keras.Input((5, 6), name="i")
    h = layers.Add(name="sum")([heads("a")(i, i), i])
    block = keras.Model(i, layers.SimpleRNN(6, return_sequences=True)(h), name="block")
    i = keras.Input((5, 6), name="i")
    h = layers.Add(name="add")([block(layers.Dropout(0.2)(i)), i])
    inner = keras.Model(i, [h, layers.SimpleRNN(2, name="rnn")(i)], name="inner")
    model = keras.Model([x, mask], inner(x, mask=mask))
    points = {point.at: point for point in cut_points(model)}
    assert points["x"].crossing == 2
    for at in ("inner/add", "inner/rnn", "inner/block/sum"):
        assert points[at].crossing is None
        assert 'padding mask of "inner/i"' in points[at].why_not
    front, rest = split(model, "x")
    given = [tf.ones([2, 5, 6]), tf.constant([[True] * 3 + [False] * 2] * 2)]
    assert_same(rest(front(given)), model(given))


@keras_3
def test_one_tensor_in_inference_and_two_in_training_is_refused():
    """Dropout gives its input itself in inference: then one attention strips both."""
    ids, e = embedded()
    d = layers.Dropout(0.5, name="drop")(e)
    model = keras.Model(ids, layers.Add()([heads("a")(e, e), heads("b")(d, d)]))
    for edit in (split, inject, features):
        with pytest.raises(InputError, match="depends on `training`"):
            edit(model, "b")
    h = layers.Add(name="sum")([e, heads("a")(d, d)])
    model = keras.Model(ids, heads("c")(h, h))
    for at in ("a", "sum"):  # the sum reads what was one with `drop`
        with pytest.raises(InputError, match="depends on `training`"):
            split(model, at)
    assert_same(clone(model)(batch()), model(batch()))
    linear = layers.Activation("linear", name="linear")
    edited = insert(model, "sum", linear)  # the same layers in the same order
    for training in (False, True):
        found = []
        for whole in (model, edited):
            model.get_layer("drop").seed_generator.state.assign([1, 1])
            found.append(whole(batch(), training=training))
        assert_same(*found)


RECURRENT = {
    "LSTM": lambda: layers.LSTM(2, name="last"),
    "GRU": lambda: layers.GRU(2, name="last"),
    "RNN": lambda: layers.RNN(layers.LSTMCell(2), name="last"),
    "both_ways": lambda: layers.Bidirectional(layers.GRU(2), name="last"),
}


@pytest.mark.cases(3)
@pytest.mark.parametrize("training", [None, True, False])
@pytest.mark.parametrize("kind", others_slow(["LSTM", "RNN"], list(RECURRENT)))
def test_edits_keep_the_mask_that_a_recurrent_layer_received(kind, training):
    ids, e = embedded()
    h = layers.Add(name="add")([e, heads("attention")(e, e)])
    h = layers.Dropout(0.1, name="drop")(h)
    options = {} if training is None else {"training": training}
    model = keras.Model(ids, RECURRENT[kind]()(h, **options))
    expected = model(batch())
    zero = tf.zeros([3, 5, 6])
    linear = layers.Activation("linear", name="linear")
    assert_same(inject(model, "add")([batch(), zero]), expected)
    assert_same(insert(model, "add", linear)(batch()), expected)
    assert_same(insert(model, "drop", Plain(name="plain"))(batch()), expected)
    assert_same(remove(model, "drop")(batch()), expected)
    assert_same(replace(model, "last", model.get_layer("last"))(batch()), expected)


def test_a_layer_that_makes_a_mask_is_obeyed_by_an_edit():
    """Not only neutral edits: what is put in starts a mask of its own."""
    x = keras.Input((5, 4), name="x")
    h = layers.Dense(4, use_bias=False, name="dense")(x)
    last = layers.LSTM(2, name="last")
    model = keras.Model(x, last(h))
    edited = insert(model, "dense", layers.Masking(name="masking"))
    values = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    values[:, 3:] = 0
    mask = tf.constant([[True] * 3 + [False] * 2] * 2)
    expected = last(model.get_layer("dense")(values), mask=mask)
    np.testing.assert_array_equal(edited(values), expected)


def test_scores_of_a_masked_attention_cross():
    ids, e = embedded()
    h, scores = heads("heads")(e, e, return_attention_scores=True)
    model = keras.Model(ids, [layers.Dense(2, name="z")(h), scores])
    for at in ("z", "heads#0", "heads#1", ["heads#0", "heads#1"]):
        front, rest = split(model, at)
        assert_same(rest(front(batch())), model(batch()))
    assert_same(features(model, "heads#1")(batch()), model(batch())[1])


def test_a_drawing_shows_none_of_the_layers_put_in():
    model = side_by_side()
    names = {node.name for node in drawing_of(model, "b").nodes.values()}
    assert not [name for name in names if "mask" in name]
    assert {"a", "b", "both", "table"} <= names


class Heads(layers.Layer):
    """Reads sizes while it runs, as the layers of the package bert4keras3 do."""

    def call(self, x):
        batch_size, time, width = x.shape
        return tf.reshape(x, [batch_size, time, 2, width // 2])

    def compute_output_spec(self, x):
        shape = (*x.shape[:2], 2, x.shape[2] // 2)
        return keras.KerasTensor(shape, x.dtype)


@keras_3
def test_a_layer_that_needs_known_sizes_while_it_runs():
    ids = keras.Input((None,), dtype="int32")
    e = layers.Embedding(9, 6, mask_zero=True, name="e")(ids)
    model = keras.Model(ids, layers.Dense(2, name="last")(Heads(name="heads")(e)))
    for at in ("e", "heads"):
        front, rest = split(model, at)
        assert_same(rest(front(batch())), model(batch()))
        for tensor in front.outputs[1:]:
            assert tensor.shape == (None, None)  # no size of the run sticks to it


class Fails(layers.Layer):
    def call(self, x):
        raise RuntimeError("no luck at any size")

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


@keras_3
def test_a_model_that_runs_at_no_size_says_what_failed():
    ids, e = embedded()
    model = keras.Model(ids, layers.Dense(2, name="last")(Fails()(e)))
    with pytest.raises(InputError, match="failed at every size tried: .*no luck"):
        split(model, "table")


class AddMaybe(layers.Layer):
    def call(self, a, b=None):
        return a if b is None else a + b

    def compute_output_shape(self, a_shape, b_shape=None):
        return a_shape


@keras_3
@pytest.mark.parametrize("masked", [False, True])
def test_an_optional_input_crosses(masked):
    x = keras.Input((5, 4), name="x")
    y = keras.Input((5, 4), name="y", optional=True)
    h = layers.Masking(name="mask")(x) if masked else x
    h = layers.Dense(4, name="h")(h)
    model = keras.Model([x, y], [AddMaybe(name="sum")(h, y)])
    ones = tf.ones([2, 5, 4])
    for given in ([ones, None], [ones, 2 * ones]):
        front, rest = split(model, "h")
        assert_same(rest(front(given)), model(given))
        injected = inject(model, "h")
        assert_same(injected([*given, tf.zeros([2, 5, 4])]), model(given))


def scalar():
    x = keras.Input((4, 8), name="x")
    h = layers.Dense(8, name="h")(x)
    if IS_LEGACY:
        size = tf.shape(x)[0]
        y = tf.reshape(h, [size, 32])
    else:
        size = keras.ops.mean(x)
        y = h * size
    return keras.Model(x, layers.Dense(2, name="last")(y)), size


def test_a_scalar_crosses_and_can_be_cut(tmp_path):
    model, size = scalar()
    x = np.random.default_rng(0).normal(size=(3, 4, 8)).astype("float32")
    front, rest = split(model, "h")
    assert_same(rest(front(x)), model(x))
    front, rest = split(model, [size, "h"])
    assert front(x)[0].shape == ()
    assert_same(rest(front(x)), model(x))
    assert_same(features(model, size)(x), front(x)[0])
    for name, part in (("front", front), ("rest", rest)):
        part.save(tmp_path / f"{name}.keras")
    loaded = [
        keras.models.load_model(tmp_path / f"{n}.keras") for n in ("front", "rest")
    ]
    assert_same(loaded[1](loaded[0](x)), model(x))


@pytest.mark.skipif(IS_LEGACY, reason="a number of Keras 3")
def test_a_scalar_is_perturbed():
    model, size = scalar()
    x = tf.constant(np.random.default_rng(0).normal(size=(3, 4, 8)), tf.float32)
    injected = inject(model, size)
    assert_same(injected([x, tf.constant(0.0)]), model(x))
    name = Graph(model).name_of(size)
    assert_same(injected([x, tf.constant(1.0)]), inject(model, name)([x, tf.ones([])]))


def two_outputs():
    x = keras.Input((4,), name="x")
    h = layers.Dense(4, name="k")(x)
    outputs = [layers.Dense(2, name="cls")(h), layers.Dense(1, name="reg")(x)]
    return keras.Model(x, outputs)


def test_outputs_keep_their_names_and_can_be_compiled_by_them():
    model = two_outputs()
    x = np.ones([4, 4], "float32")
    labels = {"cls": np.ones([4, 2]), "reg": np.ones([4, 1])}
    rest = split(model, "k")[1]
    parts = {
        "rest": (rest, split(model, "k")[0](x)),
        "injected": (inject(model, "cls"), [x, np.zeros([4, 2], "float32")]),
        "inserted": (insert(model, "cls", Plain(name="plain")), x),
        "removed": (remove(insert(model, "k", Plain(name="p")), "p"), x),
    }
    model.compile("sgd", {"cls": "mse", "reg": "mae"})
    expected = model.evaluate(x, labels, verbose=0, return_dict=True)
    for name, (part, inputs) in parts.items():
        assert list(part.output_names) == list(model.output_names), name
        part.compile("sgd", {"cls": "mse", "reg": "mae"})
        found = part.evaluate(inputs, labels, verbose=0, return_dict=True)
        assert found == pytest.approx(expected), name


def test_a_model_between_tensors_whose_calls_are_numbered_backwards():
    """Keras 2 counts the calls of such a model from its end."""
    x = keras.Input((4,), name="x")
    h = first = layers.Dense(4, name="pre", activation="tanh")(x)
    shared = layers.Dense(4, name="d", activation="tanh")
    for _ in range(6):
        h = shared(h)
    whole = keras.Model(x, layers.Dense(2, name="out")(h))
    model = keras.Model(first, whole.output)
    values = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    expected = model(values)
    assert_same(clone(model)(values), expected)
    state = values
    for k in range(6):
        state = shared(state)
        assert_same(features(model, f"d:{k}")(values), state)
        front, rest = split(model, f"d:{k}")
        assert_same(rest(front(values)), expected)
        doubled = insert(model, f"d:{k}", layers.Activation("linear", name="linear"))
        assert_same(doubled(values), expected)
