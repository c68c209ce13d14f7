"""What plain `fit` does, `fit` of adversarial training does.

With a radius of zero it is plain training, which is so the oracle for weights and logs.
"""

import functools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import adversarial_problems as problems
import adversarial_worker
import models
import numpy as np
import pytest
import tensorflow as tf
from generation import IS_LEGACY
from tensorflow import keras
from variants import others_slow, slow

from tiedbert.adversarial import (
    FGM,
    PGD,
    SMART,
    VAT,
    YOPO,
    AdversarialTraining,
    FreeLB,
    GradientPenalty,
    RDrop,
    WarmUp,
)
from tiedbert.adversarial.method import Method
from tiedbert.errors import InputError
from tiedbert.layers import EmbeddingDense, TiedCrossEntropy

layers = keras.layers

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(5, 4)).astype("float32")
SCORES = DRAW.normal(size=(5, 1)).astype("float32")
KINDS = DRAW.integers(0, 3, (5, 1)).astype("int32")
EACH = np.array([1.0, 0.5, 2.0, 0.0, 3.0], np.float32)

BOTH, ONE = FGM(0.0), FGM(0.0, clean=False)
every_method = pytest.mark.parametrize("method", [BOTH, ONE], ids=["both", "one"])
COMPILED = {"jit_compile", "steps_per_execution"}  # options of a graph
OWN = {"clean_loss", "adversarial_loss", "delta_norm", "nonfinite_gradients"}


def plain(build, x, y=None, optimizer=None, fit=(), **options):
    """The weights and the logs of plain training."""
    model = build()
    return trained(model, model, x, y, optimizer, fit, **options)


def adversarial(
    build, x, y=None, optimizer=None, fit=(), method=BOTH, at="hidden", **o
):
    """The weights and the logs of adversarial training."""
    model = build()
    training = AdversarialTraining(model, method, at)
    return trained(model, training, x, y, optimizer, fit, **o)


def trained(model, whole, x, y, optimizer, fit, **options):
    optimizer = optimizer() if optimizer else keras.optimizers.SGD(0.2)
    # To trace a step takes longer than to run a few of these.
    options = options if options.keys() & COMPILED else {"run_eagerly": True, **options}
    whole.compile(optimizer, **options)
    given = {"batch_size": 2, "epochs": 1, "shuffle": False, "verbose": 0, **dict(fit)}
    history = whole.fit(x, y, **given).history
    return model.get_weights(), history


def assert_alike(expected, found, atol=1e-6):
    for old, new in zip(expected[0], found[0], strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-5, atol=atol)
    assert set(found[1]) - OWN == set(expected[1]) - OWN
    for name, value in expected[1].items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-4, atol=1e-6)


def assert_as_plain(build, x, y=None, at="hidden", method=BOTH, **options):
    given = plain(build, x, y, **options)
    start = build().get_weights()
    assert any(np.any(a != b) for a, b in zip(start, given[0], strict=True))
    found = adversarial(build, x, y, method=method, at=at, **options)
    assert_alike(given, found)
    return found


# Losses, metrics and weights


def two_outputs(pack):
    def build():
        x = keras.Input((4,), name="x")
        first = layers.Dense(3, activation="tanh", name="first")(x)
        hidden = layers.Dense(3, activation="tanh", name="hidden")(first)
        score = layers.Dense(1, name="score")(hidden)
        kind = layers.Dense(3, activation="softmax", name="kind")(hidden)
        return scrambled(keras.Model(x, pack(score, kind)))

    return build


scrambled = functools.partial(problems.scrambled, scale=0.5)


def one_output():
    model = AS_LIST()
    return keras.Model(model.input, model.outputs[1])


AS_LIST = two_outputs(lambda score, kind: [score, kind])
AS_DICT = two_outputs(lambda score, kind: {"score": score, "kind": kind})
CROSS = "sparse_categorical_crossentropy"
LOSSES = {"score": "mse", "kind": CROSS}
METRICS = {"score": ["mae"], "kind": ["accuracy"]}
BY_NAME = {"score": SCORES, "kind": KINDS}
WEIGHTS_BY_NAME = {"score": EACH, "kind": EACH[::-1].copy()}


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("build", "y", "options"),
    [
        slow(AS_LIST, [SCORES, KINDS], {"loss": ["mse", CROSS]}),
        (AS_LIST, [SCORES, KINDS], {"loss": ["mse", CROSS], "loss_weights": [2, 0.5]}),
        slow(AS_LIST, [SCORES, KINDS], {"loss": LOSSES, "metrics": METRICS}),
        (AS_LIST, BY_NAME, {"loss": LOSSES, "metrics": METRICS}),
        slow(AS_DICT, BY_NAME, {"loss": LOSSES, "metrics": METRICS}),
        (
            AS_DICT,
            BY_NAME,
            {"loss": LOSSES, "loss_weights": {"score": 3.0, "kind": 0.5}},
        ),
        (
            AS_DICT,
            BY_NAME,
            {
                "loss": LOSSES,
                "weighted_metrics": METRICS,
                "fit": {"sample_weight": WEIGHTS_BY_NAME},
            },
        ),
    ],
    ids=["list", "weights", "names", "mixed", "dict", "weights-dict", "samples"],
)
def test_several_outputs(build, y, options):
    assert_as_plain(build, X, y, **options)


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    "fit",
    [
        slow({}),
        slow({"sample_weight": EACH}),
        {"class_weight": {0: 1.0, 1: 3.0, 2: 0.5}},
        {"validation_split": 0.4},
        {"validation_data": (X, KINDS, EACH)},
    ],
    ids=lambda fit: next(iter(fit), "none"),
)
def test_weights_and_validation(fit):
    options = {"metrics": ["accuracy"], "weighted_metrics": ["mae"]}
    fit = {"epochs": 2, **fit}
    assert_as_plain(one_output, X, KINDS, loss=CROSS, fit=fit, **options)


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("activation", "loss", "run_eagerly"),
    [
        ("softmax", CROSS, True),
        ("softmax", CROSS, False),
        ("sigmoid", "binary_crossentropy", True),
        slow("sigmoid", "binary_crossentropy", False),
    ],
)
@every_method
def test_certain_and_wrong_probabilities(activation, loss, method, run_eagerly):
    """Keras' losses take the logits behind them: clipped they would teach nothing."""

    def build():
        x = keras.Input((4,))
        hidden = layers.Dense(3, activation="tanh", name="hidden")(x)
        units = 3 if activation == "softmax" else 1
        model = keras.Model(x, layers.Dense(units, activation=activation)(hidden))
        scrambled(model)
        model.layers[-1].set_weights(
            [100.0 * w for w in model.layers[-1].get_weights()]
        )
        return model

    y = KINDS if activation == "softmax" else KINDS % 2 * 1.0
    options = {"loss": loss, "run_eagerly": run_eagerly, "method": method}
    _, logs = assert_as_plain(build, X, y, **options)
    assert logs["loss"][0] > -np.log(1e-7)  # what Keras clips probabilities to


def test_any_function_can_be_the_loss():
    def loss(y, outputs):
        return tf.abs(outputs - y) + 0.1 * outputs

    assert_as_plain(AS_DICT, X, BY_NAME, loss={"score": loss, "kind": CROSS})


# Losses that are inside the model


def regularized(shared=False):
    """Penalties on weights and activations, before and behind the cut."""

    def build():
        options = {"kernel_regularizer": "l2", "activity_regularizer": "l2"}
        x = keras.Input((4,))
        first = layers.Dense(4, name="first", **options)
        hidden = layers.Dense(4, name="hidden", **options)(first(x))
        last = first if shared else layers.Dense(3, name="last", **options)
        return scrambled(keras.Model(x, layers.Dense(3)(last(hidden))))

    return build


@pytest.mark.cases(1)
@every_method
@pytest.mark.parametrize("build", [regularized(), regularized(shared=True)])
def test_penalties_count_once(build, method):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert_as_plain(build, X, KINDS, loss=loss, method=method)


VOCABULARY = 7
TOKENS = DRAW.integers(1, VOCABULARY, (5, 6)).astype("int32")
TOKENS[1, 3:] = TOKENS[3, 2:] = 0
LABELS = DRAW.integers(0, VOCABULARY, (5, 6)).astype("int32")


def tied(loss_inside=True):
    """A head tied to the table that is before the cut."""

    def build():
        ids = keras.Input((None,), dtype="int32", name="ids")
        labels = keras.Input((None,), dtype="int32", name="labels")
        table = layers.Embedding(
            VOCABULARY, 3, name="tokens", embeddings_regularizer="l2", mask_zero=True
        )
        hidden = layers.Dense(3, activation="tanh", name="hidden")(table(ids))
        if loss_inside:
            outputs = TiedCrossEntropy(table)([hidden, labels])
            return scrambled(keras.Model([ids, labels], outputs))
        head = EmbeddingDense(table, activation="softmax")
        return scrambled(keras.Model(ids, head(hidden)))

    return build


@pytest.mark.cases(1)
@every_method
def test_a_loss_inside_the_model_counts_once_a_step(method):
    # Keras 2 means the losses of batches of two sizes alike when there are no labels.
    fit = {"batch_size": 5, "epochs": 2}
    _, logs = assert_as_plain(tied(), [TOKENS, LABELS], method=method, fit=fit)
    assert {"accuracy", "perplexity"} <= set(logs)


def test_the_loss_of_a_tied_head():
    assert_as_plain(tied(False), TOKENS, LABELS, loss=CROSS)


class WithLoss(layers.Layer):
    """Its input, whose mean square is a loss."""

    def call(self, inputs):
        self.add_loss(0.1 * tf.reduce_mean(tf.square(inputs)))
        return tf.identity(inputs)


def with_loss():
    x = keras.Input((4,))
    h = WithLoss()(layers.Dense(4, name="first")(x))
    h = layers.Dense(4, name="hidden", activation="tanh")(h)
    return scrambled(keras.Model(x, WithLoss()(layers.Dense(1)(h))))


@pytest.mark.cases(1)
@pytest.mark.both_kerases
@pytest.mark.parametrize("loss", [None, "mse"])
def test_losses_that_layers_add_count_once(loss):
    y = SCORES if loss else None
    fit = {"batch_size": 5, "epochs": 2}
    assert_as_plain(with_loss, X, y, loss=loss, at="first", fit=fit)


@pytest.mark.both_kerases
@pytest.mark.parametrize(
    ("loss", "y", "message"),
    [
        (CROSS, None, "^fit: the model was compiled with a loss, and there is no y$"),
        (None, KINDS, "^fit: there is no loss"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}], ids=str)
def test_a_missing_loss_or_label_is_one_clear_error(loss, y, message, options):
    training = AdversarialTraining(one_output(), FGM(), "hidden")
    training.compile("sgd", loss, **options)
    with pytest.raises(InputError, match=message) as caught:
        training.fit(X, y, verbose=0)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


# How fit runs


IN_A_LOOP = {"x": X, "y": KINDS, "method": PGD(0.3, steps=4, clean=True), "loss": CROSS}


@functools.cache
def in_a_graph():
    return adversarial(one_output, **IN_A_LOOP, jit_compile=False)


@pytest.mark.both_kerases
@pytest.mark.parametrize(
    "options",
    [{"jit_compile": True}, slow({"run_eagerly": True}), {"steps_per_execution": 2}],
    ids=str,
)
def test_every_way_to_run_gives_the_same(options):
    """The loop of PGD is compiled too; three batches are one and a half executions."""
    found = adversarial(one_output, **IN_A_LOOP, **options)
    assert_alike(in_a_graph(), found, atol=1e-5)


def optimizer(kind=keras.optimizers.SGD, rate=0.2, **options):
    return lambda: kind(rate, **options)


OPTIMIZERS = {
    "clipnorm": optimizer(clipnorm=0.1),
    "global_clipnorm": optimizer(global_clipnorm=0.1),
    "clipvalue": optimizer(clipvalue=0.05),
    "momentum": optimizer(momentum=0.9),
    "adamw": optimizer(keras.optimizers.AdamW, 0.1, weight_decay=0.1),
    "average": optimizer(use_ema=True, ema_overwrite_frequency=2),
    "schedule": lambda: keras.optimizers.SGD(
        keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)
    ),
}
BY_DEFAULT = ["global_clipnorm", "adamw", "schedule"]
if not IS_LEGACY:
    BY_DEFAULT.append("accumulation")
    OPTIMIZERS["accumulation"] = optimizer(gradient_accumulation_steps=2)


@pytest.mark.cases(1)
@pytest.mark.parametrize("name", others_slow(BY_DEFAULT, OPTIMIZERS))
def test_optimizers(name):
    made = OPTIMIZERS[name]
    fit = {"epochs": 2}
    assert_as_plain(one_output, X, KINDS, loss=CROSS, optimizer=made, fit=fit)


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision(name):
    """The second batch is too large for the loss scale: that step is left out."""
    x = np.concatenate([X[:2], 1e4 * X[2:4], X[:2]]) if name == "mixed_float16" else X
    problems.set_policy(name)
    try:
        data = {"x": x, "y": x[:, :1] * 0.1, "loss": "mse", "at": "first"}
        models_made = []

        def build():
            h = layers.Dense(4, name="first")(a := keras.Input((4,)))
            model = keras.Model(a, layers.Dense(1, dtype="float32")(h))
            models_made.append(scrambled(model))
            return model

        at = data.pop("at")
        given = plain(build, **data)
        found = adversarial(build, **data, at=at, method=ONE)
    finally:
        problems.set_policy("float32")
    for old, new in zip(given[0], found[0], strict=True):
        assert np.all(np.isfinite(new))
        np.testing.assert_allclose(new, old, rtol=0.02, atol=5e-3)
    assert {tf.as_dtype(w.dtype) for w in models_made[-1].weights} == {tf.float32}
    overflows = found[1]["nonfinite_gradients"][0]
    assert overflows > 0 if name == "mixed_float16" else overflows == 0


# Several replicas


def masked():
    return scrambled(keras.Model((model := models.attention()).input, model.outputs[0]))


REPLICAS = {
    "outputs": (AS_DICT, X[:4], BY_NAME, "hidden", {"loss": LOSSES}),
    "penalties": (regularized(), X[:4], KINDS[:4] * 1.0, "hidden", {"loss": "mse"}),
    "mask": (masked, TOKENS[:4], X[:4], "embedding", {"loss": "mse"}),
    "loss inside": (tied(), (TOKENS[[0, 2, 0, 2]], LABELS[:4]), None, "hidden", {}),
}


@pytest.mark.parametrize("case", others_slow(["mask"], REPLICAS))
def test_replicas_train_as_one(case, mirrored):
    build, x, y, at, options = REPLICAS[case]
    method = PGD(0.3, steps=3, clean=True)
    y = {name: value[:4] for name, value in y.items()} if isinstance(y, dict) else y
    data = tf.data.Dataset.from_tensor_slices((x,) if y is None else (x, y)).batch(4)
    fit = {"batch_size": None, "epochs": 2}
    run = {"x": data, "fit": fit, "at": at, "method": method}
    alone = adversarial(build, **run, **options)
    with mirrored.scope():
        model = build()
        whole = AdversarialTraining(model, method, at)
        # In a graph: there the replicas really run side by side.
        graph = {"jit_compile": False, **options}
        found = trained(model, whole, data, None, None, fit, **graph)
    # Keras 3 gives the mean of what the metrics of the replicas say.
    for _, logs in (alone, found):
        logs.pop("perplexity", None)
    assert_alike(alone, found, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", [BOTH, VAT(0.0), GradientPenalty(0.0)])
def test_a_replica_may_have_no_rows(method, mirrored):
    """The last batch of five rows has one. Keras then counts it half."""
    data = tf.data.Dataset.from_tensor_slices((X, KINDS)).batch(4)
    found = []
    with mirrored.scope():
        for wrap in (
            lambda model: model,
            lambda m: AdversarialTraining(m, method, "hidden"),
        ):
            model = one_output()
            options = {"loss": CROSS, "jit_compile": False, "metrics": ["accuracy"]}
            fit = {"batch_size": None, "epochs": 2}
            found.append(trained(model, wrap(model), data, None, None, fit, **options))
    problems.assert_close(found[1][0], found[0][0])
    logs = found[1][1]
    assert np.all(np.isfinite([*logs.values()]))
    assert logs["delta_norm"] == [0.0, 0.0]
    assert logs["accuracy"] == pytest.approx(found[0][1]["accuracy"])


@pytest.mark.slow
def test_examples_that_fail_are_counted_over_all_replicas(mirrored):
    rows = np.array([[1.0], [np.inf], [2.0], [3.0]], np.float32)
    counts = []
    for strategy in (tf.distribute.get_strategy(), mirrored):
        with strategy.scope():
            x = keras.Input((1,))
            hidden = layers.Activation("linear", name="hidden")(x)
            whole = AdversarialTraining(
                keras.Model(x, layers.Dense(1)(hidden)), FGM(), "hidden"
            )
            # In a graph where the replicas run side by side.
            alone = strategy is not mirrored
            whole.compile("sgd", "mse", jit_compile=False, run_eagerly=alone)
            data = tf.data.Dataset.from_tensors((rows, np.zeros_like(rows)))
            data = data.unbatch().batch(4)
            logs = whole.fit(data, epochs=2, shuffle=False, verbose=0).history
        counts.append(logs["nonfinite_gradients"])
    assert counts == [[1.0, 1.0], [1.0, 1.0]]


@pytest.mark.slow
@pytest.mark.skipif(not IS_LEGACY, reason="fails in Keras 3 itself (keras issue 20585)")
def test_workers_train_as_one():
    alone = adversarial_worker.trained()
    ports = [free_port(), free_port()]
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    script = Path(adversarial_worker.__file__)
    workers = [
        subprocess.Popen(
            [sys.executable, script],
            env={**os.environ, "TF_CONFIG": json.dumps(config)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for config in (
            {"cluster": cluster, "task": {"type": "worker", "index": i}} for i in (0, 1)
        )
    ]
    try:
        outputs = [worker.communicate(timeout=100)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    one, other = (json.loads(text.splitlines()[-1]) for text in outputs)
    assert one == other
    for ours, theirs in zip(one["weights"], alone["weights"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert one["logs"] == pytest.approx(alone["logs"], rel=1e-4)


def free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


# The model that is wrapped


def normalized():
    keras.utils.set_random_seed(0)
    x = keras.Input((4,))
    h = layers.Dense(4, name="first")(layers.BatchNormalization()(x))
    h = layers.Activation("linear", name="hidden")(h)
    h = layers.BatchNormalization(momentum=0.5)(h)
    return keras.Model(x, layers.Dense(1)(h))


@pytest.mark.cases(1)
@every_method
def test_moving_statistics_are_those_of_plain_training(method):
    """Updated by the first pass alone, and once a step."""
    assert_as_plain(normalized, X, SCORES, loss="mse", method=method)


@pytest.mark.cases(1)
@pytest.mark.both_kerases
@pytest.mark.parametrize("method", [PGD(3.0, steps=3, clean=True), VAT(3.0)])
def test_moving_statistics_do_not_see_the_perturbation(method):
    """At a rate of zero nothing else changes."""
    data = {"x": X, "y": SCORES, "loss": "mse", "optimizer": optimizer(rate=0.0)}
    expected, _ = plain(normalized, **data)
    found, _ = adversarial(normalized, **data, method=method)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_what_is_frozen_between_two_trainings_counts():
    """As a trace of the first knows it no more."""
    model = normalized()
    frozen = model.layers[-2]
    training = AdversarialTraining(model, FGM(), "hidden")
    moving = []
    for trainable in (False, True, False):
        frozen.trainable = trainable
        training.compile("sgd", "mse", jit_compile=False)
        training.fit(X, SCORES, verbose=0)
        moving.append(frozen.moving_mean.numpy())
    np.testing.assert_array_equal(moving[0], 0.0 * moving[0])
    assert np.all(moving[1] != moving[0])
    np.testing.assert_array_equal(moving[2], moving[1])


class Branch(layers.Layer):
    """Twice its input where that is positive altogether: Python's `if` on a tensor."""

    def call(self, inputs):
        if tf.reduce_sum(inputs) > 0:
            return 2.0 * inputs
        return 1.0 * inputs


@pytest.mark.cases(1)
@pytest.mark.both_kerases
@pytest.mark.skipif(not IS_LEGACY, reason="Keras 3 converts no layers with autograph")
@pytest.mark.parametrize("method", [ONE, FGM(0.0, clean=True)])
def test_layers_that_autograph_converts(method):
    def build():
        x = keras.Input((4,))
        hidden = layers.Dense(3, name="hidden")(Branch()(x))
        return scrambled(keras.Model(x, layers.Dense(1)(Branch()(hidden))))

    options = {"loss": "mse", "jit_compile": False}
    assert_as_plain(build, X, SCORES, method=method, **options)


@pytest.mark.both_kerases
def test_frozen_layers_stay():
    for names in (["first"], ["first", "hidden", "score", "kind"]):
        model = AS_DICT()
        for name in names:
            model.get_layer(name).trainable = False
        frozen = {name: model.get_layer(name).get_weights() for name in names}
        before = model.get_weights()
        training = AdversarialTraining(model, FGM(0.1), "hidden")
        training.compile("sgd", LOSSES, run_eagerly=True)
        history = training.fit(X, BY_NAME, verbose=0).history
        assert np.isfinite(history["adversarial_loss"][0])
        for name, values in frozen.items():
            for old, new in zip(
                values, model.get_layer(name).get_weights(), strict=True
            ):
                np.testing.assert_array_equal(new, old)
        moved = [
            np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True)
        ]
        assert any(moved) == (len(names) == 1)


def test_a_gradient_of_ascent_that_is_infinite_moves_nothing():
    """The root has an infinite slope at 0, and the next layer a finite one."""
    x = keras.Input((2,))
    hidden = layers.Activation("linear", name="hidden")(x)
    y = layers.Dense(1, name="last")(layers.Activation(tf.sqrt)(hidden))
    for method in (FGM(0.1), PGD(0.1, steps=3), FreeLB(0.1, random_start=False)):
        model = keras.Model(x, y)
        training = AdversarialTraining(model, method, "hidden")
        training.compile("sgd", "mse", run_eagerly=True)
        batch = np.array([[0.0, 1.0], [4.0, 1.0], [1.0, 2.0]], np.float32)
        history = training.fit(batch, np.ones([3, 1]), verbose=0).history
        assert history["nonfinite_gradients"] == [1.0]
        assert np.all(np.isfinite(model.get_weights()[0]))
        np.testing.assert_allclose(history["delta_norm"], 0.2 / 3, rtol=1e-5)


@pytest.mark.parametrize(
    "name", ["train_step", "test_step", "compute_loss", "compute_metrics"]
)
def test_a_step_or_loss_of_its_own_is_refused(name):
    def own(self, *args, **kwargs):
        return getattr(super(kind, self), name)(*args, **kwargs)

    model = one_output()
    kind = type("Own", (keras.Model,), {name: own})
    model = kind(model.inputs, model.outputs)
    message = rf"{name} of its own \(Own\).*keras\.Model\(model\.inputs"
    with pytest.raises(InputError, match=message):
        AdversarialTraining(model, FGM(), "hidden")


def test_names_of_logs_are_not_taken_twice():
    x = keras.Input((4,))
    hidden = layers.Dense(3, name="hidden")(x)
    outputs = [layers.Dense(1, name=name)(hidden) for name in ("clean", "noisy")]
    with pytest.raises(InputError, match="adversarial training, clean_loss: give its"):
        AdversarialTraining(keras.Model(x, outputs), FGM(), "hidden")


def test_a_metric_with_the_name_of_a_log_is_refused():
    training = AdversarialTraining(one_output(), FGM(), "hidden")
    taken = keras.metrics.SparseCategoricalAccuracy(name="delta_norm")
    training.compile("sgd", CROSS, metrics=[taken], run_eagerly=True)
    with pytest.raises(InputError, match="a metric has the name of a log.*delta_norm"):
        training.fit(X, KINDS, verbose=0)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("micro_batches", True, "a whole number >= 1"),
        ("micro_batches", 0, "a whole number >= 1"),
        ("same_dropout", "yes", "True, False or None"),
    ],
)
def test_a_wrong_option_is_refused(option, value, expected):
    message = f"expected {option}: {expected}; received {value!r}"
    with pytest.raises(InputError, match=message):
        AdversarialTraining(one_output(), FGM(), "hidden", **{option: value})


def test_weights_are_those_of_the_wrapped_model():
    """What Keras keeps for its metrics is none of them."""
    model = one_output()
    training = AdversarialTraining(model, FGM(), "hidden", micro_batches=np.int64(2))
    training.compile("sgd", CROSS, metrics=["accuracy"], run_eagerly=True)
    training.fit(X, KINDS, verbose=0)
    models.assert_same(training.get_weights(), model.get_weights())
    training.set_weights([weight + 1.0 for weight in model.get_weights()])
    models.assert_same(training.get_weights(), model.get_weights())


def test_what_is_exported_is_the_wrapped_model(tmp_path):
    model = one_output()
    training = AdversarialTraining(model, FGM(), "hidden")
    training.export(str(tmp_path / "served"))
    served = tf.saved_model.load(str(tmp_path / "served"))
    np.testing.assert_allclose(served.serve(X), model(X), rtol=1e-6)


def test_a_layer_that_goes_on_with_each_pass_is_refused():
    x = keras.Input(batch_shape=(5, 6, 3))
    hidden = layers.Dense(4, name="hidden")(x)
    model = keras.Model(x, layers.Dense(1)(layers.LSTM(3, stateful=True)(hidden)))
    with pytest.raises(InputError, match="is stateful: each pass of a step"):
        AdversarialTraining(model, FGM(), "hidden")


@pytest.mark.both_kerases
def test_the_policy_of_the_model_tells_whether_the_loss_is_scaled():
    problems.set_policy("mixed_float16")
    try:
        model = one_output()
    finally:
        problems.set_policy("float32")
    scaled = []
    for whole in (model, AdversarialTraining(model, FGM(), "hidden")):
        whole.compile("sgd", CROSS)
        scaled.append("LossScale" in type(whole.optimizer).__name__)
    assert scaled == [True, True]


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    "method",
    [
        BOTH,
        slow(VAT(0.0)),
        SMART(0.0, proximal=0.5, momentum=0.0),
        slow(GradientPenalty(0.0)),
        slow(RDrop()),
    ],
)
def test_double_precision(method):
    """Also a weight that is a count, which SMART's average has too."""

    def build():
        x = keras.Input((4,), dtype="float64")
        scaled = layers.Normalization(dtype="float64")
        scaled.adapt(X)
        hidden = layers.Dense(3, "tanh", dtype="float64", name="hidden")(scaled(x))
        model = keras.Model(x, layers.Dense(1, dtype="float64")(hidden))
        kernels = [w for layer in model.layers[2:] for w in layer.get_weights()]
        draw = np.random.default_rng(1)
        values = iter([draw.normal(size=kernel.shape) for kernel in kernels])
        for layer in model.layers[2:]:
            layer.set_weights([next(values) for _ in layer.get_weights()])
        return model

    data = {"x": X.astype(float), "y": SCORES.astype(float), "loss": "mse"}
    assert_as_plain(build, method=method, **data)


def test_the_wrapped_model_is_left_as_it_was():
    model = one_output()
    model.compile("adam", CROSS, metrics=["accuracy"])
    before = model.get_config(), model.get_weights(), model.predict(X, verbose=0)
    loss, optimizer = model.loss, model.optimizer
    names = [weight.name for weight in model.weights]
    training = AdversarialTraining(model, FGM(), "hidden")
    training.compile("sgd", "mse")
    assert model.get_config() == before[0]
    assert [weight.name for weight in model.weights] == names
    assert model.loss is loss
    assert model.optimizer is optimizer
    for old, new in zip(before[1], model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    np.testing.assert_array_equal(model.predict(X, verbose=0), before[2])
    assert set(model.evaluate(X, KINDS, verbose=0, return_dict=True)) == {
        "loss",
        "accuracy",
    }


@pytest.mark.both_kerases
def test_checkpoints_are_of_the_wrapped_model(tmp_path):
    model = one_output()
    training = AdversarialTraining(model, FGM(), "hidden")
    training.compile("adam", CROSS, run_eagerly=True)
    callbacks = [
        keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras")),
        keras.callbacks.ModelCheckpoint(
            str(tmp_path / "best.weights.h5"), save_weights_only=True
        ),
        keras.callbacks.EarlyStopping("clean_loss", mode="min"),
    ]
    training.fit(X, KINDS, verbose=0, callbacks=callbacks)
    loaded = keras.models.load_model(tmp_path / "best.keras")
    models.assert_same(loaded(X), model(X))
    again = one_output()
    again.load_weights(tmp_path / "best.weights.h5")
    models.assert_same(again(X), model(X))


class Interrupt(keras.callbacks.Callback):
    """As a user does."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def test_an_interrupted_fit_goes_on(tmp_path):
    """Weights, moments and the step that a schedule depends on are all restored."""

    def fit(*callbacks):
        training = AdversarialTraining(one_output(), FGM(WarmUp(1.0, 20)), "hidden")
        training.compile(keras.optimizers.Adam(0.01), CROSS, run_eagerly=True)
        training.fit(X, KINDS, epochs=4, shuffle=False, verbose=0, callbacks=callbacks)
        return training

    def backup():
        return keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))

    uninterrupted = fit()
    with pytest.raises(KeyboardInterrupt):
        fit(backup(), Interrupt())
    steps = []
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda e, _: steps.append(e))
    resumed = fit(backup(), count)
    assert steps == [2, 3]
    np.testing.assert_array_equal(resumed.optimizer.iterations, 4)
    models.assert_same(resumed.get_weights(), uninterrupted.get_weights())


class Counting(Method):
    """A method that counts how often its step is traced."""

    def __init__(self, method):
        vars(self).update(problems.attributes_of(method), method=method)
        self.traced = 0

    def train(self, step):
        self.traced += 1
        return self.method.train(step)


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    "method",
    [
        slow(FGM()),
        PGD(random_start=True, clean=True),
        slow(FreeLB()),
        slow(VAT()),
        YOPO(until="hidden", inner=2),
    ],
    ids=lambda method: type(method).__name__,
)
def test_nothing_is_traced_again(method):
    """The last batch is a smaller one."""
    model = tied(False)()
    counting = Counting(method)
    training = AdversarialTraining(model, counting, "tokens")
    training.compile("sgd", CROSS)
    data = tf.data.Dataset.from_tensor_slices((TOKENS, LABELS)).batch(2)
    training.fit(data, epochs=2, shuffle=False, verbose=0)
    traced = counting.traced
    assert traced in (1, 2)  # Keras 2 may trace once more to make its variables.
    training.fit(data, epochs=2, shuffle=False, verbose=0)
    assert counting.traced == traced
    traces = [
        part._traced.experimental_get_tracing_count() for part in training._setup.parts
    ]
    assert traces == [1] * len(traces)
