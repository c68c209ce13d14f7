"""The head with its loss inside, as `fit` sees it; the oracle is the head without."""

import numpy as np
import pytest
import tensorflow as tf
from models import assert_same
from tensorflow import keras
from variants import others_slow, slow

from tiedbert.errors import InputError
from tiedbert.layers import EmbeddingDense, TiedCrossEntropy, check_tied
from tiedbert.surgery import split

layers = keras.layers

VOCABULARY, WIDTH = 7, 3
DRAW = np.random.default_rng(0)
TOKENS = DRAW.integers(1, VOCABULARY, (4, 5)).astype("int32")
LABELS = DRAW.integers(0, VOCABULARY, (4, 5)).astype("int32")
WEIGHTS = DRAW.random((4, 5)).astype("float32")
INPUTS = [TOKENS, LABELS, WEIGHTS]


def trunk(policy="float32", mask_zero=False):
    """Token ids, the embedding, and the hidden states."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    table = layers.Embedding(
        VOCABULARY, WIDTH, mask_zero=mask_zero, name="tokens", dtype=policy
    )
    dense = layers.Dense(WIDTH, name="dense", dtype=policy)
    return ids, table, dense(table(ids))


def with_loss(policy="float32", mask_zero=False, **options):
    """(the model to train, the model that gives logits), one set of weights."""
    ids, table, hidden = trunk(policy, mask_zero)
    labels = keras.Input((None,), dtype="int32", name="labels")
    weights = keras.Input((None,), name="weights")
    head = TiedCrossEntropy(table, name="head", dtype=policy, **options)
    model = keras.Model([ids, labels, weights], head([hidden, labels, weights]))
    draw = np.random.default_rng(1)
    model.set_weights([draw.normal(size=w.shape) for w in model.get_weights()])
    return model, keras.Model(ids, head(hidden))


def without_loss():
    """The same with the loss outside, on all logits."""
    ids, table, hidden = trunk()
    head = EmbeddingDense(table, activation="linear", name="head")
    model = keras.Model(ids, head(hidden))
    model.compile(
        keras.optimizers.SGD(0.5),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def cross_entropies(logits, labels=LABELS):
    logits = tf.cast(logits, tf.float32)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits).numpy()


MODES = [{}, {"jit_compile": True}, {"run_eagerly": True}]
modes = pytest.mark.parametrize("options", MODES, ids=str)
eagerly = pytest.mark.parametrize("options", others_slow(MODES[2:], MODES), ids=str)


@pytest.mark.cases(2)
@modes
def test_fit_does_what_a_loss_outside_does(options):
    inside, _ = with_loss(chunk_size=2)
    outside = without_loss()
    inside.set_weights(outside.get_weights())
    inside.compile(keras.optimizers.SGD(0.5), **options)
    # Keras divides by the number of positions, not by their weight.
    normalized = WEIGHTS / WEIGHTS.mean()
    for _ in range(3):
        inside.fit(INPUTS, batch_size=4, shuffle=False, verbose=0)
        outside.fit(TOKENS, LABELS, batch_size=4, sample_weight=normalized, verbose=0)
    for ours, theirs in zip(inside.get_weights(), outside.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@eagerly
@pytest.mark.parametrize("batch_size", [2, slow(4)])
def test_metrics_are_means_over_all_weights(options, batch_size):
    model, logits = with_loss()
    model.compile("sgd", **options)
    told = model.evaluate(INPUTS, batch_size=batch_size, verbose=0, return_dict=True)
    each = cross_entropies(logits(TOKENS))
    right = np.argmax(logits(TOKENS), -1) == LABELS
    total = WEIGHTS.sum()
    assert set(told) == {"loss", "accuracy", "perplexity"}
    accuracy = (WEIGHTS * right).sum() / total
    np.testing.assert_allclose(told["accuracy"], accuracy, rtol=1e-5)
    perplexity = np.exp((WEIGHTS * each).sum() / total)
    np.testing.assert_allclose(told["perplexity"], perplexity, rtol=1e-5)


@pytest.mark.both_kerases
def test_metrics_start_anew_each_epoch():
    model, _ = with_loss()
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    history = model.fit(INPUTS, epochs=2, shuffle=False, verbose=0).history
    assert history["perplexity"][0] == history["perplexity"][1]


def test_the_output_is_the_cross_entropy_of_each_position():
    model, logits = with_loss()
    each = model.predict(INPUTS, verbose=0)
    np.testing.assert_allclose(each, cross_entropies(logits(TOKENS)), rtol=1e-5)


def test_hidden_alone_gives_what_the_plain_head_gives():
    model, logits = with_loss()
    plain = without_loss()
    plain.set_weights(model.get_weights())
    assert_same(logits(TOKENS), plain(TOKENS))
    assert model.count_params() == plain.count_params()


def test_weights_may_be_left_out():
    ids, table, hidden = trunk()
    labels = keras.Input((None,), dtype="int32", name="labels")
    model = keras.Model([ids, labels], TiedCrossEntropy(table)([hidden, labels]))
    model.compile("sgd", run_eagerly=True)
    each = model.predict([TOKENS, LABELS], verbose=0)
    told = model.evaluate([TOKENS, LABELS], verbose=0, return_dict=True)
    np.testing.assert_allclose(told["loss"], each.mean(), rtol=1e-5)


def test_masked_and_ignored_positions_do_not_count():
    model, logits = with_loss(mask_zero=True, ignore_index=-1)
    tokens, labels = TOKENS.copy(), LABELS.copy()
    tokens[:, 3:] = 0
    labels[0] = -1
    model.compile("sgd", run_eagerly=True)
    told = model.evaluate([tokens, labels, WEIGHTS], verbose=0, return_dict=True)
    each = cross_entropies(logits(tokens), np.maximum(labels, 0))
    counted = WEIGHTS * (tokens != 0) * (labels != -1)
    expected = (counted * each).sum() / counted.sum()
    np.testing.assert_allclose(told["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(told["perplexity"], np.exp(expected), rtol=1e-5)


@pytest.mark.parametrize("options", [{"label_smoothing": 0.2}, {"z_loss": 0.1}])
def test_what_is_added_to_the_loss_is_not_in_the_perplexity(options):
    model, logits = with_loss(**options)
    model.compile("sgd", run_eagerly=True)
    told = model.evaluate(INPUTS, verbose=0, return_dict=True)
    each = cross_entropies(logits(TOKENS))
    mean = (WEIGHTS * each).sum() / WEIGHTS.sum()
    np.testing.assert_allclose(told["perplexity"], np.exp(mean), rtol=1e-5)
    assert told["loss"] > mean + 1e-3


@pytest.mark.slow
@pytest.mark.both_kerases
@pytest.mark.parametrize("policy", [slow("mixed_bfloat16"), "mixed_float16"])
def test_mixed_precision_learns(policy):
    model, logits = with_loss(policy, chunk_size=3)
    assert logits(TOKENS).dtype == policy.removeprefix("mixed_")
    optimizer = keras.optimizers.Adam(0.05)
    if policy == "mixed_float16":
        optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
    model.compile(optimizer)
    before = model.evaluate(INPUTS, verbose=0, return_dict=True)
    mean = (WEIGHTS * cross_entropies(logits(TOKENS))).sum() / WEIGHTS.sum()
    np.testing.assert_allclose(before["loss"], mean, rtol=1e-3)
    model.fit(INPUTS, epochs=20, verbose=0)
    after = model.evaluate(INPUTS, verbose=0, return_dict=True)
    assert after["loss"] < 0.9 * before["loss"]
    assert {tf.as_dtype(weight.dtype) for weight in model.weights} == {tf.float32}


def test_the_weights_of_positions_are_not_rounded():
    """bfloat16 cannot tell 1.001 from 1."""
    model, _ = with_loss("mixed_bfloat16")
    model.compile("sgd", run_eagerly=True)
    losses = []
    for first in (1.0, 1.001):
        weights = np.ones_like(WEIGHTS)
        weights[0, 0] = first
        told = model.evaluate([TOKENS, LABELS, weights], verbose=0, return_dict=True)
        losses.append(told["loss"])
    assert losses[0] != losses[1]


@pytest.mark.parametrize("directly", [False, True])
def test_half_precision_rounds_neither_bias_nor_its_gradient(directly):
    """1 / 3 is no bfloat16; in the products alone there is half precision."""
    model, _ = with_loss("mixed_bfloat16")
    head = model.get_layer("head")
    head.bias.assign(np.linspace(-1 / 3, 1 / 3, VOCABULARY))
    rounded = tf.cast(tf.cast(head.bias, tf.bfloat16), tf.float32)
    hidden = tf.zeros([4, 5, WIDTH], tf.bfloat16)
    if not directly:
        given = [keras.Input((5, WIDTH), dtype="bfloat16"), *model.inputs[1:]]
        head = keras.Model(given, head(given))
    inputs = [hidden, tf.constant(LABELS), tf.constant(WEIGHTS)]
    with tf.GradientTape() as tape:
        each = head(inputs)
        loss = tf.add_n(head.losses)
    biases = tf.broadcast_to(model.get_layer("head").bias, [4, 5, VOCABULARY])
    np.testing.assert_allclose(each, cross_entropies(biases), rtol=1e-6)
    variable = model.get_layer("head").bias
    variable = variable if isinstance(variable, tf.Variable) else variable.value
    gradient = tape.gradient(loss, variable)
    softmax = tf.nn.softmax(model.get_layer("head").bias)
    of_labels = tf.reduce_sum(
        WEIGHTS[..., None] * tf.one_hot(LABELS, VOCABULARY), (0, 1)
    )
    expected = softmax - of_labels / WEIGHTS.sum()
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)
    assert np.any(rounded != biases[0, 0])


@pytest.mark.both_kerases
def test_saving_keeps_the_tie_and_the_options(tmp_path):
    model, _ = with_loss(chunk_size=2, label_smoothing=0.1, z_loss=0.01)
    model.compile("adam", run_eagerly=True)
    model.fit(INPUTS, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(loaded(INPUTS), model(INPUTS))
    assert loaded.get_layer("head").options == model.get_layer("head").options
    (tie,) = check_tied(loaded)
    assert tie.head is loaded.get_layer("head")
    before = model.evaluate(INPUTS, verbose=0, return_dict=True)
    assert loaded.evaluate(INPUTS, verbose=0, return_dict=True) == before


@pytest.mark.both_kerases
def test_a_cut_keeps_the_loss():
    model, _ = with_loss()
    front, rest = split(model, "dense")
    whole = keras.Model(model.inputs, rest(front(model.inputs)))
    model.compile("sgd", run_eagerly=True)
    whole.compile("sgd", run_eagerly=True)
    expected = model.evaluate(INPUTS, verbose=0, return_dict=True)["loss"]
    told = whole.evaluate(INPUTS, verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(told, expected, rtol=1e-6)


def test_a_frozen_table_stays_and_the_rest_learns():
    model, _ = with_loss()
    model.get_layer("tokens").trainable = False
    table = model.get_layer("tokens").embeddings
    bias = model.get_layer("head").bias
    before = table.numpy(), bias.numpy()
    model.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
    model.fit(INPUTS, verbose=0)
    np.testing.assert_array_equal(table.numpy(), before[0])
    assert np.all(bias.numpy() != before[1])


@pytest.mark.slow
def test_replicas_train_as_one(mirrored):
    """Weights that every half has alike: the mean of means is the mean."""
    ones = np.ones_like(WEIGHTS)
    alone, _ = with_loss(chunk_size=3)
    alone.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    with mirrored.scope():
        model, _ = with_loss(chunk_size=3)
        model.compile(keras.optimizers.SGD(0.5))
    model.set_weights(alone.get_weights())
    data = tf.data.Dataset.from_tensors(((TOKENS, LABELS, ones),))
    for trained in (alone, model):
        trained.fit(data.unbatch().batch(4), epochs=3, shuffle=False, verbose=0)
    for ours, theirs in zip(model.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_too_many_inputs_are_refused():
    _, table, hidden = trunk()
    labels = keras.Input((None,), dtype="int32")
    with pytest.raises(InputError, match=r"\[hidden, labels, weights\], received 4"):
        TiedCrossEntropy(table)([hidden, labels, labels, labels])
