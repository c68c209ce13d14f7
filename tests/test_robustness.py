"""Accuracy under attack, against the distance to the decision boundary."""

import models
import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from tiedbert.adversarial import FGM, PGD, VAT, RandomNoise
from tiedbert.errors import InputError
from tiedbert.robustness import correct_under_attack, curve

layers = keras.layers

FROM_LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
EPSILONS = [0.0, 0.1, 0.3, 0.7, 1.5]


def linear():
    """Two classes, a straight boundary."""
    x = keras.Input((3,))
    h = layers.Activation("linear", name="hidden")(x)
    model = keras.Model(x, layers.Dense(2, name="logits")(h))
    kernel = np.array([[1.0, -1.0], [0.5, 1.0], [0.0, 2.0]])
    model.set_weights([kernel, np.array([0.1, -0.2])])
    model.compile(loss=FROM_LOGITS, metrics=["accuracy"])
    return model


def examples():
    draw = np.random.default_rng(0)
    return draw.normal(size=(40, 3)).astype(np.float32), draw.integers(0, 2, 40)


def batches(x, y, size=7):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(size)


def distances(model, x, y, norm="l2"):
    """How far each example is from the wrong answer; negative where it is there."""
    kernel, bias = model.get_layer("logits").get_weights()
    normal = kernel[:, 1] - kernel[:, 0]
    margins = (x @ normal + bias[1] - bias[0]) * (2 * y - 1)
    return margins / np.linalg.norm(normal, 1 if norm == "linf" else 2)


ATTACKS = {
    "FGM": FGM(norm="l2"),
    "FGSM": FGM(norm="linf"),
    "PGD": PGD(steps=3),
    "PGD, Linf, at random": PGD(steps=3, norm="linf", random_start=True),
    # In L2 the way from elsewhere to the farthest point is round: with long steps.
    "PGD, at random": PGD(steps=10, step_size=10.0, random_start=True),
}


@pytest.mark.cases(2)
@pytest.mark.both_kerases
@pytest.mark.parametrize("name", ATTACKS)
def test_a_linear_model_fails_where_the_boundary_is_nearer_than_epsilon(name):
    model, (x, y) = linear(), examples()
    result = curve(model, batches(x, y), "hidden", ATTACKS[name], EPSILONS)
    distance = distances(model, x, y, ATTACKS[name].norm)
    assert result == [(e, float(np.mean(distance > e))) for e in EPSILONS]
    accuracies = [accuracy for _, accuracy in result]
    assert accuracies == sorted(accuracies, reverse=True)
    assert len(set(accuracies)) == len(EPSILONS)


def masked_classifier():
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    h = layers.Embedding(9, 4, mask_zero=True, name="embedding")(tokens)
    h = layers.Dropout(0.5)(layers.Dense(4, activation="tanh", name="dense")(h))
    y = layers.Dense(3, name="logits")(layers.GlobalAveragePooling1D()(h))
    model = keras.Model(tokens, y)
    model.compile(loss=FROM_LOGITS, metrics=["accuracy"])
    return model


def token_batches():
    draw = np.random.default_rng(0)
    tokens = draw.integers(1, 9, (30, 5))
    tokens[::2, 3:] = 0
    return batches(tokens.astype(np.int32), draw.integers(0, 3, 30), size=8)


@pytest.mark.both_kerases
def test_epsilon_0_is_the_accuracy_of_evaluate():
    """With padding and dropout: the attacked model is in inference mode."""
    model, data = masked_classifier(), token_batches()
    ((epsilon, accuracy),) = curve(model, data, "embedding", FGM(), [0])
    assert epsilon == 0.0
    clean = model.evaluate(data, verbose=0, return_dict=True)["accuracy"]
    assert 0 < clean < 1
    assert accuracy == pytest.approx(clean)


def test_the_given_order_of_radii_is_kept():
    model, data = linear(), batches(*examples())
    rising = curve(model, data, "hidden", FGM(), EPSILONS)
    order = [3, 0, 4, 1, 2]
    mixed = curve(model, data, "hidden", FGM(), [EPSILONS[k] for k in order])
    assert mixed == [rising[k] for k in order]


def test_the_methods_own_epsilon_does_not_count():
    data = batches(*examples())
    results = [curve(linear(), data, "hidden", FGM(e), [0.3]) for e in (0.0, 9.0)]
    assert results[0] == results[1]


@pytest.mark.slow
def test_only_tokens_that_the_mask_allows_are_attacked():
    model, data = masked_classifier(), token_batches()
    nowhere = curve(
        model,
        data,
        "dense",
        FGM(),
        [50.0],
        perturbation_mask=lambda x: tf.zeros_like(x) > 0,
    )
    ((_, attacked),) = curve(model, data, "dense", FGM(), [50.0])
    clean = model.evaluate(data, verbose=0, return_dict=True)["accuracy"]
    assert nowhere[0][1] == pytest.approx(clean)
    assert attacked < clean


def test_labels_in_a_column_are_labels():
    x, y = examples()
    column = curve(linear(), batches(x, y[:, None]), "hidden", FGM(), EPSILONS)
    assert column == curve(linear(), batches(x, y), "hidden", FGM(), EPSILONS)


def test_the_model_stays_as_it_was():
    """Also the running statistics that training would move."""
    x = keras.Input((3,))
    h = layers.BatchNormalization(name="norm")(x)
    model = keras.Model(x, layers.Dense(2)(h))
    model.compile(loss=FROM_LOGITS)
    before = model.get_weights()
    curve(model, batches(*examples()), "norm", FGM(), EPSILONS)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_a_model_without_a_loss_is_refused():
    model = models.chain()
    with pytest.raises(InputError, match="needs a compiled model"):
        curve(model, batches(*examples()), "middle", FGM(), [0.0])


def test_a_dataset_without_examples_is_refused():
    empty = batches(*examples()).take(0)
    with pytest.raises(InputError, match="a dataset without examples"):
        curve(linear(), empty, "hidden", FGM(), [0.0])


def test_an_unknown_cut_point_is_refused():
    with pytest.raises(InputError, match='did you mean "hidden"'):
        curve(linear(), batches(*examples()), "hiden", FGM(), [0.0])


def slices(*parts):
    return tf.data.Dataset.from_tensor_slices(parts)


X, Y = examples()
REFUSED_DATA = {
    "arrays": ((X, Y), r"expected a tf\.data\.Dataset .*from_tensor_slices"),
    "an iterator": (iter([(X, Y)]), r"expected a tf\.data\.Dataset"),
    "unbatched": (slices(X, Y), r"without a batch axis.*\.batch\(32\)"),
    "unbatched, in a column": (slices(X, Y[:, None]), r"\.batch\(32\)"),
    "x alone": (slices(X).batch(4), "without labels"),
    "x alone, no tuple": (
        tf.data.Dataset.from_tensor_slices(X).batch(4),
        "without labels",
    ),
    "a label too large": (slices(X, Y + 1).batch(9), "int labels from 0 to 1.*to 2"),
    "no label": (slices(X, Y - 100).batch(9), "int labels .*leave out examples"),
    "half a label": (slices(X, Y / 2).batch(9), "int labels from 0 to 1"),
    "weights of tokens": (slices(X, Y, X).batch(9), r"weights \[batch\]"),
    "negative weights": (slices(X, Y, -np.ones(40)).batch(9), "weights .*>= 0"),
    "weights that are no numbers": (
        slices(X, Y, np.full(40, np.nan)).batch(9),
        "weights .*finite",
    ),
    "no weight": (slices(X, Y, np.zeros(40)).batch(9), "weights that are not all 0"),
}


@pytest.mark.parametrize("name", REFUSED_DATA)
def test_other_data_is_refused_in_words(name):
    data, message = REFUSED_DATA[name]
    with pytest.raises(InputError, match=message) as error:
        curve(linear(), data, "hidden", FGM(), [0.0])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "epsilons",
    [
        [-0.1],
        [0.0, np.nan],
        [np.inf],
        [],
        ["0.5"],
        "12",
        0.5,
        None,
        [None],
        [[0.0, 1.0]],
        [True],
        [1j],
    ],
    ids=repr,
)
def test_radii_that_are_no_numbers_are_refused(epsilons):
    for function in curve, correct_under_attack:
        with pytest.raises(InputError, match="expected epsilons: "):
            function(linear(), batches(X, Y), "hidden", FGM(), epsilons)


@pytest.mark.cases(1)
@pytest.mark.parametrize("kind", [tuple, np.array, iter, np.float32])
def test_radii_are_any_numbers(kind):
    expected = curve(linear(), batches(X, Y), "hidden", FGM(), [0.0, 0.5])
    assert curve(linear(), batches(X, Y), "hidden", FGM(), kind([0, 0.5])) == expected


@pytest.mark.both_kerases
def test_a_model_compiled_without_a_loss_is_refused():
    base = linear()
    model = keras.Model(base.inputs, base.output)
    model.compile()
    for method in FGM(), RandomNoise():
        with pytest.raises(InputError, match=r"model\.compile\(loss="):
            curve(model, batches(X, Y), "hidden", method, [0.0])


@pytest.mark.slow
def test_the_accuracy_of_weighted_examples_is_their_weighted_mean():
    weights = np.random.default_rng(1).uniform(0.0, 2.0, len(X))
    weights[:3] = 0.0
    model = linear()
    model.compile(loss=FROM_LOGITS, weighted_metrics=["accuracy"])
    for given in weights, weights[:, None].astype("float32"):
        data = batches(X, Y)
        weighted = tf.data.Dataset.zip((data, batches(given, Y))).map(
            lambda pair, other: (*pair, other[0])
        )
        found = curve(model, weighted, "hidden", FGM(), EPSILONS)
        for epsilon, accuracy in found:
            right = distances(model, X, Y) > epsilon
            wanted = np.average(right, weights=weights)
            assert accuracy == pytest.approx(wanted, rel=1e-6)
        clean = model.evaluate(weighted, verbose=0, return_dict=True)["accuracy"]
        assert found[0][1] == pytest.approx(clean, rel=1e-5)
        right = correct_under_attack(model, weighted, "hidden", FGM(), EPSILONS)
        np.testing.assert_array_equal(
            right, correct_under_attack(model, data, "hidden", FGM(), EPSILONS)
        )


def test_one_hot_labels_are_refused():
    data = batches(np.zeros((2, 3), np.float32), np.eye(2))
    model = linear()
    model.compile(loss="mse")
    with pytest.raises(InputError, match=r"int labels \[batch\] and one output"):
        curve(model, data, "hidden", FGM(), [0.0])


def test_a_single_output_column_is_refused():
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(1)(layers.Dense(3, name="hidden")(x)))
    model.compile(loss="binary_crossentropy")
    with pytest.raises(InputError, match="one output"):
        curve(model, batches(*examples()), "hidden", FGM(), [0.0])


def test_an_output_that_is_no_number_is_no_right_answer():
    model, (x, _) = linear(), examples()
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    zeros = np.zeros(len(x), int)
    assert curve(model, batches(x, zeros), "hidden", FGM(), [0.0]) == [(0.0, 0.0)]


# Which examples are right.


def bent():
    """Two hidden layers and three classes: no attack is sure to find the worst."""
    x = keras.Input((3,))
    h = layers.Dense(8, activation="tanh", name="hidden")(x)
    h = layers.Dense(8, activation="tanh", name="second")(h)
    model = keras.Model(x, layers.Dense(3)(h))
    draw = np.random.default_rng(1)
    model.set_weights([draw.normal(size=w.shape) for w in model.get_weights()])
    model.compile(loss=FROM_LOGITS)
    x, _ = examples()
    logits = model.predict(x, verbose=0)
    return model, batches(x, np.argmax(logits, -1))


def test_a_curve_is_the_mean_of_what_is_right():
    model, data = bent()
    right = correct_under_attack(model, data, "hidden", FGM(), EPSILONS)
    assert (right.dtype, right.shape) == (bool, (len(EPSILONS), 40))
    assert curve(model, data, "hidden", FGM(), EPSILONS) == [
        (e, float(r.mean())) for e, r in zip(EPSILONS, right, strict=True)
    ]
    assert right[0].all()
    assert not right[-1].all()


def test_right_answers_are_in_the_order_of_the_examples():
    model, (x, y) = linear(), examples()
    right = correct_under_attack(
        model, batches(x, y), "hidden", PGD(steps=2), [0.7, 0.0]
    )
    expected = distances(model, x, y) > [[0.7], [0.0]]
    np.testing.assert_array_equal(right, expected)


@pytest.mark.cases(1)
@pytest.mark.parametrize("method", [FGM(), PGD(steps=2), RandomNoise()])
def test_what_is_wrong_in_a_ball_is_wrong_in_a_larger_one(method):
    model, data = bent()
    right = correct_under_attack(model, data, "hidden", method, [3.0, 0.0, 1.0, 0.3])
    for smaller, larger in ((1, 3), (3, 2), (2, 0)):
        assert not (right[larger] & ~right[smaller]).any()


@pytest.mark.slow
@pytest.mark.cases(1)
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_restarts_never_raise_accuracy(norm):
    """The draws of fewer restarts are the first of more, so each example tells."""
    model, data = bent()
    noise = RandomNoise(norm=norm)
    means = []
    for restarts in (1, 3, 30):
        keras.utils.set_random_seed(0)
        right = correct_under_attack(
            model, data, "hidden", noise, [1.0], restarts=restarts
        )
        means.append(right.mean())
    assert means[0] >= means[1] >= means[2]
    assert means[0] > means[2]


@pytest.mark.slow
def test_steps_find_what_one_step_does_not():
    model, data = bent()
    one = correct_under_attack(model, data, "hidden", FGM(), [1.0])
    attack = PGD(steps=20, random_start=True)
    many = correct_under_attack(model, data, "hidden", attack, [1.0], restarts=5)
    assert many.mean() <= one.mean()
    noise = correct_under_attack(
        model, data, "hidden", RandomNoise(), [1.0], restarts=5
    )
    assert many.mean() < noise.mean()


@pytest.mark.slow
def test_several_points_are_attacked_together():
    """Each has a ball of its own; more balls leave no more right."""
    model, data = bent()
    alone = [
        correct_under_attack(model, data, at, PGD(steps=5), [0.5])
        for at in ("hidden", "second")
    ]
    both = correct_under_attack(model, data, ["hidden", "second"], PGD(steps=5), [0.5])
    assert both.mean() <= min(right.mean() for right in alone)
    assert both.mean() < max(right.mean() for right in alone)


def test_an_attack_is_traced_once():
    """Whatever the size of a batch, and of what is left of it."""
    traces = []

    class Counted(FGM):
        def attack(self, gradient, ball):
            traces.append(ball)
            return super().attack(gradient, ball)

    model, data = bent()
    curve(model, data, "hidden", Counted(), EPSILONS)
    assert len(traces) == 1


def test_what_is_no_attack_is_refused():
    model, data = bent()
    with pytest.raises(InputError, match=r"expected an attack .*received VAT\("):
        curve(model, data, "hidden", VAT(), [1.0])
    with pytest.raises(InputError, match="expected restarts >= 1, received 0"):
        curve(model, data, "hidden", FGM(), [1.0], restarts=0)


# An attack that cannot move


def saturated(scale, pooled=True):
    """A mean of softmaxes: no logits of it are known, and it saturates."""
    x = keras.Input((2,))
    h = layers.Activation("linear", name="hidden")(x)
    out = layers.Dense(2, use_bias=False, activation="softmax", name="softmax")(h)
    model = keras.Model(x, layers.Average()([out, out]) if pooled else out)
    kernel = np.array([[1.0, -1.0], [-1.0, 1.0]])
    model.get_layer("softmax").set_weights([scale * kernel])
    model.compile(loss="sparse_categorical_crossentropy")
    return model


POINTS = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
SIDES = np.argmax(POINTS, 1)
DISTANCE = np.abs(POINTS[:, 0] - POINTS[:, 1]) / np.sqrt(2)


@pytest.mark.cases(1)
@pytest.mark.parametrize("attack", [FGM(), PGD(steps=3), PGD(2, random_start=True)])
@pytest.mark.parametrize("function", [curve, correct_under_attack])
def test_a_warning_counts_the_examples_that_no_attack_could_move(function, attack):
    data = batches(POINTS, SIDES, 10)
    with pytest.warns(UserWarning, match="gradient was exactly 0") as warned:
        found = function(saturated(40.0), data, "hidden", attack, [0.0, 0.8])
    assert len(warned) == 1
    assert warned[0].filename == __file__
    right = found[1] if function is correct_under_attack else found[1][1]
    truth = np.mean(DISTANCE > 0.8)
    assert np.mean(right) > truth + 0.3
    if attack == FGM():
        # The loss is clipped at 1e-7: with 16 between the logits.
        count = np.sum(80 * np.sqrt(2) * DISTANCE > -np.log(1e-7))
        assert f"could not move {count} of 64 examples" in str(warned[0].message)


@pytest.mark.parametrize(
    ("model", "method"),
    [
        (lambda: saturated(1.0), FGM()),
        (lambda: saturated(10.0, pooled=False), FGM()),
        (lambda: saturated(40.0), RandomNoise()),
    ],
    ids=["not saturated", "of logits that are known", "without a gradient"],
)
def test_there_is_no_warning_if_the_attack_can_move(model, method):
    model = model()
    found = correct_under_attack(
        model, batches(POINTS, SIDES, 10), "hidden", method, [0.8]
    )
    if method == FGM():
        np.testing.assert_array_equal(found[0], DISTANCE > 0.8)


def test_the_warning_counts_gradients_that_are_not_finite():
    x = keras.Input((2,))
    h = layers.Activation("linear", name="hidden")(x)
    model = keras.Model(x, layers.Lambda(tf.sqrt)(h))
    model.compile(loss=FROM_LOGITS)
    data = batches(np.array([[4.0, 0.0], [4.0, 1.0]], "float32"), np.zeros(2, int))
    with pytest.warns(UserWarning, match="could not move 1 of 2 examples"):
        found = curve(model, data, "hidden", FGM(), [0.5])
    assert found == [(0.5, 1.0)]
