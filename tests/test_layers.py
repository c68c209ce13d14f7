"""One table, two uses: the tie is checked after everything that could cut it."""

import contextlib
import importlib
import warnings

import models
import numpy as np
import pytest
import tensorflow as tf
from generation import IS_LEGACY
from models import assert_same
from tensorflow import keras

from tiedbert.errors import InputError
from tiedbert.layers import EmbeddingDense, GatherPositions
from tiedbert.surgery import split

layers = keras.layers

# Numbers by hand: a missing transpose would not even multiply.
TABLE = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 3.0]], np.float32)
HIDDEN = np.array([[10.0, 1.0], [0.0, -1.0]], np.float32)
LOGITS = np.array([[10.0, 1.0, 23.0], [0.0, -1.0, -3.0]], np.float32)

VOCABULARY, WIDTH = 5, 3
TOKENS = tf.constant([[1, 2, 4], [3, 1, 0]])


def embedding():
    """The table by hand, in a layer."""
    layer = layers.Embedding(3, 2, name="tokens")
    layer.build((None,))
    layer.set_weights([TABLE])
    return layer


def linear_head(layer, **options):
    return EmbeddingDense(layer, activation="linear", name="head", **options)


def tied_model(name="tied"):
    """ids -> hidden -> logits, every weight away from its start."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    table = layers.Embedding(VOCABULARY, WIDTH, mask_zero=True, name="tokens")
    hidden = layers.Dense(WIDTH, name="dense")(table(ids))
    return shaken(keras.Model(ids, linear_head(table)(hidden), name=name))


def tied_across_a_nested_model():
    """The table lies in a model that is a layer of the whole: a backbone."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    table = layers.Embedding(VOCABULARY, WIDTH, name="tokens")
    backbone = keras.Model(ids, layers.Dense(WIDTH)(table(ids)), name="backbone")
    ids = keras.Input((None,), dtype="int32", name="ids")
    return shaken(keras.Model(ids, linear_head(table)(backbone(ids))))


def tied_after_an_operator():
    """What lies between is a layer in one Keras and an operation in the other."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    table = layers.Embedding(VOCABULARY, WIDTH, name="tokens")
    return shaken(keras.Model(ids, linear_head(table)(table(ids) * 2.0 + 1.0)))


def tied_sequential():
    table = layers.Embedding(VOCABULARY, WIDTH, name="tokens")
    ids = keras.Input((None,), dtype="int32", name="ids")
    dense = layers.Dense(WIDTH, name="dense")
    return shaken(keras.Sequential([ids, table, dense, linear_head(table)]))


def tied_twice():
    """Two heads on one table."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    table = layers.Embedding(VOCABULARY, WIDTH, name="tokens")
    hidden = layers.Dense(WIDTH, name="dense")(table(ids))
    second = EmbeddingDense(table, use_bias=False, name="second")
    return shaken(keras.Model(ids, [linear_head(table)(hidden), second(hidden)]))


def shaken(model):
    draw = np.random.default_rng(0)
    model.set_weights([draw.normal(size=w.shape) for w in model.get_weights()])
    return model


any_tied_model = pytest.mark.parametrize(
    "build",
    [
        tied_model,
        tied_sequential,
        tied_twice,
        tied_after_an_operator,
        tied_across_a_nested_model,
    ],
)


def table_of(model):
    """The one table of `model`; a second one fails."""
    (table,) = [w for w in model.weights if tuple(w.shape) == (VOCABULARY, WIDTH)]
    return table


def assert_tied(model):
    """A change of the table that the embedding uses changes the logits."""
    table = table_of(model)
    before = tf.nest.flatten(model(TOKENS))
    table.assign(table + 1.0)
    for old, new in zip(before, tf.nest.flatten(model(TOKENS)), strict=True):
        assert np.all(old != new)
    table.assign(table - 1.0)


def test_logits_are_products_with_the_rows_of_the_table():
    head = linear_head(embedding(), use_bias=False)
    np.testing.assert_array_equal(head(HIDDEN), LOGITS)


def test_the_bias_is_added_for_each_token():
    head = linear_head(embedding())
    np.testing.assert_array_equal(head(HIDDEN), LOGITS)  # it starts at zero
    head.bias.assign([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(head(HIDDEN), LOGITS + [[1.0, 2.0, 3.0]])


def test_the_default_activation_is_softmax():
    probabilities = EmbeddingDense(embedding())(HIDDEN)
    np.testing.assert_allclose(probabilities, tf.nn.softmax(LOGITS), rtol=1e-6)


@pytest.mark.parametrize("leading", [(2,), (1, 2), (2, 1), (1, 2, 1, 1)])
def test_any_number_of_leading_axes(leading):
    head = linear_head(embedding(), use_bias=False)
    logits = head(HIDDEN.reshape([*leading, 2]))
    np.testing.assert_array_equal(logits, LOGITS.reshape([*leading, 3]))


@pytest.mark.parametrize("shape", [(2,), (None, 2), (7, None, 2)])
def test_shapes_are_known_symbolically(shape):
    logits = linear_head(embedding())(keras.Input(shape))
    assert tuple(logits.shape) == (None, *shape[:-1], 3)


def test_no_rows_give_no_logits():
    assert linear_head(embedding())(np.zeros([0, 4, 2], "float32")).shape == (0, 4, 3)


@pytest.mark.parametrize("use_bias", [True, False])
def test_there_is_one_table_and_perhaps_a_bias(use_bias):
    layer = layers.Embedding(VOCABULARY, WIDTH)
    head = linear_head(layer, use_bias=use_bias)
    head(layer(TOKENS))
    shapes = sorted(tuple(weight.shape) for weight in head.weights)
    assert shapes == ([(5,)] if use_bias else []) + [(5, 3)]
    assert any(weight is layer.weights[0] for weight in head.weights)


def test_a_head_built_first_builds_the_table_for_both():
    layer = layers.Embedding(VOCABULARY, WIDTH)
    head = linear_head(layer, use_bias=False)
    hidden = tf.ones([1, WIDTH])
    logits = head(hidden)
    table = layer.embeddings
    looked_up = layer(TOKENS)
    assert layer.embeddings is table
    assert_same(looked_up, tf.gather(tf.convert_to_tensor(table), TOKENS))
    assert_same(logits, tf.matmul(hidden, table, transpose_b=True))


def test_the_table_keeps_the_embeddings_own_initializer():
    layer = layers.Embedding(3, 2, embeddings_initializer="ones")
    np.testing.assert_array_equal(
        linear_head(layer)(HIDDEN), HIDDEN.sum(1, keepdims=True).repeat(3, 1)
    )


def test_the_gradient_is_the_sum_of_both_sides():
    """d sum(G * h E^T) / dE, where h = E[ids]: G^T h, and G E at the rows `ids`."""
    layer = embedding()
    head = linear_head(layer, use_bias=False)
    ids = np.array([0, 2, 2, 0])
    upstream = np.arange(12.0, dtype=np.float32).reshape(4, 3)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(upstream * head(layer(ids)))
    gradient = tf.convert_to_tensor(tape.gradient(loss, layer.weights[0]))
    from_head = upstream.T @ TABLE[ids]
    from_embedding = np.zeros_like(TABLE)
    np.add.at(from_embedding, ids, upstream @ TABLE)
    np.testing.assert_allclose(gradient, from_head + from_embedding, rtol=1e-6)
    assert from_head[1].any()
    assert not from_embedding[1].any()


@pytest.mark.cases(4)
@any_tied_model
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_two_uses_agree_after_training(build, optimizer):
    model = build()
    start = table_of(model).numpy()
    outputs = model(TOKENS)
    loss = tf.nest.map_structure(lambda _: "mse", outputs)
    model.compile(optimizer, loss, run_eagerly=True)
    model.fit(TOKENS, tf.nest.map_structure(tf.zeros_like, outputs), verbose=0)
    table = table_of(model)
    assert np.all(np.any(table != start, axis=1)), "every row learns, from the head"
    assert_tied(model)


def test_the_head_multiplies_by_the_table_as_it_is_now():
    model = tied_model()
    hidden = tf.ones([1, WIDTH])
    table_of(model).assign(np.full([VOCABULARY, WIDTH], 2.0))
    head = model.get_layer("head")
    assert_same(head(hidden) - head.bias, tf.fill([1, VOCABULARY], 2.0 * WIDTH))


@any_tied_model
def test_the_tie_survives_saving(build, tmp_path):
    model = build()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(loaded(TOKENS), model(TOKENS))
    assert_tied(loaded)


@any_tied_model
def test_the_tie_survives_from_config(build):
    model = build()
    rebuilt = type(model).from_config(model.get_config())
    rebuilt.set_weights(model.get_weights())
    assert_same(rebuilt(TOKENS), model(TOKENS))
    assert_tied(rebuilt)


@any_tied_model
def test_the_tie_survives_clone_model(build):
    model = build()
    clone = keras.models.clone_model(model)
    assert table_of(clone) is not table_of(model)
    clone.set_weights(model.get_weights())
    assert_same(clone(TOKENS), model(TOKENS))
    assert_tied(clone)


@any_tied_model
def test_the_tie_survives_weights_in_a_file(build, tmp_path):
    model = build()
    expected = model(TOKENS)
    model.save_weights(tmp_path / "model.weights.h5")
    other = build()
    other.set_weights([weight * 0.0 for weight in other.get_weights()])
    other.load_weights(tmp_path / "model.weights.h5")
    assert_same(other(TOKENS), expected)
    assert_tied(other)


def test_the_tie_survives_saving_twice(tmp_path):
    """A loaded head has a config that can be loaded again."""
    model = tied_model()
    for name in ["first", "second"]:
        model.save(tmp_path / f"{name}.keras")
        loaded = keras.models.load_model(tmp_path / f"{name}.keras")
        assert_same(loaded(TOKENS), model(TOKENS))
        model = loaded
    assert_tied(model)


def test_a_head_takes_the_table_of_its_own_name():
    """Two embeddings before two heads: each head finds its own again."""
    ids = keras.Input((None,), dtype="int32")
    tables = [layers.Embedding(VOCABULARY, WIDTH, name=name) for name in ("a", "b")]
    hidden = layers.Add()([table(ids) for table in tables])
    model = keras.Model(ids, [EmbeddingDense(table)(hidden) for table in tables])
    model = shaken(model)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert_same(clone(TOKENS), model(TOKENS))
    assert [tuple(w.shape) for w in clone.weights].count((VOCABULARY, WIDTH)) == 2


def test_two_tables_of_one_name_are_never_confused():
    """Possible only in two nested models; a guess could tie the wrong one."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    towers, tables = [], []
    for name in ["left", "right"]:
        inner = keras.Input((None,), dtype="int32")
        tables.append(layers.Embedding(VOCABULARY, WIDTH, name="tokens"))
        towers.append(keras.Model(inner, tables[-1](inner), name=name)(ids))
    model = keras.Model(ids, linear_head(tables[0])(layers.Add()(towers)))
    with pytest.raises(InputError, match="'tokens', and its input comes from 2 of"):
        keras.models.clone_model(model)


def test_a_cut_keeps_the_tie():
    """The head lies in `rest`, the table in `front`."""
    model = tied_model()
    front, rest = split(model, "dense")
    assert table_of(front) is table_of(rest) is table_of(model)
    front_before = front(TOKENS)[0]
    hidden = tf.ones([1, 2, WIDTH])
    given = [hidden, tf.ones([1, 2], tf.bool)]
    rest.compile("sgd", "mse")
    rest.fit(given, tf.zeros([1, 2, VOCABULARY]), verbose=0)
    assert np.all(front(TOKENS)[0] != front_before)
    assert_same(rest(front(TOKENS)), model(TOKENS))


def test_the_rest_of_a_cut_owns_its_table_when_loaded_alone(tmp_path):
    model = tied_model()
    front, rest = split(model, "dense")
    rest.save(tmp_path / "rest.keras")
    loaded = keras.models.load_model(tmp_path / "rest.keras")
    crossing = front(TOKENS)
    assert_same(loaded(crossing), rest(crossing))
    table_of(loaded).assign(table_of(loaded) + 1.0)
    assert np.all(loaded(crossing) != rest(crossing))


def test_a_head_from_its_config_alone_owns_its_table():
    head = EmbeddingDense.from_config(linear_head(embedding()).get_config())
    assert head(HIDDEN).shape == (2, 3)
    assert sorted(tuple(w.shape) for w in head.weights) == [(3,), (3, 2)]


def test_a_restored_head_has_the_config_it_came_from():
    config = linear_head(embedding(), use_bias=False).get_config()
    assert EmbeddingDense.from_config(config).get_config() == config
    assert config["use_bias"] is False
    assert config["activation"] == "linear"


def test_masks_pass_through_the_head():
    model = tied_model()
    mask = models.ShowMask()(model.get_layer("head").output)
    shown = keras.Model(model.input, mask)(TOKENS)
    np.testing.assert_array_equal(shown, TOKENS != 0)


def test_a_width_that_does_not_fit_is_refused_with_both_numbers():
    head = linear_head(layers.Embedding(VOCABULARY, WIDTH, name="tokens"))
    message = "the table of 'tokens', 3, received 4: add a Dense layer of 3 units"
    with pytest.raises(InputError, match=message):
        head(tf.ones([1, 4]))


@pytest.mark.parametrize("layer", [layers.Dense(3), None, TABLE])
def test_what_owns_no_table_is_refused(layer):
    with pytest.raises(InputError, match=f"received {type(layer).__name__}"):
        EmbeddingDense(layer)


class Around(layers.Layer):
    def __init__(self):
        super().__init__()
        self.token_embedding = layers.Embedding(3, 2)


def test_a_layer_around_an_embedding_is_refused_with_the_name_of_what_to_pass():
    with pytest.raises(InputError, match=r"received Around: pass its .token_embedding"):
        EmbeddingDense(Around())


needs_keras_3 = pytest.mark.skipif(IS_LEGACY, reason="Keras 2 has no such thing")


@needs_keras_3
@pytest.mark.parametrize("built", [True, False])
def test_a_reversible_embedding_and_its_reverse_agree_with_the_head(built):
    layer = layers.ReversibleEmbedding(3, 2, name="tokens")
    if built:
        layer.build((None,))
    head = linear_head(layer, use_bias=False)
    logits = head(HIDDEN)
    np.testing.assert_allclose(logits, layer(HIDDEN, reverse=True), rtol=1e-6)
    layer.set_weights([TABLE])
    np.testing.assert_array_equal(head(HIDDEN), LOGITS)
    assert head.weights == layer.weights


@needs_keras_3
def test_an_embedding_with_another_kernel_for_its_reverse_is_refused():
    layer = layers.ReversibleEmbedding(3, 2, tie_weights=False, name="tokens")
    with pytest.raises(InputError, match="'tokens' was made with tie_weights=False"):
        EmbeddingDense(layer)


@needs_keras_3
def test_an_adapter_on_the_table_counts_for_both_uses():
    layer = embedding()
    layer.enable_lora(1)
    head = linear_head(layer, use_bias=False)
    layer.lora_embeddings_b.assign([[1.0, 2.0]])
    layer.lora_embeddings_a.assign([[1.0], [0.0], [-1.0]])
    table = layer(tf.range(3))
    np.testing.assert_array_equal(table, TABLE + [[1, 2], [0, 0], [-1, -2]])
    np.testing.assert_array_equal(head(HIDDEN), HIDDEN @ np.array(table).T)


@needs_keras_3
def test_a_quantized_table_is_refused():
    layer = embedding()
    head = linear_head(layer)
    head(HIDDEN)
    layer.quantize("int8")
    with pytest.raises(InputError, match="table of 'tokens' is quantized to int8"):
        head(HIDDEN)


@pytest.mark.legacy_keras
def test_the_embedding_of_bert4keras():
    import tiedbert.bert  # noqa: F401 it prepares bert4keras

    theirs = importlib.import_module("bert4keras.layers")
    layer = theirs.Embedding(3, 2, name="tokens")
    head = linear_head(layer, use_bias=False)
    head(HIDDEN)
    layer.set_weights([TABLE])
    np.testing.assert_array_equal(head(HIDDEN), LOGITS)
    np.testing.assert_array_equal(head(HIDDEN), layer(HIDDEN, mode="dense"))


def resized(layer, rows):
    """Another table in a layer, as one does for new tokens."""
    layer.input_dim = rows
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the layer was built already
        layer.built = False
        getattr(layer, "_tracker", contextlib.nullcontext()).locked = False
        layer.build((None,))


def test_a_table_may_be_resized_before_its_head_is_built():
    layer = embedding()
    head = linear_head(layer)
    resized(layer, 4)
    assert head(HIDDEN).shape == (2, 4)
    assert tuple(head.bias.shape) == (4,)
    np.testing.assert_allclose(head(HIDDEN), HIDDEN @ np.array(layer(tf.range(4))).T)


def test_a_head_whose_vocabulary_no_longer_fits_says_both_numbers():
    layer = embedding()
    head = linear_head(layer)
    head(HIDDEN)
    resized(layer, 4)
    with pytest.raises(
        InputError, match="the 3 tokens that 'tokens' had, .* now has 4"
    ):
        head(HIDDEN)


def test_the_bias_starts_and_is_regularized_as_asked():
    head = linear_head(
        embedding(),
        bias_initializer=keras.initializers.Constant(2.0),
        bias_regularizer=keras.regularizers.L2(0.5),
    )
    np.testing.assert_array_equal(head(HIDDEN), LOGITS + 2.0)
    (loss,) = head.losses
    assert float(loss) == 0.5 * 3 * 2.0**2
    again = EmbeddingDense.from_config(head.get_config())
    assert again.get_config() == head.get_config()
    assert again(HIDDEN).shape == (2, 3)
    assert again.bias.numpy().tolist() == [2.0, 2.0, 2.0]
    assert len(again.losses) == 1


def test_the_regularizer_of_the_table_counts_once():
    layer = layers.Embedding(3, 2, embeddings_regularizer=keras.regularizers.L2(1.0))
    ids = keras.Input((None,), dtype="int32")
    model = keras.Model(ids, linear_head(layer)(layer(ids)))
    layer.set_weights([TABLE])
    model(TOKENS % 3)
    assert sum(float(loss) for loss in model.losses) == np.sum(TABLE**2)


def dtype_of_policy(policy):
    return policy.removeprefix("mixed_")


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_logits_are_in_float32_on_request(policy):
    """Whatever the hidden states are: no digit of the table is lost."""
    layer = layers.Embedding(3, 2, name="tokens", dtype=policy)
    head = linear_head(layer, dtype="float32")
    layer.build((None,))
    layer.set_weights([TABLE + 2.0**-12])  # more digits than half precision has
    hidden = tf.cast(HIDDEN, dtype_of_policy(policy))
    logits = head(hidden)
    assert logits.dtype == tf.float32
    np.testing.assert_allclose(logits, HIDDEN @ (TABLE + 2.0**-12).T, rtol=1e-6)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(head(hidden))
    gradient = tf.convert_to_tensor(tape.gradient(loss, layer.weights[0]))
    assert gradient.dtype == tf.float32


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_computes_in_half_and_keeps_the_table_whole(policy):
    layer = layers.Embedding(3, 2, name="tokens", dtype=policy)
    head = linear_head(layer, dtype=policy)
    layer.build((None,))
    layer.set_weights([TABLE])
    logits = head(HIDDEN)
    assert logits.dtype == policy.removeprefix("mixed_")
    np.testing.assert_array_equal(tf.cast(logits, tf.float32), LOGITS)
    assert {tf.as_dtype(weight.dtype) for weight in head.weights} == {tf.float32}
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.cast(head(layer(tf.constant([0, 2]))), tf.float32))
    gradient = tf.convert_to_tensor(tape.gradient(loss, layer.weights[0]))
    assert gradient.dtype == tf.float32
    # Each row: the two hidden states; rows 0 and 2 besides: the sum of the table.
    np.testing.assert_array_equal(gradient, [[6.0, 7.0], [3.0, 3.0], [6.0, 7.0]])


def operations(function, *shapes):
    specs = [tf.TensorSpec(shape) for shape in shapes]
    return tf.function(function).get_concrete_function(*specs).graph.get_operations()


def test_the_table_is_never_copied_transposed():
    head = linear_head(embedding())
    made = operations(head, [None, None, 2])
    assert not {op.type for op in made} & {"Transpose", "ConjugateTranspose"}
    (product,) = [op for op in made if "MatMul" in op.type]
    assert product.get_attr("transpose_b")


def test_the_gradient_of_the_table_is_one_product():
    """Not one for each row of the batch, to be added up afterwards."""
    layer = embedding()
    head = linear_head(layer)

    def gradient(hidden):
        with tf.GradientTape() as tape:
            logits = head(hidden)
        return tape.gradient(logits, layer.weights[0])

    made = operations(gradient, [None, None, 2])
    assert {op.type for op in made if "MatMul" in op.type} == {"MatMul"}


STATES = tf.reshape(tf.range(12.0), [2, 3, 2])


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
def test_gather_takes_positions_row_by_row(dtype):
    positions = tf.cast([[2, 0], [1, 1]], dtype)
    expected = [[[4.0, 5.0], [0.0, 1.0]], [[8.0, 9.0], [8.0, 9.0]]]
    assert GatherPositions()([STATES, positions]).numpy().tolist() == expected


def test_gather_adds_the_gradients_of_a_position_taken_twice():
    with tf.GradientTape() as tape:
        tape.watch(STATES)
        taken = GatherPositions()([STATES, tf.constant([[2, 0], [1, 1]])])
    gradient = tf.convert_to_tensor(tape.gradient(taken, STATES))
    assert gradient[:, :, 0].numpy().tolist() == [[1, 0, 1], [0, 2, 0]]


def test_gather_ends_the_mask():
    ids = keras.Input((None,), dtype="int32")
    positions = keras.Input((None,), dtype="int32")
    hidden = layers.Embedding(VOCABULARY, WIDTH, mask_zero=True)(ids)
    shown = models.ShowMask()(GatherPositions()([hidden, positions]))
    model = keras.Model([ids, positions], shown)
    assert np.all(model([TOKENS, tf.constant([[0], [2]])]) == -1)


def test_gather_knows_its_shape_symbolically():
    taken = GatherPositions()([keras.Input((7, 4)), keras.Input((3,), dtype="int32")])
    assert tuple(taken.shape) == (None, 3, 4)


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_gather_finds_far_positions_in_mixed_precision(dtype):
    """bfloat16 cannot tell 257 from 256."""
    states = tf.one_hot([[257]], 300)[0, 0][None, :, None]
    gather = GatherPositions(dtype="mixed_bfloat16")
    assert float(gather([states, tf.cast([[257]], dtype)])[0, 0, 0]) == 1.0
