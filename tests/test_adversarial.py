"""Adversarial training against closed forms and against steps written by hand."""

import models
import numpy as np
import pytest
import tensorflow as tf
from models import CountCalls, assert_same
from tensorflow import keras

from tiedbert.adversarial import FGM, AdversarialTraining, except_tokens
from tiedbert.adversarial.cut_model import CutModel
from tiedbert.adversarial.geometry import l2_direction, l2_norm, restrict
from tiedbert.adversarial.positions import ordinary_tokens
from tiedbert.errors import InputError
from tiedbert.layers import EmbeddingDense

layers = keras.layers


# Geometry


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        ("float32", 1e-30),
        ("float32", 1e30),
        ("float16", 6e-8),  # the smallest number that float16 has
        ("float16", 6e4),
        ("bfloat16", 1e-30),
        ("bfloat16", 1e30),
    ],
)
def test_norms_neither_overflow_nor_underflow(dtype, size):
    delta = tf.cast([[size, 0.0, -size], [0.0, size, 0.0]], dtype)
    exact = float(delta[1, 1])  # `size`, rounded
    norm = l2_norm(delta)
    assert norm.dtype == tf.float32
    np.testing.assert_allclose(norm, [exact * np.sqrt(2), exact], rtol=1e-6)
    half = np.sqrt(0.5)
    expected = [[half, 0.0, -half], [0.0, 1.0, 0.0]]
    np.testing.assert_allclose(l2_direction(delta), expected, rtol=1e-6)


def test_the_largest_numbers_have_a_direction():
    """Their norm is no float32 any more; the direction is."""
    direction = l2_direction(tf.constant([[3e38, 3e38]]))
    np.testing.assert_allclose(direction, [[np.sqrt(0.5)] * 2], rtol=1e-6)


def test_the_norm_is_that_of_each_example_over_all_other_axes():
    delta = tf.reshape(tf.range(12.0), [2, 3, 2])
    expected = [np.sqrt(55.0), np.sqrt(506.0 - 55.0)]
    np.testing.assert_allclose(l2_norm(delta), expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_a_direction_has_norm_one(shape):
    gradient = tf.random.normal(shape)
    direction = l2_direction(gradient)
    np.testing.assert_allclose(l2_norm(direction), [1.0, 1.0], rtol=1e-6)
    norms = tf.reshape(l2_norm(gradient), [2] + [1] * (len(shape) - 1))
    np.testing.assert_allclose(direction * norms, gradient, rtol=1e-5)


def test_a_gradient_of_zero_has_the_direction_zero():
    direction = l2_direction(tf.constant([[0.0, 0.0], [0.0, 2.0]]))
    assert direction.numpy().tolist() == [[0.0, 0.0], [0.0, 1.0]]


def test_the_norm_counts_only_the_allowed_positions():
    gradient = tf.constant([[[3.0], [4.0], [100.0]]])
    positions = tf.constant([[True, True, False]])
    direction = l2_direction(gradient, positions)
    np.testing.assert_allclose(direction, [[[0.6], [0.8], [0.0]]], rtol=1e-6)


def test_an_example_without_a_position_is_not_perturbed():
    direction = l2_direction(tf.ones([1, 2, 2]), tf.constant([[False, False]]))
    assert not np.any(direction)


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 2), (1, 3, 2, 2)])
def test_positions_apply_to_all_axes_after_time(shape):
    restricted = restrict(tf.ones(shape), tf.constant([[True, False, True]]))
    assert np.all(restricted[:, ::2] == 1)
    assert np.all(restricted[:, 1] == 0)


# Positions


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
@pytest.mark.parametrize(
    ("token_ids", "expected"),
    [
        ([2, 7, 8, 3], [0, 1, 1, 0]),
        ([2, 7, 3, 0, 0], [0, 1, 0, 0, 0]),
        ([2, 7, 3, 8, 9, 3, 0], [0, 1, 0, 1, 1, 0, 0]),  # two texts
        ([2, 3], [0, 0]),
        ([2, 3, 0], [0, 0, 0]),
        ([0, 0, 0], [0, 0, 0]),
        ([101, 1, 21127, 102], [0, 1, 1, 0]),  # another vocabulary
    ],
)
def test_ordinary_tokens(token_ids, expected, dtype):
    found = ordinary_tokens(tf.cast([token_ids], dtype))
    assert found.dtype == tf.bool
    assert found.numpy().astype(int).tolist() == [expected]


def test_ordinary_tokens_judges_each_row_by_itself():
    """The second row ends with an id that is an ordinary token in the first."""
    found = ordinary_tokens(tf.constant([[2, 5, 6, 3], [2, 3, 5, 0]]))
    assert found.numpy().astype(int).tolist() == [[0, 1, 1, 0], [0, 1, 0, 0]]


def bert_like(token_dtype="float32"):
    """A model with bert4keras' names, mask and float token ids."""
    tokens = keras.Input((None,), name="Input-Token", dtype=token_dtype)
    segments = keras.Input((None,), name="Input-Segment")
    table = layers.Embedding(9, 4, mask_zero=True, name="Embedding-Token")
    h = layers.Add()([table(tokens), layers.Embedding(2, 4)(segments)])
    h = layers.LayerNormalization(name="Embedding-Norm")(h)
    y = layers.Dense(3)(layers.GlobalAveragePooling1D()(h))
    return keras.Model([tokens, segments], y)


TOKEN_IDS = tf.constant([[2, 7, 5, 3], [2, 8, 3, 0]], tf.float32)
ORDINARY = [[False, True, True, False], [False, True, False, False]]


@pytest.mark.parametrize(
    "inputs",
    [
        [TOKEN_IDS, TOKEN_IDS * 0],
        (TOKEN_IDS, TOKEN_IDS * 0),
        {"Input-Token": TOKEN_IDS, "Input-Segment": TOKEN_IDS * 0},
    ],
    ids=["list", "tuple", "dict"],
)
def test_a_bert4keras_model_tells_its_ordinary_tokens(inputs):
    cut = CutModel(bert_like(), "Embedding-Norm")
    positions = cut.positions(inputs, cut.front(inputs))
    assert positions.numpy().tolist() == ORDINARY


def test_any_other_model_tells_its_padding():
    model = models.recurrent()
    tokens = models.batch(model)
    cut = CutModel(model, "dense")
    np.testing.assert_array_equal(cut.positions(tokens, cut.front(tokens)), tokens != 0)


def test_without_a_mask_every_position_is_allowed():
    model = models.chain()
    cut = CutModel(model, "middle")
    x = models.batch(model)
    assert cut.positions(x, cut.front(x)) is None


def test_given_positions_win():
    given = tf.constant([[False, True, False, False]] * 2)
    cut = CutModel(bert_like(), "Embedding-Norm", lambda inputs: given)
    inputs = [TOKEN_IDS, TOKEN_IDS * 0]
    assert cut.positions(inputs, cut.front(inputs)) is given


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("tokens", r"'tokens' \(.*int32"),
        (["summary", "side"], r"\['summary', 'side'\] \(.*float32.*, .*float32"),
        ("sumary", '"summary"'),
    ],
)
def test_a_perturbation_needs_one_float_activation(at, message):
    with pytest.raises(InputError, match=message):
        AdversarialTraining(models.dictionaries(), FGM(), at)


# Methods


@pytest.mark.parametrize("epsilon", [-1.0, float("inf"), float("nan")])
def test_fgm_refuses_an_epsilon_that_is_no_radius(epsilon):
    with pytest.raises(InputError, match=f"epsilon >= 0, received {epsilon}"):
        FGM(epsilon)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_fgm_steps_along_the_gradient_in_the_type_of_the_hidden_state(dtype):
    gradient = tf.cast([[3.0, -4.0]], dtype)
    delta = FGM(10.0).delta(lambda _: gradient, tf.zeros([1, 2], dtype))
    assert delta.dtype == dtype
    np.testing.assert_allclose(tf.cast(delta, tf.float32), [[6.0, -8.0]], rtol=1e-2)


def test_fgm_asks_for_the_gradient_at_zero_once():
    asked = []

    def gradient(delta):
        asked.append(delta)
        return tf.ones([1, 2])

    FGM().delta(gradient, tf.zeros([1, 2]))
    assert asked == [None]


# Training: closed forms

W = np.array([[3.0], [-4.0]], np.float32)  # its norm is 5
X = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 1.0]], np.float32)  # X @ W: -1, 6, -4


def linear():
    x = keras.Input((2,))
    h = layers.Activation("linear", name="hidden")(x)
    model = keras.Model(x, layers.Dense(1, use_bias=False, name="dense")(h))
    model.set_weights([W])
    return model


class Spy:
    """A method that keeps its last delta, and counts how often it was asked."""

    def __init__(self, method):
        self.method = method
        self.clean = method.clean
        self.asked = 0

    def delta(self, *args, **kwargs):
        self.asked += 1
        self.last = self.method.delta(*args, **kwargs)
        return self.last


def trained(model, method, x, y, at="hidden", **options):
    """The logs of one step on the whole batch, and the training."""
    optimizer = keras.optimizers.SGD(options.pop("learning_rate", 0.0))
    fit = {name: options.pop(name) for name in ["sample_weight"] if name in options}
    training = AdversarialTraining(model, method, at)
    training.compile(optimizer, run_eagerly=True, **options)
    rows = len(tf.nest.flatten(x)[0])
    history = training.fit(x, y, batch_size=rows, verbose=0, **fit).history
    return {name: value[0] for name, value in history.items()}, training


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 2.0])
def test_squared_loss_of_a_linear_model(epsilon, clean):
    """delta = +-epsilon w/|w| away from the label: each error grows by epsilon |w|."""
    y = np.array([[0.0], [7.0], [-5.0]], np.float32)
    errors = X @ W - y  # -1, -1, 1
    spy = Spy(FGM(epsilon, clean))
    logs, _ = trained(linear(), spy, X, y, loss="mse")
    expected = epsilon * np.sign(errors) * W.T / 5.0
    np.testing.assert_allclose(spy.last, expected, rtol=1e-6)
    adversarial = (1.0 + 5.0 * epsilon) ** 2
    assert logs == pytest.approx(
        {
            "clean_loss": 1.0,
            "adversarial_loss": adversarial,
            "loss": (1.0 + adversarial) / 2 if clean else adversarial,
            "delta_norm": epsilon,
        },
        rel=1e-5,
    )


def test_logistic_loss_of_a_linear_model():
    """Each margin shrinks by epsilon |w|."""
    y = np.array([[1.0], [1.0], [0.0]], np.float32)
    margins = (2 * y - 1) * (X @ W)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    logs, _ = trained(linear(), FGM(0.5), X, y, loss=loss)

    def softplus(values):
        return np.mean(np.log1p(np.exp(-values)))

    assert logs["clean_loss"] == pytest.approx(softplus(margins), rel=1e-5)
    assert logs["adversarial_loss"] == pytest.approx(softplus(margins - 2.5), rel=1e-5)


def test_an_example_of_weight_zero_is_not_attacked():
    y = np.array([[0.0], [7.0], [-5.0]], np.float32)
    spy = Spy(FGM(1.0))
    weights = np.array([1.0, 0.0, 2.0], np.float32)
    logs, _ = trained(linear(), spy, X, y, loss="mse", sample_weight=weights)
    np.testing.assert_allclose(l2_norm(spy.last), [1.0, 0.0, 1.0], rtol=1e-6)
    assert logs["clean_loss"] == pytest.approx(1.0)
    assert logs["adversarial_loss"] == pytest.approx(36.0)


# Training: a step by hand


def step_by_hand(model, first, second, loss, method):
    """The weights after one SGD step of rate 1, without the library.

    `first` gives the hidden state, `second` the outputs for one.
    """
    hidden = first()
    delta = tf.zeros_like(hidden)
    with tf.GradientTape() as tape:
        tape.watch(delta)
        clean = loss(second(hidden + delta))
    gradient = tape.gradient(clean, delta)
    axes = list(range(1, gradient.shape.rank))
    norm = tf.sqrt(tf.reduce_sum(tf.square(gradient), axes, keepdims=True))
    delta = method.epsilon * gradient / norm
    weights = model.trainable_variables
    with tf.GradientTape() as tape:
        hidden = first()
        minimized = loss(second(hidden + delta))
        if method.clean:
            minimized = (minimized + loss(second(hidden))) / 2.0
    gradients = map(tf.convert_to_tensor, tape.gradient(minimized, weights))
    return [w - g for w, g in zip(weights, gradients, strict=True)]


def assert_weights(model, expected, start):
    found = model.trainable_variables
    for weight, value, old in zip(found, expected, start, strict=True):
        np.testing.assert_allclose(weight.numpy(), value, rtol=1e-5, atol=1e-6)
        assert np.any(weight.numpy() != old), "every weight learns"


both_losses = pytest.mark.parametrize(
    "clean", [True, False], ids=["both", "adversarial"]
)


@both_losses
@pytest.mark.parametrize("run_eagerly", [True, False], ids=["eager", "graph"])
def test_a_step_is_that_by_hand(clean, run_eagerly):
    model = models.chain()
    layer = model.get_layer
    x, y = models.batch(model), tf.ones([3, 2])
    method = FGM(0.3, clean)
    start = model.get_weights()
    expected = step_by_hand(
        model,
        lambda: layer("middle")(layer("first")(x)),
        layer("last"),
        lambda outputs: tf.reduce_mean(tf.square(outputs - y)),
        method,
    )
    training = AdversarialTraining(model, method, "middle")
    optimizer = keras.optimizers.SGD(1.0)
    training.compile(optimizer, "mse", run_eagerly=run_eagerly)
    training.fit(x, y, batch_size=3, verbose=0)
    assert_weights(model, expected, start)


def tied():
    ids = keras.Input((None,), dtype="int32")
    table = layers.Embedding(5, 3, name="tokens")
    h = layers.Dense(3, activation="tanh", name="dense")(table(ids))
    head = EmbeddingDense(table, activation="linear", name="head")
    model = keras.Model(ids, head(h))
    draw = np.random.default_rng(0)
    model.set_weights([draw.normal(size=w.shape) for w in model.get_weights()])
    return model


TOKENS = tf.constant([[1, 2, 4], [3, 1, 0]])
LABELS = tf.constant([[2, 2, 1], [0, 4, 3]])
FROM_LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@both_losses
@pytest.mark.parametrize("at", ["tokens", "dense"])
def test_a_tied_table_learns_from_both_sides(at, clean):
    """Its gradient reaches it through the input, before the cut, and the head."""
    model = tied()
    table = model.get_layer("tokens").weights[0]
    dense, head = model.get_layer("dense"), model.get_layer("head")

    def first():
        hidden = tf.gather(tf.convert_to_tensor(table), TOKENS)
        return hidden if at == "tokens" else dense(hidden)

    def second(hidden):
        hidden = dense(hidden) if at == "tokens" else hidden
        product = tf.einsum("btw,vw->btv", hidden, tf.convert_to_tensor(table))
        return product + tf.convert_to_tensor(head.bias)

    def loss(logits):
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, logits)
        return tf.reduce_mean(losses)

    method = FGM(0.5, clean)
    start = model.get_weights()
    expected = step_by_hand(model, first, second, loss, method)
    trained(model, method, TOKENS, LABELS, at, loss=FROM_LOGITS, learning_rate=1.0)
    assert_weights(model, expected, start)


def test_the_perturbation_does_not_move_the_tied_table():
    """The head multiplies by the table itself: the loss says so, and the table."""
    model = tied()
    before = model.get_weights()
    spy = Spy(FGM(0.5))
    logs, _ = trained(model, spy, TOKENS, LABELS, "tokens", loss=FROM_LOGITS)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    hidden = tf.gather(
        tf.convert_to_tensor(model.get_layer("tokens").weights[0]), TOKENS
    )
    head, dense = model.get_layer("head"), model.get_layer("dense")
    expected = FROM_LOGITS(LABELS, head(dense(hidden + spy.last)))
    assert logs["adversarial_loss"] == pytest.approx(float(expected), rel=1e-6)
    assert logs["adversarial_loss"] > logs["clean_loss"]


@both_losses
def test_penalties_on_weights_and_activations_count_once(clean):
    x = keras.Input((4,))
    options = {"kernel_regularizer": "l2", "activity_regularizer": "l2"}
    first = layers.Dense(3, name="first", **options)
    second = layers.Dense(2, name="second", **options)
    model = keras.Model(x, second(first(x)))
    batch, y = models.batch(model), tf.ones([3, 2])

    def kernel(layer):
        return tf.convert_to_tensor(layer.weights[0])

    def outputs(layer, inputs):
        return tf.matmul(inputs, kernel(layer)) + tf.convert_to_tensor(layer.weights[1])

    clean_hidden = []

    def front():
        clean_hidden[:] = [outputs(first, batch)]
        return clean_hidden[0]

    def loss(prediction):
        def l2(values):
            return 0.01 * tf.reduce_sum(tf.square(values))

        activities = (l2(clean_hidden[0]) + l2(prediction)) / 3.0
        error = tf.reduce_mean(tf.square(prediction - y))
        return error + l2(kernel(first)) + l2(kernel(second)) + activities

    method = FGM(0.3, clean)
    start = model.get_weights()
    expected = step_by_hand(model, front, lambda h: outputs(second, h), loss, method)
    trained(model, method, batch, y, "first", loss="mse", learning_rate=1.0)
    assert_weights(model, expected, start)


def test_frozen_layers_stay():
    model = models.chain()
    model.get_layer("first").trainable = False
    frozen = model.get_layer("first").get_weights()
    last = model.get_layer("last").get_weights()
    x = models.batch(model)
    trained(model, FGM(), x, tf.ones([3, 2]), "middle", loss="mse", learning_rate=1.0)
    for old, new in zip(frozen, model.get_layer("first").get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    assert np.any(model.get_layer("last").get_weights()[0] != last[0])


# Training: what it reduces to


def plain_and_adversarial(build, method, at, x, y, **options):
    """The weights and the losses after ordinary and after adversarial training."""
    results = []
    for wrap in (lambda model: model, lambda m: AdversarialTraining(m, method, at)):
        keras.utils.set_random_seed(0)
        model = build()
        whole = wrap(model)
        whole.compile("adam", jit_compile=False, **options)
        fitted = whole.fit(x, y, batch_size=2, epochs=2, shuffle=False, verbose=0)
        results.append((model.get_weights(), fitted.history["loss"]))
    return results


def ids_and_labels():
    token_ids = np.array([[2, 7, 5, 3], [2, 8, 3, 0], [2, 3, 0, 0]], np.float32)
    return [token_ids, token_ids * 0], np.array([0, 2, 1])


def test_without_a_radius_and_a_clean_loss_it_is_plain_training():
    """Bit for bit; the last batch is a smaller one."""
    x, y = ids_and_labels()
    method = FGM(0.0, clean=False)
    (plain, plain_loss), (adversarial, loss) = plain_and_adversarial(
        bert_like, method, "Embedding-Norm", x, y, loss=FROM_LOGITS
    )
    for a, b in zip(plain, adversarial, strict=True):
        np.testing.assert_array_equal(a, b)
    assert loss == pytest.approx(plain_loss, rel=1e-6)


def test_without_a_radius_it_is_plain_training():
    x, y = ids_and_labels()
    (plain, plain_loss), (adversarial, loss) = plain_and_adversarial(
        bert_like, FGM(0.0), "Embedding-Norm", x, y, loss=FROM_LOGITS
    )
    for a, b in zip(plain, adversarial, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert loss == pytest.approx(plain_loss, rel=1e-6)


def test_half_precision_scales_the_loss_and_the_step_alike():
    """Keras scales the loss by itself under this policy."""

    def weights_after(policy):
        keras.mixed_precision.set_global_policy(policy)
        model = linear()
        training = AdversarialTraining(model, FGM(0.05), "hidden")
        training.compile(keras.optimizers.SGD(1.0), "mse")
        training.fit(X, X @ W + 0.1, verbose=0)
        return model.get_weights()[0]

    try:
        half = weights_after("mixed_float16")
    finally:
        keras.mixed_precision.set_global_policy("float32")
    whole = weights_after("float32")
    assert np.all(np.abs(whole - W) > 0.01)
    np.testing.assert_allclose(half - W, whole - W, rtol=0.02)


def test_token_ids_as_floats_stay_whole_in_mixed_precision():
    """As bert4keras has them: bfloat16 would take 1001 for 1000."""
    ids = keras.Input((1,))
    h = layers.Embedding(1002, 1, name="tokens", dtype="float32")(ids)
    model = keras.Model(ids, layers.Flatten(dtype="float32")(h))
    values = np.array([[1001.0]], np.float32)
    expected = model.predict(values, verbose=0)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        training = AdversarialTraining(model, FGM(), "tokens")
        training.compile("sgd", "mse")
        np.testing.assert_array_equal(training.predict(values, verbose=0), expected)
    finally:
        keras.mixed_precision.set_global_policy("float32")


# Training: what runs, and where the perturbation is


def counted():
    """A model that counts what runs before and after the cut."""
    x = keras.Input((3,))
    before, after = CountCalls(name="before"), CountCalls(name="after")
    h = layers.Dense(3, name="dense")(before(x))
    return keras.Model(x, layers.Dense(1)(after(h))), before, after


def test_what_is_before_the_cut_runs_once_a_step():
    model, before, after = counted()
    training = AdversarialTraining(model, FGM(), "dense")
    training.compile("sgd", "mse")
    x, y = np.ones([6, 3], np.float32), np.ones([6, 1], np.float32)
    training.fit(x, y, batch_size=2, epochs=2, verbose=0)
    assert (int(before.calls), int(after.calls)) == (6, 12)
    training.evaluate(x, y, batch_size=2, verbose=0)
    assert (int(before.calls), int(after.calls)) == (9, 15)


class SumOfAll(layers.Layer):
    """The sum over time, padding included: the loss has a gradient there too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs):
        return tf.reduce_sum(inputs, axis=1)

    def compute_mask(self, inputs, mask=None):
        return None


def test_padding_is_not_perturbed():
    tokens = keras.Input((None,), dtype="int32")
    h = layers.Embedding(9, 4, mask_zero=True, name="embedding")(tokens)
    model = keras.Model(tokens, layers.Dense(2)(SumOfAll()(h)))
    x = models.batch(model)
    spy = Spy(FGM(2.0))
    trained(model, spy, x, tf.zeros([3, 2]), "embedding", loss="mse")
    moved = np.any(spy.last, axis=-1)
    np.testing.assert_array_equal(moved, x != 0)
    np.testing.assert_allclose(l2_norm(spy.last), [2.0] * 3, rtol=1e-6)


def test_special_tokens_are_not_perturbed():
    spy = Spy(FGM(2.0))
    inputs, y = [TOKEN_IDS, TOKEN_IDS * 0], tf.constant([0, 2])
    trained(bert_like(), spy, inputs, y, "Embedding-Norm", loss=FROM_LOGITS)
    assert np.any(spy.last, axis=-1).tolist() == ORDINARY


def test_metrics_have_their_names_and_see_the_clean_outputs():
    model = bert_like()
    inputs, y = (
        [TOKEN_IDS, TOKEN_IDS * 0],
        tf.argmax(model([TOKEN_IDS, TOKEN_IDS * 0]), 1),
    )
    logs, _ = trained(
        model,
        FGM(100.0),  # enough to turn every answer
        inputs,
        y,
        "Embedding-Norm",
        loss=FROM_LOGITS,
        metrics=["accuracy"],
    )
    assert set(logs) == {
        *("loss", "clean_loss", "adversarial_loss", "delta_norm", "accuracy")
    }
    assert logs["accuracy"] == 1.0
    assert logs["adversarial_loss"] > np.log(3) > logs["clean_loss"]


def test_validation_is_that_of_the_model():
    model = models.chain()
    x, y = models.batch(model), tf.ones([3, 2])
    training = AdversarialTraining(model, FGM(), "middle")
    training.compile(keras.optimizers.SGD(0.0), "mse", metrics=["mae"])
    fitted = training.fit(x, y, validation_data=(x, y), verbose=0)
    logs = {name: value[0] for name, value in fitted.history.items()}
    assert {name for name in logs if name.startswith("val_")} == {"val_loss", "val_mae"}
    model.compile(loss="mse", metrics=["mae"])
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    found = training.evaluate(x, y, verbose=0, return_dict=True)
    for name in ("loss", "mae"):
        assert found[name] == pytest.approx(expected[name], rel=1e-6)
        assert logs[f"val_{name}"] == pytest.approx(expected[name], rel=1e-6)
    assert logs["clean_loss"] == pytest.approx(expected["loss"], rel=1e-6)
    in_order = training.evaluate(x, y, verbose=0)
    assert in_order == pytest.approx(list(expected.values()), rel=1e-6)
    np.testing.assert_allclose(
        training.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-6
    )


def test_several_outputs_and_their_sample_weights():
    model = models.dictionaries()
    outputs = {name: model.output[name] for name in ("score", "side")}
    model = keras.Model(model.input, outputs)
    x = models.batch(model)
    y = {name: tf.zeros_like(output) for name, output in model(x).items()}
    losses = dict.fromkeys(y, "mse")
    weights = {name: tf.constant([1.0, 1.0, 0.0]) for name in y}
    spy = Spy(FGM(0.5))
    logs, _ = trained(model, spy, x, y, "summary", loss=losses, sample_weight=weights)
    np.testing.assert_allclose(l2_norm(spy.last), [0.5, 0.5, 0.0], rtol=1e-6)
    summary, side = model.get_layer("both").input
    summary, side = keras.Model(model.input, [summary, side])(x)
    score = model.get_layer("score")

    def score_loss(hidden):
        errors = tf.square(score(tf.concat([hidden, side], -1)))
        return float(tf.reduce_sum(errors[:2])) / 3.0

    rise = score_loss(summary + spy.last) - score_loss(summary)
    assert rise > 0
    found = logs["adversarial_loss"] - logs["clean_loss"]
    assert found == pytest.approx(rise, rel=1e-4)


def test_a_second_fit_does_not_trace_again():
    model = models.chain()
    x, y = models.batch(model), tf.ones([3, 2])
    spy = Spy(FGM())
    training = AdversarialTraining(model, spy, "middle")
    training.compile("sgd", "mse")
    training.fit(x, y, epochs=2, verbose=0)
    traced = spy.asked
    training.fit(x, y, epochs=2, verbose=0)
    assert traced in (1, 2)  # Keras may trace once more to make its variables
    assert spy.asked == traced


def test_the_model_is_trained_in_place_and_saved_alone(tmp_path):
    model = models.chain()
    training = AdversarialTraining(model, FGM(), "middle")
    assert {id(w) for w in training.weights} >= {id(w) for w in model.weights}
    start = model.get_weights()
    x, y = models.batch(model), tf.ones([3, 2])
    training.compile("sgd", "mse")
    checkpoint = keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras"))
    training.fit(x, y, verbose=0, callbacks=[checkpoint])
    assert np.any(model.get_weights()[0] != start[0])
    training.save(tmp_path / "saved.keras")
    for name in ("best", "saved"):
        loaded = keras.models.load_model(tmp_path / f"{name}.keras")
        assert type(loaded) is type(model)
        assert_same(loaded(x), model(x))


def test_the_variables_of_the_model_are_not_held_twice():
    model = tied()
    training = AdversarialTraining(model, FGM(), "dense")
    found = [id(weight) for weight in training.trainable_variables]
    assert sorted(found) == sorted(id(weight) for weight in model.trainable_variables)


def test_token_ids_are_no_cut_point_although_they_are_float():
    """bert4keras declares them so."""
    ids = keras.Input((4,), name="Input-Token")
    hidden = layers.Embedding(9, 3, name="embedding")(ids)
    model = keras.Model(ids, layers.Dense(2)(layers.Flatten()(hidden)))
    with pytest.raises(InputError, match="'Input-Token' holds ids"):
        AdversarialTraining(model, FGM(), at="Input-Token")


def test_a_cut_point_without_a_gradient_is_an_error_that_says_so():
    with pytest.raises(InputError, match="not differentiably"):
        l2_direction(None)


@pytest.mark.parametrize("shape", [(2, 1), (2, 4), (2, 3, 1)])
def test_positions_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match=r"expected bool \[batch, time\]"):
        l2_direction(tf.ones([2, 3, 5]), tf.ones(shape, tf.bool))


def test_weights_saved_are_those_of_the_wrapped_model(tmp_path):
    x = keras.Input((4,))
    h = layers.Dense(3, name="hidden")(x)
    model = keras.Model(x, layers.Dense(1)(h))
    training = AdversarialTraining(model, FGM(), at="hidden")
    path = str(tmp_path / "model.weights.h5")
    training.save_weights(path)
    kept = model.get_weights()
    model.set_weights([w + 1 for w in kept])
    training.load_weights(path)
    for weight, value in zip(model.get_weights(), kept, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_special_tokens_are_excepted_wherever_they_are():
    inputs = {"Input-Token": tf.constant([[2.0, 7.0, 4.0, 8.0, 0.0]])}
    positions = except_tokens([0, 2, 3, 4])(inputs)
    np.testing.assert_array_equal(positions, [[False, True, False, True, False]])
