"""A clone has weights of its own, the same values and every tie of its source."""

import collections
import functools
import types

import models
import numpy as np
import pytest
import tensorflow as tf
from generation import IS_LEGACY
from models import assert_same, batch, register
from tensorflow import keras
from variants import slow

from tiedbert.errors import InputError
from tiedbert.layers import EmbeddingDense
from tiedbert.surgery import clone, split

layers = keras.layers

VOCABULARY, WIDTH = 5, 3
TOKENS = tf.constant([[1, 2, 4], [3, 1, 0]])

needs_keras_3 = pytest.mark.skipif(IS_LEGACY, reason="Keras 2 has no such thing")
needs_keras_2 = pytest.mark.skipif(not IS_LEGACY, reason="Keras 3 has no such thing")


def shaken(model):
    """Every weight away from its start; the statistics of a norm stay positive."""
    draw = np.random.default_rng(0)
    model.set_weights([draw.uniform(0.1, 0.9, w.shape) for w in model.get_weights()])
    return model


def tokens_input():
    return keras.Input((None,), dtype="int32", name="ids")


def embedding(name="tokens"):
    return layers.Embedding(VOCABULARY, WIDTH, name=name)


def head(table, **options):
    return EmbeddingDense(table, activation="linear", name="head", **options)


def state_of(model):
    """Everything of a model that a clone of it must leave alone."""
    weights = [weight.copy() for weight in model.get_weights()]
    nodes = [
        [id(node) for node in model._nodes_by_depth[depth]]
        for depth in sorted(getattr(model, "_nodes_by_depth", {}))
    ]
    flags = [layer.trainable for layer in model.layers]
    calls = [len(layer._inbound_nodes) for layer in model.layers]
    return weights, nodes, flags, calls, str(model.get_config())


def assert_untouched(model, before):
    after = state_of(model)
    assert_same(after[0], before[0])
    assert after[1:] == before[1:]


def assert_cloned(source, inputs):
    """The whole contract; the clone, for what a test wants to know beyond it."""
    outputs, before = source(inputs), state_of(source)
    copy = clone(source)
    assert type(copy) is type(source)
    assert_same(copy(inputs), outputs)
    assert [layer.name for layer in copy.layers] == [
        layer.name for layer in source.layers
    ]
    assert copy.get_config() == source.get_config()
    for kind in ["weights", "trainable_weights", "non_trainable_weights"]:
        ours, theirs = getattr(copy, kind), getattr(source, kind)
        assert [w.name for w in ours] == [w.name for w in theirs]
        assert_same([w.numpy() for w in ours], [w.numpy() for w in theirs])
    assert not {id(w) for w in copy.weights} & {id(w) for w in source.weights}
    assert_untouched(source, before)
    for weight in copy.weights:
        weight.assign(weight + 1)
    assert_untouched(source, before)
    assert_same(source(inputs), outputs)
    for ours, theirs in zip(copy.weights, source.weights, strict=True):
        ours.assign(theirs)
    return copy


def assert_tied(model):
    """One table; every output moves with it."""
    table = [w for w in model.weights if tuple(w.shape) == (VOCABULARY, WIDTH)]
    assert len(table) == 1
    before = tf.nest.flatten(model(TOKENS))
    table[0].assign(table[0] + 1.0)
    for old, new in zip(before, tf.nest.flatten(model(TOKENS)), strict=True):
        assert np.all(old != new)
    table[0].assign(table[0] - 1.0)


# --- the contract, on models that each have something to lose


@pytest.mark.cases(6)
@pytest.mark.parametrize("build", models.MODELS)
def test_a_clone_is_the_same_model_with_weights_of_its_own(build):
    source = build()
    assert_cloned(source, batch(source))


@pytest.mark.cases(4)
@pytest.mark.parametrize("build", models.MODELS)
def test_a_clone_of_a_clone(build):
    source = build()
    copy = clone(source)
    before = source(batch(source))
    del source
    assert_same(clone(copy)(batch(copy)), before)


def test_training_a_clone_leaves_the_source_alone():
    source = shaken(models.residual())
    before = state_of(source)
    copy = clone(source)
    copy.compile("sgd", "mse")
    copy.fit(batch(source), tf.zeros([3, 2]), verbose=0)
    for ours, theirs in zip(copy.weights, source.weights, strict=True):
        assert np.any(ours.numpy() != theirs.numpy()), ours.name
    assert_untouched(source, before)


def test_a_clone_takes_the_same_step():
    source = shaken(models.recurrent())
    copy = clone(source)
    inputs = batch(source)
    for model in [source, copy]:
        model.compile("adam", ["mse", "mse", "mse"], run_eagerly=True)
        outputs = model(inputs)
        model.fit(inputs, [tf.zeros_like(y) for y in outputs], verbose=0)
    assert_same(copy.get_weights(), source.get_weights())


def test_a_clone_is_not_compiled():
    source = models.chain()
    source.compile("sgd", "mse")
    copy = clone(source)
    assert getattr(copy, "optimizer", None) is None
    assert source.optimizer is not None


def test_statistics_of_normalization_are_copied():
    source = models.residual()
    source(batch(source), training=True)
    copy = assert_cloned(source, batch(source))
    mean = source.get_layer("a_norm").moving_mean.numpy()
    assert np.any(mean != 0)
    assert_same(copy.get_layer("a_norm").moving_mean.numpy(), mean)


def test_what_is_trainable_stays_so():
    """A frozen layer, a frozen model, and a layer in it that is not."""
    x = keras.Input((3,))
    inner = models.chain_of(3, "inner")
    h = layers.Dense(3, name="frozen")(inner(x))
    source = keras.Model(x, layers.Dense(2, name="last")(h))
    inner.trainable = False
    inner.layers[-1].trainable = True
    source.get_layer("frozen").trainable = False
    copy = assert_cloned(source, tf.ones([2, 3]))
    assert copy.trainable
    assert not copy.get_layer("inner").trainable
    assert [layer.trainable for layer in copy.get_layer("inner").layers[1:]] == [0, 1]
    source.trainable = False
    assert clone(source).trainable_weights == []


@needs_keras_3
def test_a_single_frozen_variable_stays_frozen():
    source = models.chain()
    source.get_layer("first").kernel.trainable = False
    copy = assert_cloned(source, batch(source))
    assert [w.path for w in copy.trainable_weights] == [
        w.path for w in source.trainable_weights
    ]
    assert len(copy.trainable_weights) == 5


def test_dtype_policies_are_those_of_the_source_not_of_today():
    source = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, dtype="mixed_bfloat16"),
            layers.Dense(2, dtype="float32"),
        ]
    )
    before = keras.mixed_precision.global_policy() if IS_LEGACY else None
    set_policy = (
        keras.mixed_precision.set_global_policy
        if IS_LEGACY
        else keras.config.set_dtype_policy
    )
    set_policy("mixed_float16")
    try:
        copy = clone(source)
    finally:
        set_policy(before or "float32")
    for ours, theirs in zip(
        [copy, *copy.layers], [source, *source.layers], strict=True
    ):
        assert ours.compute_dtype == theirs.compute_dtype
    assert_same(copy(tf.ones([2, 4])), source(tf.ones([2, 4])))


def test_regularizers_are_kept():
    x = keras.Input((4,))
    h = layers.Dense(3, kernel_regularizer="l2", activity_regularizer="l1")(x)
    source = shaken(keras.Model(x, h))
    copy = assert_cloned(source, tf.ones([2, 4]))
    copy(tf.ones([2, 4]))
    source(tf.ones([2, 4]))
    assert len(source.losses) == len(copy.losses) == 2
    assert_same(copy.losses, source.losses)
    copy.layers[1].kernel.assign(copy.layers[1].kernel * 2.0)
    copy(tf.ones([2, 4]))
    assert np.sum(copy.losses) > np.sum(source.losses)


def test_random_layers_go_on_from_the_same_state():
    x = keras.Input((50,))
    source = keras.Model(x, layers.GaussianNoise(1.0)(layers.Dropout(0.5, seed=7)(x)))
    ones = tf.ones([2, 50])
    source(ones, training=True)  # the state is not the initial one
    copy = clone(source)
    if not IS_LEGACY:
        assert_same(copy(ones, training=True), source(ones, training=True))
        assert np.any(copy(ones, training=True) != copy(ones, training=True))
    assert np.any(copy(ones, training=True) != ones)


def test_the_state_of_a_recurrent_layer_is_copied():
    x = keras.Input(batch_shape=(2, 3, 4))
    source = keras.Model(x, layers.LSTM(3, stateful=True)(x))
    ones = tf.ones([2, 3, 4])
    source(ones)
    copy = clone(source)
    first = copy(ones)
    assert_same(source(ones), first)
    assert np.any(copy(ones) != first)


def test_numbers_that_a_layer_derives_from_its_state():
    normalization = layers.Normalization()
    normalization.adapt(np.array([[1.0, 2.0], [3.0, 8.0]], np.float32))
    x = keras.Input((2,))
    source = keras.Model(x, normalization(x))
    assert_same(clone(source)(tf.ones([1, 2])), source(tf.ones([1, 2])))


# --- structure


def test_the_kth_call_of_a_layer_is_the_kth_again():
    """Calls count as they were made; in topological order the long way is first."""
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    dense = layers.Dense(3, name="dense")
    short = dense(right)
    long = layers.Dense(3)(dense(layers.Dense(3)(left)))
    source = shaken(keras.Model([left, right], layers.Subtract()([long, short])))
    inputs = [tf.ones([2, 3]), tf.fill([2, 3], 2.0)]
    copy = assert_cloned(source, inputs)
    for k in range(2):
        hidden, *_ = split(copy, f"dense:{k}")[0](inputs)
        assert_same(hidden, split(source, f"dense:{k}")[0](inputs)[0])


def test_a_layer_that_several_calls_share_is_one():
    copy = clone(models.shared())
    assert len(copy.weights) == 4


def test_a_model_between_tensors_of_another():
    whole = shaken(models.chain())
    first, middle = (whole.get_layer(name).output for name in ("first", "middle"))
    source = keras.Model(first, [whole.output, whole.get_layer("last")(middle)])
    copy = clone(source)
    assert_same(copy(tf.ones([2, 3])), source(tf.ones([2, 3])))
    assert len(copy.weights) == 4


def test_a_layer_used_outside_and_inside_of_a_nested_model_is_one():
    x = keras.Input((3,))
    dense = layers.Dense(3, name="dense")
    inner = keras.Model(x, dense(layers.Dense(3)(x)), name="inner")
    y = keras.Input((3,))
    source = shaken(keras.Model(y, inner(dense(y))))
    copy = assert_cloned(source, tf.ones([2, 3]))
    assert copy.get_layer("dense") is copy.get_layer("inner").get_layer("dense")
    assert len(copy.weights) == 4


def test_sequential_models_at_any_depth():
    innermost = keras.Sequential([keras.Input((3,)), layers.Dense(3)], name="innermost")
    middle = keras.Sequential([innermost, layers.Dense(3)], name="middle")
    x = keras.Input((3,))
    outer = keras.Model(x, middle(middle(x)), name="outer")
    source = shaken(keras.Sequential([keras.Input((3,)), outer, layers.Dense(1)]))
    copy = assert_cloned(source, tf.ones([2, 3]))
    assert isinstance(copy.layers[0].get_layer("middle"), keras.Sequential)
    assert len(copy.weights) == 6


def test_a_sequential_that_its_first_batch_built():
    source = keras.Sequential([layers.Dense(3), layers.Dense(2)])
    source(tf.ones([2, 4]))
    assert_same(clone(source)(tf.ones([2, 4])), source(tf.ones([2, 4])))


@pytest.mark.parametrize(
    "wrapper",
    [
        layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
        layers.RNN([layers.GRUCell(3), layers.LSTMCell(2)], return_sequences=True),
        layers.TimeDistributed(layers.Dense(2)),
        layers.MultiHeadAttention(2, 2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_within_layers(wrapper):
    x = keras.Input((None, 4))
    arguments = [x, x] if isinstance(wrapper, layers.MultiHeadAttention) else [x]
    source = shaken(keras.Model(x, wrapper(*arguments)))
    assert_cloned(source, tf.random.normal([2, 3, 4]))


def test_a_model_within_a_wrapper_keeps_its_tie():
    ids = tokens_input()
    table = embedding()
    inner = keras.Model(ids, head(table)(layers.Dense(WIDTH)(table(ids))))
    many = keras.Input((None, 3), dtype="int32")
    source = shaken(keras.Model(many, layers.TimeDistributed(inner)(many)))
    copy = assert_cloned(source, TOKENS[None])
    assert len(copy.weights) == 4


def test_functions_of_lambda_layers_are_kept():
    scale = 3.0
    x = keras.Input((4,))
    scaled = layers.Lambda(lambda h, by: h * scale + by, arguments={"by": 1.0})(x)
    source = keras.Model(x, layers.Lambda(lambda h: tf.nn.relu(h)[:, :2])(scaled))
    inputs = tf.random.normal([2, 4])
    assert_same(clone(source)(inputs), source(inputs))


def test_a_function_within_a_wrapper():
    by = 3.0
    x = keras.Input((3, 4))
    scaled = layers.TimeDistributed(layers.Lambda(lambda h: tf.nn.relu(h) * by))(x)
    source = keras.Model(x, scaled)
    inputs = tf.random.normal([2, 3, 4])
    assert_same(clone(source)(inputs), source(inputs))


def test_a_class_that_nobody_registered():
    class Twice(layers.Layer):
        def __init__(self, layer, **kwargs):
            super().__init__(**kwargs)
            self.layer = layer

        def call(self, inputs):
            return self.layer(self.layer(inputs))

        def get_config(self):
            inner = keras.utils.serialize_keras_object(self.layer)
            return {**super().get_config(), "layer": inner}

        @classmethod
        def from_config(cls, config):
            inner = keras.utils.deserialize_keras_object(config.pop("layer"))
            return cls(inner, **config)

    x = keras.Input((3,))
    dense = layers.Dense(3, name="dense")
    source = keras.Model(x, Twice(Twice(dense))(dense(x)))
    copy = assert_cloned(source, tf.ones([2, 3]))
    assert len(copy.weights) == 2


# --- ties


def head_on_another_branch():
    """The table is nowhere upstream of the head."""
    ids = tokens_input()
    table = embedding()
    hidden = layers.Dense(WIDTH)(embedding("others")(ids))
    keep = layers.Dense(1, name="keep")(table(ids))
    return keras.Model(ids, [head(table)(hidden), keep])


def table_in_a_nested_model():
    ids = tokens_input()
    table = embedding()
    backbone = keras.Model(ids, layers.Dense(WIDTH)(table(ids)), name="backbone")
    ids = tokens_input()
    return keras.Model(ids, head(table)(backbone(ids)))


def table_in_one_model_head_in_another():
    """The two halves of a cut, each as a layer of one model."""
    ids = tokens_input()
    table = embedding()
    hidden = layers.Dense(WIDTH, name="dense")(table(ids))
    front, rest = split(keras.Model(ids, head(table)(hidden)), "dense")
    ids = tokens_input()
    return keras.Model(ids, rest(front(ids)))


def two_towers_with_tables_of_one_name():
    """A name alone cannot tell which of the two tables the head holds."""
    ids = tokens_input()
    tables = [embedding(), embedding()]
    towers = [
        keras.Model(inner, table(inner), name=name)(ids)
        for name, table in zip(["left", "right"], tables, strict=True)
        for inner in [tokens_input()]
    ]
    return keras.Model(ids, head(tables[0])(layers.Add()(towers)))


def two_heads():
    ids = tokens_input()
    table = embedding()
    hidden = layers.Dense(WIDTH)(table(ids))
    second = EmbeddingDense(table, name="second", use_bias=False)
    return keras.Model(ids, [head(table)(hidden), second(hidden)])


TABLES = {
    head_on_another_branch: 2,
    table_in_a_nested_model: 1,
    table_in_one_model_head_in_another: 1,
    two_towers_with_tables_of_one_name: 2,
    two_heads: 1,
}


@pytest.mark.parametrize("build", TABLES)
def test_a_tied_head_stays_tied(build):
    source = shaken(build())
    copy = assert_cloned(source, TOKENS)
    shapes = [tuple(w.shape) for w in copy.weights]
    assert shapes.count((VOCABULARY, WIDTH)) == TABLES[build]
    if TABLES[build] == 1:
        assert_tied(copy)


@pytest.mark.cases(2)
@pytest.mark.parametrize("build", TABLES)
def test_source_and_clone_train_alike(build):
    """A tie that is lost, or tied to the wrong table, would give another step."""
    source = shaken(build())
    copy = clone(source)
    for model in [source, copy]:
        outputs = model(TOKENS)
        losses = tf.nest.map_structure(lambda _: "mse", outputs)
        model.compile("sgd", losses, run_eagerly=True)
        model.fit(TOKENS, tf.nest.map_structure(tf.zeros_like, outputs), verbose=0)
    assert_same(copy.get_weights(), source.get_weights())


def test_a_head_alone_owns_its_table():
    hidden = keras.Input((WIDTH,))
    source = shaken(keras.Model(hidden, head(embedding())(hidden)))
    copy = assert_cloned(source, tf.ones([2, WIDTH]))
    assert len(copy.weights) == 2


@register
class Positions(layers.Layer):
    """Embeds tokens and positions, and its config knows no layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.tokens = embedding()
        self.positions = layers.Embedding(4, WIDTH)

    def call(self, ids):
        return self.tokens(ids) + self.positions(tf.range(tf.shape(ids)[1]))


@pytest.mark.parametrize("head_first", [True, False])
def test_a_table_that_lies_in_another_layer(head_first):
    ids = tokens_input()
    positions = Positions()
    hidden = layers.Dense(WIDTH)(positions(ids))
    outputs = [head(positions.tokens)(hidden), positions(ids)]
    outputs = outputs if head_first else outputs[::-1]
    source = shaken(keras.Model(ids, outputs))
    copy = assert_cloned(source, TOKENS)
    (made,) = [layer for layer in copy.layers if isinstance(layer, Positions)]
    assert made.tokens is copy.get_layer("head").embedding_layer
    assert_tied(copy)


@register
class Holder(layers.Layer):
    """A layer that is given others: by its constructor, in a list, or afterwards."""

    def __init__(self, table, several=(), **kwargs):
        super().__init__(**kwargs)
        self.table = table
        self.several = list(several)
        self.later = None

    def call(self, hidden):
        for layer in self.several:
            hidden = layer(hidden)
        if self.later is not None:
            hidden = self.later(hidden)
        table = tf.convert_to_tensor(self.table.embeddings)
        return tf.einsum("btw,vw->btv", hidden, table)

    def get_config(self):
        # The layers themselves: from_config would share them with the source.
        held = {"table": self.table, "several": list(self.several)}
        return {**super().get_config(), **held}


def test_layers_held_in_any_way_are_the_layers_of_the_graph():
    ids = tokens_input()
    table = embedding()
    first, second = (layers.Dense(WIDTH, name=name) for name in ("first", "second"))
    later = layers.Dense(WIDTH, name="later")
    holder = Holder(table, [first, second], name="holder")
    holder.later = later
    hidden = later(second(first(table(ids))))
    source = shaken(keras.Model(ids, holder(hidden)))
    copy = assert_cloned(source, TOKENS)
    made = copy.get_layer("holder")
    assert made.table is copy.get_layer("tokens")
    assert list(made.several) == [copy.get_layer("first"), copy.get_layer("second")]
    assert made.later is copy.get_layer("later")
    assert len(copy.weights) == 7
    assert_tied(copy)


@register
class Backbone(keras.Model):
    """A functional model whose constructor makes the graph, and the tie."""

    def __init__(self, width, **kwargs):
        ids = tokens_input()
        table = layers.Embedding(VOCABULARY, width, name="tokens")
        hidden = layers.Dense(width, name="dense")(table(ids))
        tied = EmbeddingDense(table, activation="linear", name="inner_head")
        super().__init__(ids, [hidden, tied(hidden)], **kwargs)
        self.width = width

    def get_config(self):
        return {"width": self.width, "name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def test_a_model_with_a_config_of_its_own():
    source = shaken(Backbone(WIDTH, name="backbone"))
    source.get_layer("dense").trainable = False
    copy = assert_cloned(source, TOKENS)
    assert copy.width == WIDTH
    assert len(copy.weights) == 4
    assert_tied(copy)


def test_a_head_tied_into_a_model_with_a_config_of_its_own():
    backbone = Backbone(WIDTH, name="backbone")
    ids = tokens_input()
    hidden, _ = backbone(ids)
    tied = head(backbone.get_layer("tokens"))(hidden)
    source = shaken(keras.Model(ids, [tied, backbone.get_layer("dense")(hidden)]))
    copy = assert_cloned(source, TOKENS)
    inner = copy.get_layer("backbone")
    assert copy.get_layer("head").embedding_layer is inner.get_layer("tokens")
    assert copy.get_layer("dense") is inner.get_layer("dense")
    assert_tied(copy)


def test_a_layer_that_a_model_holds_by_name_is_held_again():
    source = models.chain()
    source.favourite = source.get_layer("middle")
    copy = clone(source)
    assert copy.favourite is copy.get_layer("middle")


# --- losses and metrics in the graph


@needs_keras_2
def test_symbolic_losses_and_metrics_survive():
    source = shaken(models.chain())
    hidden = source.get_layer("middle").output
    source.add_loss(tf.reduce_mean(hidden**2))
    source.add_metric(tf.reduce_max(hidden), name="largest", aggregation="mean")
    source.add_metric(tf.reduce_min(hidden), name="least", aggregation="mean")
    copy = clone(clone(source))
    for model in [source, copy]:
        model.compile("sgd", "mse")
    inputs, targets = batch(source), tf.zeros([3, 2])
    ours, theirs = (
        model.evaluate(inputs, targets, verbose=0) for model in (copy, source)
    )
    assert ours == theirs
    assert copy.metrics_names == source.metrics_names == ["loss", "largest", "least"]
    for model in [source, copy]:
        model.fit(inputs, targets, verbose=0)
    assert_same(copy.get_weights(), source.get_weights())


@needs_keras_2
def test_a_symbolic_loss_of_a_sequential_is_refused():
    source = models.sequential()
    source.add_loss(tf.reduce_mean(source.outputs[0]))
    with pytest.raises(InputError, match="symbolic add_loss .* Sequential"):
        clone(source)


@needs_keras_2
def test_a_loss_that_looks_at_the_sources_variables_is_refused():
    source = models.chain()
    kernel = source.get_layer("first").kernel
    source.get_layer("middle").add_loss(lambda: tf.reduce_sum(kernel))
    with pytest.raises(InputError, match="a loss that was added to 'middle'"):
        clone(source)


# --- what cannot be kept is refused


def test_a_model_without_a_graph_is_refused():
    with pytest.raises(InputError, match="expected a functional model"):
        clone(keras.Sequential([layers.Dense(2)]))


@register
class NoConfig(layers.Layer):
    def __init__(self, units, table=None, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(units)

    def call(self, inputs):
        return self.dense(inputs)

    def get_config(self):
        return super().get_config()  # `units` is missing


def test_a_config_that_does_not_make_the_layer_is_refused():
    x = keras.Input((3,))
    source = keras.Model(x, NoConfig(2, name="broken")(x))
    with pytest.raises(InputError, match=r"'broken' \(NoConfig\) again .* get_config"):
        clone(source)


@register
class Loose(layers.Layer):
    """Multiplies by the variable of another layer, which it only borrows."""

    def build(self, input_shape):
        self.kernel = self.add_weight(name="kernel", shape=(WIDTH, WIDTH))
        self.built = True

    def call(self, inputs):
        return tf.matmul(inputs, tf.convert_to_tensor(self.kernel))


def test_a_variable_in_two_layers_is_never_untied_in_silence():
    x = keras.Input((WIDTH,))
    left, right = Loose(name="left"), Loose(name="right")
    left.build((None, WIDTH))
    right.kernel = left.kernel
    right.built = True
    source = keras.Model(x, right(left(x)))
    with pytest.raises(InputError, match="tie .* 'left' and 'right'"):
        clone(source)


@register
class HandsOver(Loose):
    """Its config hands its variable over: a copy would share it."""

    def __init__(self, kernel=None, **kwargs):
        super().__init__(**kwargs)
        if kernel is not None:
            self.kernel = kernel
            self.built = True

    def get_config(self):
        return {**super().get_config(), "kernel": self.kernel}


def test_a_copy_that_would_share_a_variable_is_refused():
    x = keras.Input((WIDTH,))
    source = keras.Model(x, HandsOver(name="generous")(x))
    with pytest.raises(InputError, match="'generous' .*not one of its own"):
        clone(source)


def test_a_function_that_reaches_a_layer_is_refused():
    ids = tokens_input()
    table = embedding()
    hidden = table(ids)
    logits = layers.Lambda(
        lambda h: tf.einsum("btw,vw->btv", h, tf.convert_to_tensor(table.embeddings)),
        output_shape=(None, VOCABULARY),
        name="logits",
    )(hidden)
    with pytest.raises(InputError, match="'logits' uses from outside: tokens;"):
        clone(keras.Model(ids, logits))


def head_over(h, table):
    return tf.einsum("btw,vw->btv", h, tf.convert_to_tensor(table.embeddings))


GLOBAL_TABLES = {}


def head_over_a_global(h):
    return head_over(h, GLOBAL_TABLES["table"])


def partial_head(table):
    return functools.partial(head_over, table=table)


def calls_a_closure(table):
    def inner(h):
        return head_over(h, table)

    return lambda h: inner(h)


def keyword_only_default(table):
    def project(h, *, table=table):
        return head_over(h, table)

    return project


def inner_default(table):
    def project(h, others=({"table": [table]},)):
        return head_over(h, others[0]["table"][0])

    return lambda h: project(h)


def bound_method(table):
    def project(self, h):
        return head_over(h, self)

    return functools.partial(types.MethodType(project, table))


def decorated(table):
    inner = calls_a_closure(table)
    return functools.wraps(inner)(lambda *args: inner(*args))


def traced(table):
    return tf.function(calls_a_closure(table))


def global_of_a_function_made_inside(table):
    GLOBAL_TABLES["table"] = table
    return lambda h: [head_over_a_global(x) for x in [h]][0]


def attribute_of_an_object(table):
    holder = types.SimpleNamespace(table=table)
    return lambda h: head_over(h, holder.table)


def read_in_training(table):
    return lambda h, training=None: head_over(h, table) if training else h


@pytest.mark.parametrize(
    "function_over",
    [
        attribute_of_an_object,
        read_in_training,
        partial_head,
        calls_a_closure,
        keyword_only_default,
        inner_default,
        bound_method,
        decorated,
        traced,
        global_of_a_function_made_inside,
    ],
)
def test_a_layer_is_found_wherever_a_function_holds_it(function_over, monkeypatch):
    monkeypatch.setitem(GLOBAL_TABLES, "table", None)
    ids = tokens_input()
    table = embedding()
    hidden = table(ids)
    shape = {"output_shape": (None, VOCABULARY)}
    logits = layers.Lambda(function_over(table), name="logits", **shape)(hidden)
    with pytest.raises(InputError, match="'logits' uses from outside: tokens;"):
        clone(keras.Model(ids, logits))


def test_a_layer_is_found_in_a_function_within_a_wrapper():
    ids = keras.Input((4, 3), dtype="int32")
    table = embedding()
    logits = layers.Lambda(calls_a_closure(table), output_shape=(3, VOCABULARY))
    wrapped = layers.TimeDistributed(logits, name="many")(table(ids))
    with pytest.raises(InputError, match="'many' uses from outside: tokens;"):
        clone(keras.Model(ids, wrapped))


def test_a_layer_beside_the_model_is_found_in_a_function():
    x = keras.Input((3,))
    dense = layers.Dense(3, name="beside")
    dense.build((None, 3))
    outer = layers.Lambda(lambda h: dense(h), output_shape=(3,), name="outer")
    with pytest.raises(InputError, match="'outer' uses from outside: .*kernel"):
        clone(keras.Model(x, outer(x)))


@register
class Counter(layers.Layer):
    """Adds a weight of the given dtype, which is no float."""

    def __init__(self, weight_dtype="int32", **kwargs):
        super().__init__(**kwargs)
        self.weight_dtype = weight_dtype

    def build(self, input_shape):
        self.count = self.add_weight(
            name="count",
            shape=(),
            dtype=self.weight_dtype,
            initializer="ones",
            trainable=False,
        )
        self.built = True

    def call(self, inputs):
        return inputs + tf.cast(tf.convert_to_tensor(self.count), inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "weight_dtype": self.weight_dtype}


@pytest.mark.parametrize("dtype", ["int32", "bool"])
def test_a_weight_that_is_no_float_is_found_in_a_function(dtype):
    x = keras.Input((3,))
    counter = Counter(dtype, name="counter")
    hidden = counter(x)
    read = layers.Lambda(lambda h: counter(h), output_shape=(3,), name="read")
    with pytest.raises(InputError, match="'read' uses from outside: counter;"):
        clone(keras.Model(x, read(hidden)))


@pytest.mark.parametrize("seed", [None, 1])
def test_a_dropout_in_a_function_is_copied(seed):
    x = keras.Input((3,))
    beside = layers.Dropout(0.5, seed=seed)
    function = layers.Lambda(
        lambda h, training=None: beside(h, training=training), output_shape=(3,)
    )
    hidden = layers.Dropout(0.5)(x)
    assert_cloned(keras.Model(x, function(hidden)), tf.ones([2, 3]))


@needs_keras_3
def test_a_dropout_of_the_model_in_a_function_is_refused():
    x = keras.Input((3,))
    dropout = layers.Dropout(0.5, name="dropout")
    function = layers.Lambda(
        lambda h, training=None: dropout(h, training=training), output_shape=(3,)
    )
    with pytest.raises(InputError, match="uses from outside: dropout;"):
        clone(keras.Model(x, function(dropout(x))))


def test_a_layer_that_is_the_function_is_copied():
    x = keras.Input((3,))
    dense = layers.Dense(3)
    dense.build((None, 3))
    source = keras.Model(x, layers.Lambda(dense, output_shape=(3,))(x))
    ones = tf.ones([2, 3])
    expected = source(ones)
    copy = clone(source)
    assert_same(copy(ones), expected)
    copy.layers[1].function.bias.assign([1.0, 2.0, 3.0])
    assert_same(source(ones), expected)
    assert np.all(copy(ones) != expected)


def test_random_functions_are_copied():
    x = keras.Input((3,))
    draw = tf.random.normal if IS_LEGACY else keras.random.normal
    noise = layers.Lambda(lambda h: h + draw(tf.shape(h)), output_shape=(3,))
    assert clone(keras.Model(x, noise(x)))(tf.ones([2, 3])).shape == (2, 3)


@needs_keras_3
def test_a_function_that_cannot_be_traced_is_refused():
    x = keras.Input((3,))
    function = layers.Lambda(lambda h: h.numpy(), output_shape=(3,), name="eager")
    with pytest.raises(InputError, match="'eager' uses weights from outside: it fails"):
        clone(keras.Model(x, function(x)))


def recursive(h, times=2):
    return recursive(h + 1, times - 1) if times else h


def test_a_function_that_calls_itself_is_copied():
    x = keras.Input((3,))
    source = keras.Model(x, layers.Lambda(recursive, output_shape=(3,))(x))
    assert_cloned(source, tf.ones([2, 3]))


def test_a_call_on_a_variable_itself_is_refused():
    ids = tokens_input()
    table = embedding()
    hidden = table(ids)
    if IS_LEGACY:
        logits = tf.matmul(hidden, table.embeddings, transpose_b=True)
    else:
        logits = keras.ops.einsum("btw,vw->btv", hidden, table.embeddings)
    with pytest.raises(InputError, match="called on the variable '.*embeddings"):
        clone(keras.Model(ids, logits))


def test_weights_beside_the_graph_are_refused():
    source = models.chain()
    source.extra = layers.Dense(2, name="extra")
    source.extra.build((None, 2))
    with pytest.raises(InputError, match="does not reach layer 'extra'"):
        clone(source)


def lookup_of_words(**options):
    words = keras.Input((1,), dtype="string")
    layer = layers.StringLookup(**options)
    layer.adapt(["to", "be", "to", "or not", "两\n行", "m"])
    values = [["to"], ["be"], ["m"], ["两\n行"], ["new"]]
    return keras.Model(words, layer(words)), tf.constant(values)


def lookup_of_numbers(**options):
    numbers = keras.Input((1,), dtype="int64")
    layer = layers.IntegerLookup(**options)
    layer.adapt(np.array([[3], [4], [4], [9]]))
    return keras.Model(numbers, layer(numbers)), tf.constant([[3], [4], [7]], "int64")


def vectorization(**options):
    text = keras.Input((), dtype="string")
    layer = layers.TextVectorization(**options)
    layer.adapt(["to be", "or not to be to"])
    return keras.Model(text, layer(text)), tf.constant(["to be new", "or"])


def bins(**options):
    x = keras.Input((1,))
    layer = layers.Discretization(**options)
    if "num_bins" in options:
        layer.adapt(np.array([[1.0], [2.0], [3.0], [8.0]]))
    values = np.array([[0.5], [1.7], [2.5], [5.0], [9.0]], "float32")
    return keras.Model(x, layer(x)), tf.constant(values)


PADDED = {"max_tokens": 9, "pad_to_max_tokens": True}
LEARNED = [
    (lookup_of_words, {"num_oov_indices": 2, "mask_token": "m"}),
    slow(lookup_of_words, {"output_mode": "one_hot"}),
    slow(lookup_of_numbers, {}),
    (lookup_of_numbers, {"output_mode": "tf_idf"}),
    (vectorization, {"output_sequence_length": 4}),
    slow(vectorization, {"output_mode": "multi_hot"}),
    (vectorization, {"output_mode": "tf_idf"}),
    (vectorization, {"output_mode": "tf_idf", **PADDED}),
    slow(vectorization, {"output_mode": "count", **PADDED}),
    (bins, {"num_bins": 3}),
    (bins, {"num_bins": 4, "output_mode": "one_hot"}),
    slow(bins, {"bin_boundaries": [1.0, 2.0]}),
]


# TensorFlow's, where Discretization of Keras 2 counts.
counts_in_numpy = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn.t accept a copy keyword:DeprecationWarning"
)


@counts_in_numpy
@pytest.mark.parametrize(("build", "options"), LEARNED)
def test_what_a_layer_has_learned_by_adapt_is_copied(build, options):
    model, values = build(**options)
    copy = clone(clone(model))
    np.testing.assert_array_equal(copy(values), model(values))


@counts_in_numpy
@pytest.mark.parametrize("build", [bins, vectorization])
def test_what_was_learned_before_a_file_is_copied(build, tmp_path):
    options = {"num_bins": 3} if build is bins else {"output_sequence_length": 4}
    model, values = build(**options)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(clone(loaded)(values), loaded(values))


Pair = collections.namedtuple("Pair", "first second")


@register
class HoldsPair(layers.Layer):
    """Layers in a named tuple, of which the graph may use one as well."""

    def __init__(self, first=None, **kwargs):
        super().__init__(**kwargs)
        self.pair = Pair(first or layers.Dense(3), layers.Dense(3))

    def call(self, inputs):
        return self.pair.first(inputs) + self.pair.second(inputs)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 3)

    def get_config(self):
        return layers.Layer.get_config(layers.Layer(name=self.name))


def test_layers_in_a_named_tuple_are_kept():
    x = keras.Input((3,))
    dense = layers.Dense(3, name="shared")
    model = shaken(keras.Model(x, HoldsPair(first=dense, name="pair")(dense(x))))
    copy = clone(model)
    assert copy.get_layer("pair").pair.first is copy.get_layer("shared")
    assert len(copy.weights) == len(model.weights) == 4
    values = np.ones([2, 3], "float32")
    np.testing.assert_array_equal(copy(values), model(values))


@pytest.mark.slow
@needs_keras_3
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_a_layer_quantized_inside_another_is_told():
    x = keras.Input((5, 4))
    attention = layers.MultiHeadAttention(2, 2, name="attention")
    model = keras.Model(x, attention(x, x))
    model.quantize("int8")
    with pytest.raises(InputError, match=r"'query'.* it is quantized \(int8\)"):
        clone(model)


@register
class TwoTables(keras.Model):
    """Its config makes the layers that it was given once more."""

    def __init__(self, table, **kwargs):
        ids = tokens_input()
        super().__init__(ids, layers.Dense(2)(table(ids)), **kwargs)
        self.table = table

    def get_config(self):
        table = keras.utils.serialize_keras_object(self.table)
        return {"table": table, "name": self.name}

    @classmethod
    def from_config(cls, config):
        table = keras.utils.deserialize_keras_object(config.pop("table"))
        return cls(table, **config)


def test_two_models_whose_configs_make_a_shared_layer_twice_are_refused():
    table = embedding()
    ids = tokens_input()
    outputs = [TwoTables(table, name=name)(ids) for name in ("left", "right")]
    with pytest.raises(InputError, match="tie of .*'tokens' .*model 'right'"):
        clone(keras.Model(ids, outputs))


# --- bert4keras


@pytest.mark.legacy_keras
@pytest.mark.parametrize("kind", ["bert", "albert", "roformer", "t5_encoder"])
def test_a_bert4keras_model_with_its_shared_embedding(tmp_path, kind):
    from bert_samples import BATCH, build_theirs, scramble, write_config

    import tiedbert.bert  # noqa: F401 it prepares bert4keras

    options = {} if kind == "t5_encoder" else {"with_mlm": True, "with_pool": True}
    source = build_theirs(write_config(tmp_path), model=kind, **options)
    source = scramble(source)
    copy = assert_cloned(source, BATCH[: len(source.inputs)])
    assert len(copy.weights) == len(source.weights)


@pytest.mark.legacy_keras
def test_a_bert_with_the_tied_head(tmp_path):
    from bert_samples import BATCH, CONFIG, scramble, write_config

    from tiedbert.bert import build_bert, masked_lm

    source = scramble(masked_lm(build_bert(write_config(tmp_path))))
    copy = assert_cloned(source, [*BATCH, np.array([[1, 3], [5, 0]], np.int32)])
    shapes = [tuple(weight.shape) for weight in copy.weights]
    assert shapes.count((CONFIG["vocab_size"], CONFIG["hidden_size"])) == 1


# --- what users asked of keras.models.clone_model


def test_keras_issue_9648():
    """It fails or misbehaves with submodels that are nested or have several outputs."""
    x = keras.Input((3,))
    both = keras.Model(x, [layers.Dense(2)(x), layers.Dense(3)(x)], name="both")
    y = keras.Input((3,))
    small, wide = both(both(y)[1])
    source = shaken(keras.Model(y, {"small": small, "wide": wide}))
    copy = assert_cloned(source, tf.ones([2, 3]))
    assert len(copy.weights) == 4


@pytest.mark.parametrize("issue", [16668, 17569])
def test_keras_issues_16668_and_17569(issue):
    """Both ask for the weights too: clone_model draws new ones."""
    source = shaken(models.chain())
    copy = clone(source)
    assert_same(copy.get_weights(), source.get_weights())
    assert_same(copy(batch(source)), source(batch(source)))


def test_keras_issue_20172():
    """It asks how to notice that cloning untied shared embeddings: they stay tied."""
    source = shaken(table_in_a_nested_model())
    before = state_of(source)
    copy = clone(source)
    copy.compile("sgd", "mse")
    copy.fit(TOKENS, tf.zeros([2, 3, VOCABULARY]), verbose=0)
    assert_tied(copy)
    assert_untouched(source, before)
