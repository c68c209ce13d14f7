"""Every method against closed forms, and against what it reduces to."""

import adversarial_problems as problems
import numpy as np
import pytest
import tensorflow as tf
from adversarial_problems import (
    FROM_LOGITS,
    Spy,
    W,
    X,
    assert_close,
    linear,
    methods,
    trained,
)
from tensorflow import keras
from variants import others_slow, slow

from tiedbert import adversarial
from tiedbert.adversarial import (
    ALUM,
    FGM,
    KL,
    PGD,
    R3F,
    SMART,
    VAT,
    YOPO,
    AdversarialTraining,
    FreeAT,
    FreeLB,
    GradientPenalty,
    Method,
    OneOf,
    RandomNoise,
    RDrop,
    WarmUp,
)
from tiedbert.errors import InputError

layers = keras.layers
METHODS = methods()
# The last of each, which has loops where there are any.
ONE_OF_EACH = [*{type(method): name for name, method in METHODS.items()}.values()]
every_method = pytest.mark.parametrize("name", others_slow(ONE_OF_EACH, METHODS))
UNPERTURBED = {"RDrop", "GradientPenalty"}
PERTURBING = [name for name in METHODS if name.split("-")[0] not in UNPERTURBED]
perturbing = pytest.mark.parametrize(
    "name",
    others_slow([name for name in ONE_OF_EACH if name in PERTURBING], PERTURBING),
)
# One of each shape of loop, for tests that trace or train twice.
LOOPS = ["PGD-3", "FreeLB-8", "YOPO-10", "SMART-13"]
some_methods = pytest.mark.parametrize("name", others_slow(LOOPS, ONE_OF_EACH))
some_perturbing = pytest.mark.parametrize("name", others_slow(LOOPS, PERTURBING))


def test_every_method_is_in_the_battery():
    public = {getattr(adversarial, name) for name in adversarial.__all__}
    known = {kind for kind in public if hasattr(kind, "train_on_batch")}
    wanted = {kind for kind in public - known if hasattr(kind, "train")} - {Method}
    assert wanted == {type(method) for method in METHODS.values()}


# Closed forms: a linear model. With the loss f(w h) the best delta of norm epsilon has
# w delta = epsilon |w|*, the dual norm, away from the label.

DUAL = {
    "l2": 13.0,
    "linf": 19.0,
    "l2_per_token": 17.0,
}
every_norm = pytest.mark.parametrize("norm", list(DUAL))
ERRORS = np.array([-1.0, 1.0, 2.0], np.float32)  # of the predictions, at Y
Y = (X.reshape(3, 4) @ W - ERRORS)[:, None]
RMS = np.sqrt(np.square(X).mean((1, 2)))

# Methods, and the norm of the perturbation in their last pass over epsilon.
CLIMBERS = {
    "FGM": (FGM, {}, 1.0),
    "FGM alone": (FGM, {"clean": False}, 1.0),
    "PGD": (PGD, {}, 1.0),
    "PGD, short": (PGD, {"steps": 2, "step_size": 0.1}, 0.4),
    "PGD, long": (PGD, {"steps": 2, "step_size": 9.0, "clean": True}, 1.0),
    "FreeAT once": (FreeAT, {"replays": 1}, 0.0),
    "FreeAT": (FreeAT, {"replays": 3}, 1.0),
    "FreeLB": (FreeLB, {"random_start": False}, 1.0),
    "FreeLB, short": (
        FreeLB,
        {"random_start": False, "steps": 3, "step_size": 0.1, "clean": True},
        0.4,
    ),
    "YOPO": (YOPO, {"random_start": False, "outer": 2, "until": "block"}, 1.0),
    "YOPO, short": (
        YOPO,
        {
            "random_start": False,
            "outer": 3,
            "inner": 2,
            "step_size": 0.05,
            "until": "block",
        },
        0.4,
    ),
}


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("norm", "relative"),
    [("l2", False), slow("linf", False), slow("l2_per_token", False), ("l2", True)],
)
@pytest.mark.parametrize("name", others_slow(["PGD, long", "YOPO, short"], CLIMBERS))
def test_squared_loss_of_a_linear_model(name, norm, relative):
    """Each error grows by the step length times the dual norm of w."""
    kind, options, fraction = CLIMBERS[name]
    method = kind(0.5, norm=norm, relative=relative, **options)
    logs = trained(linear(), method, X, Y, loss="mse")
    norms = 0.5 * fraction * (RMS if relative else np.ones(3))
    adversarial_loss = np.mean((np.abs(ERRORS) + norms * DUAL[norm]) ** 2)
    assert logs["adversarial_loss"] == pytest.approx(adversarial_loss, rel=1e-5)
    assert logs["delta_norm"] == pytest.approx(0.5 * fraction, rel=1e-5)
    assert logs["nonfinite_gradients"] == 0.0
    if "clean_loss" in logs:
        assert logs["clean_loss"] == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize("norm", [*DUAL, "linf_scaled"])
def test_the_perturbation_of_a_linear_model(norm):
    spy = Spy(FGM(0.5, norm=norm))
    trained(linear(), spy, X, Y, loss="mse")
    w = W.reshape(2, 2)
    way = {
        "l2": w / 13,
        "linf": np.sign(w),
        "l2_per_token": w / [[5], [12]],
        "linf_scaled": w / 12,
    }[norm]
    expected = 0.5 * np.sign(ERRORS)[:, None, None] * way
    np.testing.assert_allclose(spy.deltas[-1], expected, rtol=1e-6)


@pytest.mark.slow
@every_norm
@pytest.mark.parametrize("kind", [FGM, PGD, FreeAT])
def test_logistic_loss_of_a_linear_model(kind, norm):
    """Each margin shrinks by epsilon |w|*."""
    y = np.array([[1.0], [1.0], [0.0]], np.float32)
    margins = (2 * y - 1) * (X.reshape(3, 4) @ W[:, None]) / 10
    model = linear()
    model.set_weights([W[:, None] / 10])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    logs = trained(model, kind(0.5, norm=norm), X, y, loss=loss)

    def softplus(values):
        return np.mean(np.log1p(np.exp(-values)))

    expected = softplus(margins - 0.05 * DUAL[norm])
    assert logs["adversarial_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("kind", [FGM, PGD, RandomNoise])
def test_with_clean_the_loss_is_the_mean_of_both(kind, clean):
    logs = trained(linear(), kind(0.5, clean=clean), X, Y, loss="mse")
    adversarial_loss = logs["adversarial_loss"]
    mean = (2.0 + adversarial_loss) / 2
    assert logs["loss"] == pytest.approx(mean if clean else adversarial_loss, rel=1e-5)


def test_an_example_of_weight_zero_is_not_attacked():
    spy = Spy(FGM(1.0))
    weights = np.array([1.0, 0.0, 2.0], np.float32)
    logs = trained(linear(), spy, X, Y, loss="mse", sample_weight=weights)
    norms = np.sqrt(np.square(spy.deltas[-1]).sum((1, 2)))
    np.testing.assert_allclose(norms, [1.0, 0.0, 1.0], rtol=1e-6)
    assert logs["clean_loss"] == pytest.approx((1 + 2 * 4) / 3, rel=1e-5)
    assert logs["adversarial_loss"] == pytest.approx((14**2 + 2 * 15**2) / 3, rel=1e-5)


# Closed forms: a quadratic. Its gradient at h is h - y: every step goes straight away
# from y, by the step size, until the border.


@every_norm
def test_the_path_of_pgd_on_a_quadratic(norm):
    h = keras.Input((2, 2))
    model = keras.Model(h, layers.Activation("linear", name="hidden")(h))
    away = np.array([[[3.0, 4.0], [0.0, -1.0]], [[0.0, 0.0], [8.0, 6.0]]], np.float32)
    spy = Spy(PGD(0.7, 4, step_size=0.3, norm=norm))
    trained(model, spy, away + 5, away * 0 + 5, loss="mse")
    length = {
        "l2": np.linalg.norm(away, axis=(1, 2), keepdims=True),
        "linf": np.abs(away),
        "l2_per_token": np.linalg.norm(away, axis=-1, keepdims=True),
    }[norm]
    unit = np.where(length > 0, away / np.where(length > 0, length, 1), 0)
    for i, delta in enumerate(spy.deltas):
        np.testing.assert_allclose(delta, min(0.3 * (i + 1), 0.7) * unit, atol=1e-6)
    assert len(spy.deltas) == 4


# Closed forms: divergences of a linear model. The squared difference of its outputs is
# (w delta)^2.


@every_norm
@pytest.mark.parametrize("steps", [slow(1), 2])
def test_vat_finds_the_direction_of_a_linear_model(norm, steps):
    """One power iteration is enough: there is only one direction."""
    spy = Spy(VAT(0.5, steps=steps, xi=2.0, norm=norm, weight=3.0))
    logs = trained(linear(), spy, X, Y, loss="mse")
    expected = (0.5 * DUAL[norm]) ** 2
    assert logs["adversarial_loss"] == pytest.approx(expected, rel=1e-4)
    assert logs["loss"] == pytest.approx(2.0 + 3.0 * expected, rel=1e-4)
    if norm == "l2":  # xi is a length of its own, beyond the radius
        lengths = np.sqrt(np.square(spy.deltas[0]).sum((1, 2)))
        np.testing.assert_allclose(lengths, 2.0, rtol=1e-6)


@pytest.mark.parametrize("kind", [SMART, ALUM])
def test_smart_and_alum_climb_to_the_corner_of_the_cube(kind):
    method = kind(0.5, steps=2, step_size=9.0, weight=3.0, norm="linf")
    logs = trained(linear(), method, X, Y, loss="mse")
    expected = (0.5 * DUAL["linf"]) ** 2
    assert logs["adversarial_loss"] == pytest.approx(expected, rel=1e-4)
    assert logs["loss"] == pytest.approx(2.0 + 3.0 * expected, rel=1e-4)


@pytest.mark.parametrize("noise", ["uniform", "normal"])
def test_r3f_measures_its_noise(noise):
    spy = Spy(R3F(0.5, noise=noise, weight=3.0))
    logs = trained(linear(), spy, X, Y, loss="mse")
    (z,) = spy.deltas
    expected = np.mean((z.reshape(3, 4) @ W) ** 2)
    assert logs["adversarial_loss"] == pytest.approx(expected, rel=1e-4)
    assert logs["loss"] == pytest.approx(2.0 + 3.0 * expected, rel=1e-4)
    assert np.abs(z).max() <= 0.5 or noise == "normal"


def divergence_of_rows(method, *weights):
    """The mean over as many of two examples as there are weights."""
    x = np.array([[1.0, 0.0, -1.0], [0.5, 2.0, 1.0]], np.float32)
    logs = trained(
        problems.network(),
        method,
        x[: len(weights)],
        np.array([1, 0])[: len(weights)],
        loss=FROM_LOGITS,
        sample_weight=np.array(weights, np.float32),
    )
    return logs["adversarial_loss"]


@pytest.mark.slow
def test_vat_heeds_rows_without_a_weight_and_the_others_do_not(monkeypatch):
    problems.fix_noise(monkeypatch)
    for method in (VAT(0.5), SMART(0.5), ALUM(0.5), R3F(0.5)):
        alone = divergence_of_rows(method, 1.0)
        both = divergence_of_rows(method, 1.0, 1.0)
        found = divergence_of_rows(method, 1.0, 0.0)
        expected = both if isinstance(method, VAT) else alone / 2
        assert both != pytest.approx(alone / 2, rel=1e-2)
        assert found == pytest.approx(expected, rel=1e-5)


def test_vat_learns_from_a_batch_without_a_label():
    model = problems.network()
    before = model.get_weights()
    x, weights = np.ones([2, 3], np.float32), np.zeros(2, np.float32)
    logs = trained(
        model,
        VAT(0.5),
        x,
        np.zeros(2),
        learning_rate=1.0,
        loss=FROM_LOGITS,
        sample_weight=weights,
    )
    assert logs["clean_loss"] == 0.0
    assert logs["loss"] == logs["adversarial_loss"] > 0.0
    assert all(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))


# Closed forms: the penalty


def test_the_gradient_penalty_of_a_linear_model():
    """The gradient of e^2 is 2 e w: the penalty is 4 e^2 |w|^2."""
    model = linear()
    logs = trained(model, GradientPenalty(0.5), X, Y, learning_rate=1e-4, loss="mse")
    squared = np.mean(ERRORS**2)
    assert logs["adversarial_loss"] == pytest.approx(4 * squared * 169.0, rel=1e-5)
    assert logs["loss"] == pytest.approx(squared * (1 + 169.0), rel=1e-5)
    # d/dw of mean(e^2) (1 + |w|^2), as 0.5 / 2 * 4 = 1.
    slope = 2 * np.mean(ERRORS[:, None] * X.reshape(3, 4), 0)
    gradient = slope * 170.0 + squared * 2 * W
    found = (W - model.get_weights()[0][:, 0]) / 1e-4
    np.testing.assert_allclose(found, gradient, rtol=1e-3, atol=0.5)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_the_gradient_penalty_needs_a_mean(reduction):
    kind = keras.losses.SparseCategoricalCrossentropy
    loss = kind(from_logits=True, reduction=reduction)
    x, y = np.ones([2, 3], np.float32), np.array([0, 1])
    with pytest.raises(InputError, match="GradientPenalty needs a loss that is a mean"):
        trained(problems.network(), GradientPenalty(), x, y, loss=loss)


@pytest.mark.slow
def test_the_gradient_penalty_of_one_of_two_points():
    """Each is that of its point alone."""
    penalties = {}
    for at in ("first", "second", OneOf("first", "second")):
        x = keras.Input((2,))
        h = layers.Activation("linear", name="first")(x)
        h = layers.Activation("linear", name="second")(layers.Rescaling(2.0)(h))
        head = layers.Dense(1, use_bias=False, kernel_initializer="ones")
        model = keras.Model(x, head(h))
        y = model.predict(np.ones([1, 2]), verbose=0) - 1.0
        rows = np.ones([1, 2], np.float32)
        training = AdversarialTraining(model, GradientPenalty(), at)
        training.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
        penalties[at] = [
            training.train_on_batch(rows, y, return_dict=True)["adversarial_loss"]
            for _ in range(20 if isinstance(at, OneOf) else 1)
        ]
    # The slope is 2 for a residual of 1, in two numbers, doubled at the first point.
    assert penalties.pop("first") == [2 * 4.0**2]
    assert penalties.pop("second") == [2 * 2.0**2]
    ((_, drawn),) = penalties.items()
    assert set(drawn) == {32.0, 8.0}


def test_the_gradient_penalty_of_a_quadratic():
    """Of (h - y)^2 with two units: the gradient is h - y, whatever the weight."""
    h = keras.Input((2,))
    model = keras.Model(h, layers.Activation("linear", name="hidden")(h))
    away = np.array([[3.0, 4.0], [0.0, 1.0]], np.float32)
    logs = trained(model, GradientPenalty(), away + 2, away * 0 + 2, loss="mse")
    assert logs["adversarial_loss"] == pytest.approx((25.0 + 1.0) / 2, rel=1e-5)
    assert logs["loss"] == pytest.approx(26.0 / 4 + 13.0 / 2, rel=1e-5)


# The battery


@pytest.mark.cases(2)
@perturbing
def test_no_pass_leaves_the_ball(name):
    """But for the draws of a given deviation, and VAT's first look."""
    epsilon = 0.5
    spy = Spy(METHODS[name])
    x = np.random.default_rng(0).normal(size=(3, 3)).astype("float32")
    y = np.array([0, 2, 1])
    logs = trained(problems.network(), spy, x, y, loss=FROM_LOGITS)
    norm = {"l2_per_token": "l2", "linf_scaled": "linf"}.get(spy.norm, spy.norm)
    last = spy.deltas[-1]
    sizes = np.linalg.norm(last, 2 if norm == "l2" else np.inf, axis=1)
    if not (isinstance(METHODS[name], R3F) and spy.noise == "normal"):
        assert np.all(sizes <= epsilon * (1 + 1e-6))
    assert np.all(sizes > 0)
    if isinstance(METHODS[name], FGM | RandomNoise | VAT):
        np.testing.assert_allclose(sizes, epsilon, rtol=1e-6)
    if not isinstance(METHODS[name], YOPO):  # its norm is that where the rest learned
        assert logs["delta_norm"] == pytest.approx(np.mean(sizes), rel=1e-5)


def weights_after_fit(model, method, x, y, **options):
    """Two steps of SGD on batches of three."""
    training = AdversarialTraining(model, method, "hidden")
    options = {"loss": FROM_LOGITS, "jit_compile": False, **options}
    training.compile(keras.optimizers.SGD(0.1), **options)
    train_in_threes(training, x, y)
    return model.get_weights()


def train_in_threes(model, x, y):
    for i in range(0, len(x), 3):
        model.train_on_batch(x[i : i + 3], y[i : i + 3])


DATA = np.random.default_rng(1).normal(size=(6, 3)).astype("float32")
LABELS = np.array([0, 2, 1, 1, 0, 2])


@pytest.mark.cases(1)
@some_methods
def test_in_a_graph_it_does_what_it_does_eagerly(name, monkeypatch):
    problems.fix_noise(monkeypatch)
    start = problems.network().get_weights()
    eager, graph = (
        weights_after_fit(
            problems.network(), METHODS[name], DATA, LABELS, run_eagerly=run_eagerly
        )
        for run_eagerly in (True, False)
    )
    assert_close(graph, eager, rtol=1e-4, atol=1e-5)
    for old, new in zip(start, eager, strict=True):
        assert np.all(np.isfinite(new))
        assert np.any(new != old), "every weight learns"


@pytest.mark.cases(2)
@every_method
def test_the_perturbation_does_not_move_the_tied_table(name):
    """In every pass the head multiplies by the table itself."""
    model = problems.tied()
    before = model.get_weights()
    spy = Spy(METHODS[name])
    x, y = np.array([[1, 2, 4], [3, 1, 0]]), np.array([[2, 2, 1], [0, 4, 3]])
    trained(model, spy, x, y, loss=FROM_LOGITS)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    table = tf.convert_to_tensor(model.get_layer("hidden").weights[0]).numpy()
    block, head = model.get_layer("block"), model.get_layer("head")
    passes = [found for found in spy.seen[0] if found[1] is not None]
    assert passes
    for delta, outputs in passes:
        hidden = table[x] + (0.0 if delta is None else delta)
        np.testing.assert_allclose(outputs, head(block(hidden)), rtol=1e-5, atol=1e-5)


class SumOfAll(layers.Layer):
    """The sum over time, padding included: the loss has a gradient there too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs):
        return tf.reduce_sum(inputs, axis=1)

    def compute_mask(self, inputs, mask=None):
        return None


@pytest.mark.cases(1)
@some_perturbing
def test_padding_is_not_perturbed(name):
    ids = keras.Input((None,), dtype="int32")
    h = layers.Embedding(9, 4, mask_zero=True, name="hidden")(ids)
    h = layers.Dense(4, activation="tanh", name="block")(h)
    model = keras.Model(ids, layers.Dense(2)(SumOfAll()(h)))
    x = np.array([[1, 2, 3, 4], [5, 6, 0, 0], [7, 0, 0, 0]])
    spy = Spy(METHODS[name])
    trained(model, spy, x, np.array([0, 1, 1]), loss=FROM_LOGITS)
    for delta in spy.deltas:
        np.testing.assert_array_equal(delta[x == 0], 0.0)
    assert np.all(np.any(spy.deltas[-1], axis=-1)[x != 0])


@pytest.mark.cases(1)
@pytest.mark.parametrize("per_token", [False, slow(True)], ids=["text", "token"])
@some_methods
def test_padding_changes_nothing(name, per_token, monkeypatch):
    """The same weights learn the same from a batch with and without padding."""
    problems.fix_noise(monkeypatch)
    x = np.array([[1, 2, 3], [5, 6, 8]])
    y = np.array([[0, 1, 2], [2, 1, 1]]) if per_token else np.array([0, 2])
    found = []
    for width in (0, 3):
        rows = np.pad(x, [(0, 0), (0, width)])
        labels = np.pad(y, [(0, 0), (0, width)]) if per_token else y
        model = problems.padded(per_token)
        trained(model, METHODS[name], rows, labels, loss=FROM_LOGITS, learning_rate=1.0)
        found.append(model.get_weights())
    assert_close(*found)


CAUGHT = 9.5  # what an example begins with that has no gradient


class Trap(layers.Layer):
    """Its input; no gradient of some examples is a number.

    Args:
        only_moved: those that began with `CAUGHT` and were perturbed; else all that do.
    """

    def __init__(self, only_moved=False, **kwargs):
        super().__init__(**kwargs)
        self.only_moved = only_moved

    def get_config(self):
        return {**super().get_config(), "only_moved": self.only_moved}

    def call(self, inputs):
        first = inputs[:, :1]
        caught = first > 8 if not self.only_moved else (first > 8) & (first != CAUGHT)

        @tf.custom_gradient
        def trap(inputs):
            def gradient(upstream):
                return tf.where(caught, np.nan, upstream)

            return tf.identity(inputs), gradient

        return trap(inputs)


def trapped(**options):
    x = keras.Input((4,))
    h = layers.Dense(4, name="before")(x)
    h = Trap(**options)(layers.Activation("linear", name="hidden")(h))
    h = layers.Dense(5, activation="tanh", name="block")(h)
    model = problems.scrambled(keras.Model(x, layers.Dense(3)(h)))
    model.get_layer("before").set_weights([np.eye(4), np.zeros(4)])
    return model


WITHOUT_ASCENT = RandomNoise, R3F


@pytest.mark.cases(1)
@some_perturbing
def test_no_weight_is_lost_to_an_input_that_is_no_number(name):
    rows = np.random.default_rng(0).normal(size=(3, 3)).astype("float32")
    rows[1, 2] = np.nan
    model = problems.network()
    before, options = model.get_weights(), {"learning_rate": 0.1, "loss": FROM_LOGITS}
    trained(model, METHODS[name], rows, np.array([0, 1, 2]), **options)
    assert_close(model.get_weights(), before)


@pytest.mark.cases(1)
@some_perturbing
def test_no_weight_is_lost_to_what_is_behind_the_block(name):
    x = keras.Input((4,))
    h = layers.Dense(4, name="before")(layers.Activation("linear", name="hidden")(x))
    h = layers.Activation("linear", name="block")(h)
    model = problems.scrambled(keras.Model(x, layers.Dense(3)(Trap()(h))))
    model.get_layer("before").set_weights([np.eye(4), np.zeros(4)])
    rows = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    rows[2, 0] = CAUGHT
    before, y = model.get_weights(), np.array([0, 1, 2])
    options = {"loss": FROM_LOGITS, "learning_rate": 0.1}
    logs = trained(model, METHODS[name], rows, y, **options)
    assert logs["nonfinite_gradients"] == 1.0
    assert_close(model.get_weights(), before)


@pytest.mark.cases(1)
@some_perturbing
def test_an_example_without_a_finite_gradient_is_not_perturbed(name, monkeypatch):
    """It is counted, and the others are perturbed as without it."""
    problems.fix_noise(monkeypatch)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    x[2, 0] = CAUGHT
    y = np.array([0, 1, 2])
    method, found, logs = METHODS[name], [], []
    for rows in (2, 3):
        spy = Spy(method)
        logs.append(trained(trapped(), spy, x[:rows], y[:rows], loss=FROM_LOGITS))
        found.append(spy.deltas)
    assert logs[0]["nonfinite_gradients"] == 0.0
    assert logs[1]["nonfinite_gradients"] == 1.0
    for without, with_it in zip(*found, strict=True):
        np.testing.assert_allclose(with_it[:2], without, rtol=1e-4, atol=1e-5)
    if not isinstance(method, WITHOUT_ASCENT):
        assert not np.any(found[1][-1][2])


@pytest.mark.cases(1)
@pytest.mark.parametrize("only_moved", [False, True])
@some_perturbing
def test_no_weight_is_lost_to_a_gradient_that_is_no_number(name, only_moved):
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    x[2, 0] = CAUGHT
    model = trapped(only_moved=only_moved)
    before = model.get_weights()
    logs = trained(
        model,
        METHODS[name],
        x,
        np.array([0, 1, 2]),
        loss=FROM_LOGITS,
        learning_rate=0.1,
    )
    assert all(np.all(np.isfinite(weight)) for weight in model.get_weights())
    if not only_moved and not isinstance(METHODS[name], YOPO):  # the rest is free of it
        assert_close(model.get_weights(), before)
    elif name in ("PGD-3", "FreeLB-8"):
        # It stays where it was once a gradient of it was none.
        assert logs["nonfinite_gradients"] == 1.0
        assert any(
            np.any(a != b) for a, b in zip(model.get_weights(), before, strict=True)
        )


# Schedules


def test_epsilon_may_be_a_schedule_of_the_optimizer_steps():
    for schedule in (
        WarmUp(0.5, steps=4),
        lambda step: 0.125 * tf.cast(step, "float32"),
    ):
        spy = Spy(FGM(schedule, clean=False))
        weights_after_fit(
            problems.network(), spy, DATA, LABELS, run_eagerly=True, loss=FROM_LOGITS
        )
        norms = [np.linalg.norm(delta, axis=1).tolist() for delta in spy.deltas]
        np.testing.assert_allclose(norms, [[0.0] * 3, [0.125] * 3], rtol=1e-6)


@pytest.mark.cases(2)
@some_perturbing
def test_every_method_takes_a_schedule(name):
    """A radius that is 0 in this step: no pass is perturbed, but by VAT's look."""
    spy = Spy(methods(lambda step: 0.0 * tf.cast(step, "float32"))[name])
    logs = trained(problems.network(), spy, DATA, LABELS, loss=FROM_LOGITS)
    assert logs["delta_norm"] == 0.0
    assert not np.any(spy.deltas[-1])


# What they reduce to


def plain_weights(x, y, model, **options):
    model.compile(keras.optimizers.SGD(0.1), FROM_LOGITS, **options)
    train_in_threes(model, x, y)
    return model.get_weights()


@pytest.fixture(scope="module")
def plain_in_a_graph():
    return plain_weights(DATA, LABELS, problems.network(), jit_compile=False)


@pytest.fixture(scope="module")
def plain_eagerly():
    return plain_weights(DATA, LABELS, problems.network(), run_eagerly=True)


EXACTLY_PLAIN = [
    slow(FGM(0.0)),
    FGM(0.0, clean=False),
    slow(PGD(0.0)),
    PGD(0.0, clean=True, random_start=True),
    slow(RandomNoise(0.0)),
    slow(RandomNoise(0.0, clean=True)),
    slow(FreeAT(1.0, replays=1)),
    slow(FreeLB(1.0, steps=1, random_start=False)),
    FreeLB(0.0, steps=2),
]
PLAIN = [
    FreeLB(0.0, steps=3, clean=True),
    YOPO(0.0, outer=2, until="block"),
    VAT(0.0),
    slow(VAT(weight=0.0)),
    slow(SMART(0.0)),
    SMART(weight=0.0),
    ALUM(0.0),
    slow(ALUM(weight=0.0)),
    slow(R3F(0.0)),
    R3F(weight=0.0),
    RDrop(),
    GradientPenalty(0.0),
]


@pytest.mark.cases(1)
@pytest.mark.parametrize("method", EXACTLY_PLAIN, ids=repr)
def test_bit_for_bit_plain_training(method, plain_in_a_graph):
    """In a graph: TensorFlow runs other kernels eagerly."""
    found = weights_after_fit(problems.network(), method, DATA, LABELS)
    for value, other in zip(found, plain_in_a_graph, strict=True):
        np.testing.assert_array_equal(value, other)


@pytest.mark.cases(2)
@pytest.mark.parametrize("method", PLAIN, ids=repr)
def test_plain_training(method, plain_eagerly):
    found = weights_after_fit(
        problems.network(), method, DATA, LABELS, run_eagerly=True
    )
    assert_close(found, plain_eagerly, rtol=1e-6)


def test_free_at_without_a_radius_is_plain_training_on_repeated_batches():
    repeated = np.repeat(DATA.reshape(2, 3, 3), 2, axis=0).reshape(12, 3)
    labels = np.repeat(LABELS.reshape(2, 3), 2, axis=0).reshape(12)
    expected = plain_weights(repeated, labels, problems.network(), run_eagerly=True)
    found = weights_after_fit(
        problems.network(), FreeAT(0.0, replays=2), DATA, LABELS, run_eagerly=True
    )
    assert_close(found, expected, rtol=1e-6)


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("clean", "norm", "step_size"),
    [
        (False, "l2", 0.5),
        (True, "l2", 500.0),
        (True, "linf", 0.5),
        (False, "l2_per_token", 500.0),
    ],
)
def test_pgd_with_one_full_step_is_fgm(clean, norm, step_size):
    """A longer step is projected to the same place, but for rounding."""
    found = [
        weights_after_fit(problems.network(), method, DATA, LABELS, run_eagerly=True)
        for method in (
            FGM(0.5, clean, norm),
            PGD(0.5, 1, step_size, clean=clean, norm=norm),
        )
    ]
    assert_close(*found, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.cases(1)
@every_norm
def test_yopo_with_one_inner_step_goes_the_way_of_freelb(norm, monkeypatch):
    """What is behind the block learns the same; each gradient is the true one."""
    problems.fix_noise(monkeypatch)
    options = {"step_size": 0.3, "norm": norm}
    x, y = DATA[:3], LABELS[:3]
    spies, rests = [], []
    for method in (
        FreeLB(0.5, steps=3, **options),
        YOPO(0.5, outer=3, inner=1, until="block", **options),
    ):
        model = problems.network()
        spy = Spy(method)
        trained(model, spy, x, y, loss=FROM_LOGITS, learning_rate=0.1)
        spies.append([delta for delta, outputs in spy.seen[0] if outputs is not None])
        rests.append(model.get_layer("last").get_weights())
    assert_close(*spies)
    assert_close(*rests)
    assert np.any(rests[0][0] != problems.network().get_layer("last").get_weights()[0])


def test_yopo_lets_the_block_learn_from_its_penalties():
    """With a radius of zero it is plain training, activity regularizers included."""

    def build():
        x = keras.Input((3,))
        penalty = {"activity_regularizer": "l2", "kernel_regularizer": "l2"}
        h = layers.Dense(4, name="hidden", **penalty)(x)
        h = layers.Dense(5, activation="tanh", name="block", **penalty)(h)
        return problems.scrambled(keras.Model(x, layers.Dense(3, **penalty)(h)))

    expected = plain_weights(DATA, LABELS, build(), run_eagerly=True)
    method = YOPO(0.0, outer=2, until="block")
    found = weights_after_fit(build(), method, DATA, LABELS, run_eagerly=True)
    assert_close(found, expected)


def test_yopo_refuses_cut_points_one_behind_the_other():
    x = keras.Input((3,))
    h = layers.Dense(4, name="second")(layers.Dense(4, name="first")(x))
    model = keras.Model(x, layers.Dense(3)(layers.Dense(4, name="block")(h)))
    with pytest.raises(InputError, match="YOPO climbs through one block"):
        trained(
            model, YOPO(until="block"), DATA, LABELS, ["first", "second"], loss="mse"
        )


def test_noise_has_the_asked_statistics():
    """RandomNoise of the sign norm is up or down by epsilon, evenly."""
    x = np.zeros((400, 4), np.float32)
    h = keras.Input((4,))
    model = keras.Model(h, layers.Activation("linear", name="hidden")(h))
    spy = Spy(RandomNoise(0.5, norm="linf"))
    trained(model, spy, x, x, loss="mse")
    assert np.array_equal(np.unique(spy.deltas[-1]), [-0.5, 0.5])
    assert abs(np.mean(spy.deltas[-1])) < 0.05


# Arguments


@pytest.mark.parametrize("kind", [FGM, PGD, RandomNoise, FreeAT, FreeLB, YOPO, VAT])
@pytest.mark.parametrize("epsilon", [-1.0, np.inf, np.nan, None, "1", True])
def test_an_epsilon_that_is_no_radius_is_refused(kind, epsilon):
    message = (
        rf"{kind.__name__} expected epsilon: a number >= 0 or a function of the step; "
        rf"received {epsilon!r}"
    )
    with pytest.raises(InputError, match=message):
        kind(epsilon)


NORM_NAMES = "'l2' or 'linf' or 'linf_scaled' or 'l2_per_token'"
NON_NEGATIVE, COUNT, SWITCH = "a number >= 0", "a whole number >= 1", "True or False"
OPTIONAL = f"{NON_NEGATIVE} or None"
A_DIVERGENCE = r"a function of two outputs such as KL\(\), or None"
REFUSED = [
    *((kind, "norm", "l1", NORM_NAMES) for kind in (FGM, PGD, RandomNoise, FreeAT)),
    *((kind, "norm", "l1", NORM_NAMES) for kind in (FreeLB, YOPO, VAT, SMART, ALUM)),
    *((kind, "steps", 0, COUNT) for kind in (PGD, FreeLB, VAT, SMART, ALUM)),
    *((kind, "steps", 1.5, COUNT) for kind in (PGD, FreeLB, VAT, SMART, ALUM)),
    *((kind, "step_size", -0.1, OPTIONAL) for kind in (PGD, FreeLB, YOPO, SMART)),
    *((kind, "relative", "l2", SWITCH) for kind in (FGM, PGD, VAT, SMART, ALUM, R3F)),
    *((kind, "clean", "l2", SWITCH) for kind in (FGM, PGD, FreeLB, RandomNoise)),
    *((kind, "random_start", 1, SWITCH) for kind in (PGD, FreeLB, YOPO)),
    *((kind, "weight", -1.0, NON_NEGATIVE) for kind in (VAT, SMART, ALUM, R3F, RDrop)),
    *((kind, "weight", None, NON_NEGATIVE) for kind in (VAT, RDrop, GradientPenalty)),
    *((kind, "divergence", KL, A_DIVERGENCE) for kind in (VAT, SMART, ALUM)),
    *((kind, "divergence", "kl", A_DIVERGENCE) for kind in (R3F, RDrop)),
    (ALUM, "step_size", "1", OPTIONAL),
    (FreeAT, "replays", 0, COUNT),
    (YOPO, "outer", 0, COUNT),
    (YOPO, "inner", True, COUNT),
    (VAT, "xi", None, "a number > 0"),
    (VAT, "xi", 0.0, "a number > 0"),
    (SMART, "proximal", -1.0, NON_NEGATIVE),
    (SMART, "momentum", 1.0, "a number >= 0 and < 1"),
    (SMART, "momentum", -0.5, "a number >= 0 and < 1"),
    (R3F, "noise", "gaussian", "'uniform' or 'normal'"),
    (lambda **given: WarmUp(**{"epsilon": 1.0, **given}), "steps", 0, COUNT),
    (lambda **given: WarmUp(**{"steps": 3, **given}), "epsilon", -1.0, NON_NEGATIVE),
    (lambda **given: WarmUp(**{"steps": 3, **given}), "epsilon", abs, NON_NEGATIVE),
]


@pytest.mark.parametrize(("kind", "name", "value", "expected"), REFUSED)
def test_a_wrong_argument_is_refused(kind, name, value, expected):
    who = kind.__name__ if isinstance(kind, type) else "WarmUp"
    with pytest.raises(
        InputError, match=rf"{who} expected {name}: {expected}"
    ) as error:
        kind(**{name: value})
    assert str(error.value).endswith(f"received {value!r}")
