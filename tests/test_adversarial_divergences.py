"""Divergences between outputs: against NumPy, and weighted as Keras' losses."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from tiedbert.adversarial import KL, SquaredError
from tiedbert.adversarial.compiled_losses import CompiledLosses
from tiedbert.adversarial.output_comparison import divergence_between, measure_for
from tiedbert.errors import InputError

layers = keras.layers
DRAW = np.random.default_rng(0)
P, Q = DRAW.normal(size=(2, 4, 3)).astype("float32") * 2
CROSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True), dtype=float)
    return powers / powers.sum(-1, keepdims=True)


def sigmoid(logits):
    return 1.0 / (1.0 + np.exp(-logits.astype(float)))


def kl(p, q):
    return (p * np.log(p / q)).sum(-1)


def binary_kl(p, q):
    return (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean(-1)


# The measures


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("from_logits", [False, True])
def test_kl_of_categories(from_logits, symmetric):
    p, q = softmax(P), softmax(Q)
    expected = kl(p, q) + (kl(q, p) if symmetric else 0.0)
    given = (P, Q) if from_logits else (p, q)
    found = KL(from_logits, symmetric)(*map(tf.constant, given))
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("from_logits", [False, True])
def test_kl_of_events(from_logits, symmetric):
    p, q = sigmoid(P), sigmoid(Q)
    expected = binary_kl(p, q) + (binary_kl(q, p) if symmetric else 0.0)
    given = (P, Q) if from_logits else (p, q)
    found = KL(from_logits, symmetric, binary=True)(*map(tf.constant, given))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("binary", [False, True])
def test_equal_outputs_have_no_divergence_and_no_gradient(binary, symmetric):
    with tf.GradientTape() as tape:
        p = tf.constant(P)
        tape.watch(p)
        found = KL(symmetric=symmetric, binary=binary)(P, p)
    assert not np.any(found)
    np.testing.assert_allclose(tape.gradient(found, p), 0.0 * P, atol=1e-6)


@pytest.mark.parametrize(
    ("from_logits", "p", "q"),
    [
        (True, [[1000.0, -1000.0]], [[-1000.0, 1000.0]]),
        (False, [[1.0, 0.0]], [[0.0, 1.0]]),
    ],
)
@pytest.mark.parametrize("binary", [False, True])
def test_certain_outputs_have_a_finite_divergence(binary, from_logits, p, q):
    with tf.GradientTape() as tape:
        q = tf.constant(q)
        tape.watch(q)
        found = KL(from_logits, symmetric=True, binary=binary)(tf.constant(p), q)
    assert np.all(np.isfinite(found))
    assert np.all(np.isfinite(tape.gradient(found, q)))
    assert np.all(found.numpy() > 1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_outputs_of_half_precision_are_compared_in_float32(dtype):
    p, q = tf.cast(P, dtype), tf.cast(Q, dtype)
    exact = [np.asarray(tf.cast(values, tf.float32)) for values in (p, q)]
    found = KL()(p, q)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, kl(*map(softmax, exact)), rtol=1e-5)
    squares = SquaredError()(p, q)
    assert squares.dtype == tf.float32
    np.testing.assert_allclose(squares, np.square(exact[0] - exact[1]).mean(-1), 1e-5)


def test_the_gradient_goes_through_both_sides():
    """Of the logits: q - p on the right, p (log p/q - KL) on the left."""
    with tf.GradientTape() as tape:
        left, right = tf.constant(P), tf.constant(Q)
        tape.watch([left, right])
        total = tf.reduce_sum(KL()(left, right))
    of_left, of_right = tape.gradient(total, [left, right])
    p, q = softmax(P), softmax(Q)
    np.testing.assert_allclose(of_right, q - p, rtol=1e-4, atol=1e-6)
    expected = p * (np.log(p / q) - kl(p, q)[:, None])
    np.testing.assert_allclose(of_left, expected, rtol=1e-4, atol=1e-6)


# Certain outputs: float32 holds no probability between 1 and 1 - 6e-8


def exact(p, q, symmetric=False):
    """KL of the softmax of logits ``[classes]``, and its gradients: 60 digits."""
    with localcontext() as context:
        context.prec = 60
        powers = [[Decimal(float(x)).exp() for x in logits] for logits in (p, q)]
        p, q = ([x / sum(row) for x in row] for row in powers)
        found = _exact_kl(p, q)
        if symmetric:
            value, of_q, of_p = _exact_kl(q, p)
            found = [found[0] + value, *map(_sums, found[1:], [of_p, of_q])]
        return [np.array(x, float) for x in found]


def _exact_kl(p, q):
    logs = [(x / y).ln() for x, y in zip(p, q, strict=True)]
    value = sum(map(Decimal.__mul__, p, logs))
    of_p = [x * (log - value) for x, log in zip(p, logs, strict=True)]
    return [value, of_p, [y - x for x, y in zip(p, q, strict=True)]]


def _sums(one, other):
    return [x + y for x, y in zip(one, other, strict=True)]


def value_and_gradients(measure, p, q):
    with tf.GradientTape() as tape:
        p, q = tf.constant(p), tf.constant(q)
        tape.watch([p, q])
        value = measure(p, q)
    return [value.numpy(), *(x.numpy() for x in tape.gradient(value, [p, q]))]


def distant(gap, classes=3):
    """Logits ``[4, classes]`` of which one is `gap` above the others, and near ones."""
    p = np.random.default_rng(gap).normal(size=(4, classes)).astype("float32")
    p[range(4), np.arange(4) % classes] += gap
    return p, p + np.random.default_rng(1).normal(size=p.shape).astype("float32") / 2


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("gap", [0, 16, 40, 80])
def test_kl_of_certain_categories_keeps_size_and_direction(gap, symmetric):
    p, q = distant(gap)
    found = value_and_gradients(KL(symmetric=symmetric), p, q)
    for i in range(len(p)):
        for value, expected in zip(found, exact(p[i], q[i], symmetric), strict=True):
            scale = abs(expected).max()
            assert scale > 0
            np.testing.assert_allclose(value[i] / scale, expected / scale, atol=1e-3)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("gap", [0, 16, 40, 80])
@pytest.mark.parametrize("sign", [1, -1])
def test_kl_of_certain_events_keeps_size_and_direction(sign, gap, symmetric):
    """The sigmoid of a logit is the softmax of it and 0."""
    p, q = (sign * x[:, :1] for x in distant(gap, classes=1))
    found = value_and_gradients(KL(symmetric=symmetric, binary=True), p, q)
    for i in range(len(p)):
        pair = [[x[i, 0], 0.0] for x in (p, q)]
        expected = [x if x.ndim == 0 else x[:1] for x in exact(*pair, symmetric)]
        for value, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(value[i], wanted, rtol=1e-3)


def test_categories_that_never_are_do_not_count():
    """A model may give -inf to a class that cannot be."""
    p, q = (np.concatenate([x, [[-np.inf]] * 4], 1).astype("float32") for x in (P, Q))
    found = value_and_gradients(KL(symmetric=True), p, q)
    expected = value_and_gradients(KL(symmetric=True), P, Q)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    for gradient, wanted in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_allclose(gradient[:, :3], wanted, rtol=1e-5, atol=1e-7)
        assert not gradient[:, 3].any()


def test_the_largest_class_of_one_output_may_be_the_smallest_of_the_other():
    p, q = distant(30)
    q = q[:, ::-1].copy()
    found = value_and_gradients(KL(symmetric=True), p, q)
    for i in range(len(p)):
        for value, expected in zip(found, exact(p[i], q[i], True), strict=True):
            np.testing.assert_allclose(value[i], expected, rtol=1e-4, atol=1e-6)


# Which measure goes with a loss


@pytest.mark.both_kerases
@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("sparse_categorical_crossentropy", KL(from_logits=False)),
        ("categorical_crossentropy", KL(from_logits=False)),
        ("binary_crossentropy", KL(from_logits=False, binary=True)),
        (CROSS, KL()),
        (keras.losses.CategoricalCrossentropy(), KL(from_logits=False)),
        (keras.losses.BinaryCrossentropy(from_logits=True), KL(binary=True)),
        ("mse", SquaredError()),
        (keras.losses.Huber(), SquaredError()),
        (keras.losses.get("mean_absolute_error"), SquaredError()),
    ],
)
def test_the_loss_tells_the_measure(loss, expected):
    assert measure_for(loss, symmetric=False) == expected
    if isinstance(expected, KL):
        assert measure_for(loss, symmetric=True).symmetric


@pytest.mark.parametrize("loss", [None, lambda y, p: y - p, keras.losses.Poisson()])
def test_a_loss_that_tells_no_measure_is_refused(loss):
    with pytest.raises(InputError, match="divergence"):
        measure_for(loss, symmetric=False)


# The mean over a batch


def compiled(names, **options):
    """A model with outputs of these names, three units each."""
    x = keras.Input((3,))
    outputs = {name: layers.Dense(3, name=name)(x) for name in names}
    pack = options.pop("pack", dict)
    packed = outputs if pack is dict else pack(outputs.values())
    model = keras.Model(x, packed if len(names) > 1 else outputs[names[0]])
    model.compile("sgd", **options)
    return model


def between(model, *args, **options):
    """The divergence of two outputs of a compiled model."""
    return divergence_between(CompiledLosses.of(model), *args, **options)


def test_it_is_the_mean_over_the_batch():
    found = between(compiled("a", loss=CROSS), P, Q, symmetric=False)
    assert float(found) == pytest.approx(kl(softmax(P), softmax(Q)).mean(), rel=1e-5)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_sample_weights_count_as_in_a_loss_of_keras(shape):
    """Which is what it is when p is certain: the cross-entropy."""
    weights = np.array([1.0, 0.0, 3.0, 0.5], np.float32)
    model = compiled("a", loss="mse")
    found = between(model, P, Q, tf.constant(weights.reshape(shape)))
    expected = keras.losses.MeanSquaredError()(P, Q, weights)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("loss", ["mse", keras.losses.BinaryCrossentropy(True)])
def test_an_output_without_an_axis_of_units_has_one(loss):
    weights = tf.constant([1.0, 0.0, 3.0, 0.5])
    model = compiled("a", loss=loss)
    flat = between(model, P[:, 0], Q[:, 0], weights)
    assert float(flat) > 0
    assert float(flat) == float(between(model, P[:, :1], Q[:, :1], weights))


def masked(values, mask):
    values = tf.constant(values)
    values._keras_mask = tf.constant(mask)
    return values


@pytest.mark.both_kerases
@pytest.mark.parametrize("side", [0, 1], ids=["left", "right"])
@pytest.mark.parametrize("weights", [None, (2, 1), (2, 3)], ids=str)
def test_what_the_mask_of_an_output_hides_does_not_count(weights, side):
    """As in a loss of Keras: the mean is over what the mask leaves."""
    mask = [[True, True, False], [True, False, False]]
    p, q = DRAW.normal(size=(2, 2, 3, 5)).astype("float32")
    q[~np.array(mask)] = 1e6
    if weights is not None:
        weights = DRAW.uniform(0.5, 2.0, weights).astype("float32")
    pair = [tf.constant(p), tf.constant(q)]
    pair[side] = masked(pair[side], mask)
    found = between(compiled("a", loss="mse"), *pair, weights)
    expected = keras.losses.MeanSquaredError()(p, masked(q, mask), weights)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    assert float(found) < 100


def test_a_batch_that_is_all_masked_has_no_divergence():
    nothing = masked(np.ones((2, 3, 5), np.float32), np.zeros((2, 3), bool))
    found = between(compiled("a", loss="mse"), 3 * nothing, nothing)
    assert float(found) == 0.0


FIRST = kl(softmax(P), softmax(Q)).mean()
SECOND = np.square(P - Q).mean()


@pytest.mark.both_kerases
@pytest.mark.parametrize(
    ("pack", "options", "expected"),
    [
        (list, {"loss": [CROSS, "mse"]}, FIRST + SECOND),
        (
            list,
            {"loss": [CROSS, "mse"], "loss_weights": [3, 2]},
            3 * FIRST + 2 * SECOND,
        ),
        (list, {"loss": {"b": CROSS, "a": "mse"}}, FIRST + SECOND),
        (dict, {"loss": {"b": CROSS, "a": "mse"}}, FIRST + SECOND),
        (
            dict,
            {"loss": {"b": CROSS, "a": "mse"}, "loss_weights": {"b": 3.0, "a": 0.5}},
            3 * FIRST + 0.5 * SECOND,
        ),
        (list, {"loss": "mse"}, 2 * SECOND),
        (dict, {"loss": "mse"}, 2 * SECOND),
        (list, {"loss": [None, "mse"]}, SECOND),
    ],
)
def test_several_outputs_are_added_with_the_weights_of_their_losses(
    pack, options, expected
):
    """The output "b" is the first by its place, the second by its name."""
    model = compiled("ba", pack=pack, **options)
    p, q = ({"b": P, "a": P}, {"b": Q, "a": Q}) if pack is dict else ([P, P], [Q, Q])
    found = between(model, p, q, symmetric=False)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_outputs_may_have_sample_weights_of_their_own():
    first, second = np.eye(4, dtype="float32")[:2]
    model = compiled("ba", loss={"b": CROSS, "a": "mse"})
    outputs = {"b": P, "a": P}, {"b": Q, "a": Q}
    weights = {"b": first, "a": second}
    found = between(model, *outputs, weights, symmetric=False)
    expected = kl(softmax(P), softmax(Q))[0] + np.square(P - Q).mean(-1)[1]
    assert float(found) == pytest.approx(expected / 4, rel=1e-5)


def test_a_given_measure_is_taken_for_every_output():
    model = compiled("ba", pack=list, loss=[lambda y, p: y - p, CROSS])
    found = between(model, [P, P], [Q, Q], given=SquaredError())
    assert float(found) == pytest.approx(2 * SECOND, rel=1e-5)


# What has no label

IGNORING = keras.losses.SparseCategoricalCrossentropy(True, ignore_class=-100)


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("weights", [None, (2, 1), (2, 3)], ids=str)
def test_what_has_no_label_does_not_count(weights, column):
    """The mean is over what has one, as in the loss of Keras."""
    labels = np.array([[0, 2, -100], [-100, 4, -100]])
    p, q = DRAW.normal(size=(2, 2, 3, 5)).astype("float32")
    left = labels != -100
    expected = kl(softmax(p), softmax(q))
    q[~left] = 1e6 * np.arange(5)
    if weights is not None:
        weights = DRAW.uniform(0.5, 2.0, weights).astype("float32")
        expected = expected * weights
    found = between(
        compiled("a", loss=IGNORING),
        tf.constant(p),
        tf.constant(q),
        weights,
        symmetric=False,
        labels=tf.constant(labels[..., None] if column else labels),
    )
    assert float(found) == pytest.approx(expected[left].mean(), rel=1e-5)


def test_the_mask_and_the_labels_both_leave_out():
    labels = tf.constant([[0, -100, 1]])
    p, q = DRAW.normal(size=(2, 1, 3, 5)).astype("float32")
    found = between(
        compiled("a", loss=IGNORING),
        tf.constant(p),
        masked(q, [[True, True, False]]),
        symmetric=False,
        labels=labels,
    )
    assert float(found) == pytest.approx(kl(softmax(p), softmax(q))[0, 0], rel=1e-5)


@pytest.mark.both_kerases
@pytest.mark.parametrize("pack", [list, dict])
def test_each_output_has_labels_of_its_own(pack):
    model = compiled("ba", pack=pack, loss={"b": IGNORING, "a": "mse"})
    y = {"b": tf.constant([0, -100, -100, -100]), "a": tf.zeros([4, 3])}
    pairs = [{"b": P, "a": P}, {"b": Q, "a": Q}]
    if pack is list:
        y, pairs = [y["b"], y["a"]], [[P, P], [Q, Q]]
    found = between(model, *pairs, symmetric=False, labels=y)
    expected = kl(softmax(P), softmax(Q))[0] + SECOND
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_a_label_has_no_divergence():
    labels = tf.fill([4], -100)
    found = between(compiled("a", loss=IGNORING), P, Q, labels=labels)
    assert float(found) == 0.0


@pytest.mark.cases(8)
@pytest.mark.parametrize("hidden_by", ["labels", "mask"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "measure",
    [KL(), KL(symmetric=True), KL(False), KL(binary=True), KL(False, binary=True)]
    + [SquaredError()],
    ids=repr,
)
def test_hidden_outputs_that_are_not_finite_have_the_gradient_0(
    measure, bad, hidden_by
):
    """And the others keep theirs."""
    model = compiled("a", loss=IGNORING)
    left = np.array([[True, False, True]])
    pair = DRAW.uniform(0.1, 0.9, size=(2, 1, 3, 5)).astype("float32")

    def value_and_gradients(*outputs):
        outputs = [tf.Variable(x) for x in outputs]
        with tf.GradientTape() as tape:
            p, q = map(tf.convert_to_tensor, outputs)
            if hidden_by == "mask":
                q._keras_mask = tf.constant(left)
            labels = tf.constant(np.where(left, 0, -100))
            value = between(
                model,
                *(p, q),
                given=measure,
                labels=labels if hidden_by == "labels" else None,
            )
        return [value, *tape.gradient(value, outputs)]

    expected = value_and_gradients(*pair)
    assert expected[1].numpy()[left].any()
    for side in 0, 1:
        broken = pair.copy()
        broken[side][~left] = bad
        for found, wanted in zip(value_and_gradients(*broken), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.cases(1)
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_hidden_logits_that_are_not_finite_have_the_gradient_0(kind):
    """The logits behind an output are compared in its place."""
    p, q = DRAW.normal(size=(2, 2, 5)).astype("float32")
    q[1] = np.nan
    model, activation = compiled("a", loss=IGNORING), getattr(tf.nn, kind)

    @tf.function
    def gradient(q):
        with tf.GradientTape() as tape:
            tape.watch(q)
            value = between(
                model,
                *(activation(p), activation(q)),
                given=KL(from_logits=False, binary=kind == "sigmoid"),
                labels=tf.constant([0, -100]),
            )
        return value, tape.gradient(value, q)

    value, found = gradient(tf.constant(q))
    alone, expected = p[:1], q[:1]
    if kind == "softmax":
        wanted = kl(softmax(alone), softmax(expected))
        slope = softmax(expected) - softmax(alone)
    else:
        wanted = binary_kl(sigmoid(alone), sigmoid(expected))
        slope = (sigmoid(expected) - sigmoid(alone)) / 5
    np.testing.assert_allclose(value, wanted[0], rtol=1e-4)
    np.testing.assert_allclose(found, [slope[0], 0 * slope[0]], rtol=1e-4, atol=1e-6)
