"""`fit` of adversarial training: a step by hand, passes, saved files."""

import adversarial_problems as problems
import models
import numpy as np
import pytest
import tensorflow as tf
from adversarial_problems import FROM_LOGITS, TOKEN_IDS, Spy, bert_like, trained
from generation import IS_LEGACY
from models import assert_same
from tensorflow import keras

from tiedbert.adversarial import FGM, AdversarialTraining, GradientPenalty
from tiedbert.errors import InputError

layers = keras.layers


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("tokens", r"'tokens' \(.*int32"),
        (["summary", "tokens"], r"'tokens'\] \(.*int32"),
        ("sumary", '"summary"'),
    ],
)
def test_a_perturbation_needs_float_activations(at, message):
    with pytest.raises(InputError, match=message):
        AdversarialTraining(models.dictionaries(), FGM(), at)


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


@pytest.mark.cases(2)
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


TOKENS = tf.constant([[1, 2, 4], [3, 1, 0]])
LABELS = tf.constant([[2, 2, 1], [0, 4, 3]])


@both_losses
@pytest.mark.parametrize("at", ["hidden", "block"])
def test_a_tied_table_learns_from_both_sides(at, clean):
    """Its gradient reaches it through the input, before the cut, and the head."""
    model = problems.tied()
    table = model.get_layer("hidden").weights[0]
    dense, head = model.get_layer("block"), model.get_layer("head")

    def first():
        hidden = tf.gather(tf.convert_to_tensor(table), TOKENS)
        return hidden if at == "hidden" else dense(hidden)

    def second(hidden):
        hidden = dense(hidden) if at == "hidden" else hidden
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


# Training: numbers of half precision


def test_half_precision_scales_the_loss_and_the_step_alike():
    """Keras scales the loss by itself under this policy."""

    def weights_after(policy):
        keras.mixed_precision.set_global_policy(policy)
        model = problems.linear()
        model.set_weights([start[:, None]])
        training = AdversarialTraining(model, FGM(0.2), "hidden")
        training.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
        training.fit(problems.X, y, verbose=0)
        return model.get_weights()[0][:, 0]

    start = problems.W / 16  # whole in float16
    y = problems.X.reshape(3, 4) @ start + 0.1

    try:
        half = weights_after("mixed_float16")
    finally:
        keras.mixed_precision.set_global_policy("float32")
    whole = weights_after("float32")
    assert np.max(np.abs(whole - start)) > 0.05
    np.testing.assert_allclose(half, whole, atol=1e-3)


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


# Training: where the perturbation is, and what it says


def test_special_tokens_are_not_perturbed():
    spy = Spy(FGM(2.0))
    inputs, y = [TOKEN_IDS, TOKEN_IDS * 0], tf.constant([0, 2])
    trained(bert_like(), spy, inputs, y, "Embedding-Norm", loss=FROM_LOGITS)
    assert np.any(spy.deltas[-1], axis=-1).tolist() == problems.ORDINARY


def test_metrics_have_their_names_and_see_the_clean_outputs():
    model = bert_like()
    inputs, y = (
        [TOKEN_IDS, TOKEN_IDS * 0],
        tf.argmax(model([TOKEN_IDS, TOKEN_IDS * 0]), 1),
    )
    logs = trained(
        model,
        FGM(100.0),  # enough to turn every answer
        inputs,
        y,
        "Embedding-Norm",
        loss=FROM_LOGITS,
        metrics=["accuracy"],
    )
    assert set(logs) == {
        *("loss", "clean_loss", "adversarial_loss", "delta_norm", "accuracy"),
        "nonfinite_gradients",
    }
    assert logs["accuracy"] == 1.0
    assert logs["adversarial_loss"] > np.log(3) > logs["clean_loss"]


def test_validation_is_that_of_the_model():
    model = models.chain()
    x, y = models.batch(model), tf.ones([3, 2])
    training = AdversarialTraining(model, FGM(), "middle")
    options = {"metrics": ["mae"], "run_eagerly": True}
    training.compile(keras.optimizers.SGD(0.0), "mse", **options)
    fitted = training.fit(x, y, validation_data=(x, y), verbose=0)
    logs = {name: value[0] for name, value in fitted.history.items()}
    assert {name for name in logs if name.startswith("val_")} == {"val_loss", "val_mae"}
    model.compile(loss="mse", **options)
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
    logs = trained(model, spy, x, y, "summary", loss=losses, sample_weight=weights)
    delta = spy.deltas[-1]
    np.testing.assert_allclose(
        np.linalg.norm(delta, axis=1), [0.5, 0.5, 0.0], rtol=1e-6
    )
    summary, side = model.get_layer("both").input
    summary, side = keras.Model(model.input, [summary, side])(x)
    score = model.get_layer("score")

    def score_loss(hidden):
        errors = tf.square(score(tf.concat([hidden, side], -1)))
        return float(tf.reduce_sum(errors[:2])) / 3.0

    rise = score_loss(summary + delta) - score_loss(summary)
    assert rise > 0
    found = logs["adversarial_loss"] - logs["clean_loss"]
    assert found == pytest.approx(rise, rel=1e-4)


def test_the_model_is_trained_in_place_and_saved_alone(tmp_path):
    model = models.chain()
    training = AdversarialTraining(model, FGM(), "middle")
    assert {id(w) for w in training.weights} >= {id(w) for w in model.weights}
    start = model.get_weights()
    x, y = models.batch(model), tf.ones([3, 2])
    training.compile("sgd", "mse", run_eagerly=True)
    checkpoint = keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras"))
    training.fit(x, y, verbose=0, callbacks=[checkpoint])
    assert np.any(model.get_weights()[0] != start[0])
    training.save(tmp_path / "saved.keras")
    for name in ("best", "saved"):
        loaded = keras.models.load_model(tmp_path / f"{name}.keras")
        assert type(loaded) is type(model)
        assert_same(loaded(x), model(x))


def test_the_variables_of_the_model_are_not_held_twice():
    model = problems.tied()
    training = AdversarialTraining(model, FGM(), "block")
    found = [id(weight) for weight in training.trainable_variables]
    assert sorted(found) == sorted(id(weight) for weight in model.trainable_variables)


def test_token_ids_are_no_cut_point_although_they_are_float():
    """bert4keras declares them so."""
    ids = keras.Input((4,), name="Input-Token")
    hidden = layers.Embedding(9, 3, name="embedding")(ids)
    model = keras.Model(ids, layers.Dense(2)(layers.Flatten()(hidden)))
    with pytest.raises(InputError, match="'Input-Token' holds ids"):
        AdversarialTraining(model, FGM(), at="Input-Token")


def test_weights_saved_are_those_of_the_wrapped_model(tmp_path):
    x = keras.Input((4,))
    h = layers.Dense(3, name="hidden")(x)
    model = keras.Model(x, layers.Dense(1)(h))
    training = AdversarialTraining(model, FGM(), at="hidden")
    path = str(tmp_path / "model.weights.h5")
    training.save_weights(path)
    saved = model.get_weights()
    model.set_weights([w + 1 for w in saved])
    training.load_weights(path)
    for weight, value in zip(model.get_weights(), saved, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_the_gradient_penalty_does_not_underflow_in_half_precision():
    """Each entry of the gradient is below what float16 has."""
    x = np.ones((2, 3), np.float32)
    y = np.array([[1e-4], [1e-4]], np.float32)

    def penalty(policy):
        keras.mixed_precision.set_global_policy(policy)
        h = keras.Input((3,))
        hidden = layers.Activation("linear", name="hidden")(h)
        dense = layers.Dense(1, use_bias=False)
        model = keras.Model(h, dense(hidden))
        model.set_weights([np.full((3, 1), 1e-4)])
        training = AdversarialTraining(model, GradientPenalty(), "hidden")
        training.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
        return training.train_on_batch(x, y, return_dict=True)["adversarial_loss"]

    try:
        half = penalty("mixed_float16")
    finally:
        keras.mixed_precision.set_global_policy("float32")
    # The errors are 2e-4, the gradients 2 * 2e-4 * 1e-4 three times.
    assert half == pytest.approx(3 * (2 * 2e-4 * 1e-4) ** 2, rel=0.01)
    assert half == pytest.approx(penalty("float32"), rel=0.01)


@pytest.mark.parametrize("known", [False, True])
def test_a_keras_that_asks_for_logs_by_another_name_is_refused(known, monkeypatch):
    """Else the logs of several replicas would be those of one, without an error."""
    name = "_get_metrics_result_or_logs"
    name = "_validate_and_get_metrics_result" if IS_LEGACY else name
    owner = next(kind for kind in keras.Model.__mro__ if name in vars(kind))
    training = AdversarialTraining(problems.network(), FGM(), "hidden")
    if not known:
        monkeypatch.delattr(owner, name)
        with pytest.raises(RuntimeError, match=f"Keras .* has no .*{name}"):
            training.compile("sgd", "mse")
        return
    training.compile("sgd", "mse")
