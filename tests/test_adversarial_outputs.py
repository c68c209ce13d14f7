"""Methods that compare outputs: certain probabilities, tokens without a label."""

import collections

import adversarial_problems as problems
import numpy as np
import pytest
import tensorflow as tf
from adversarial_problems import assert_close
from generation import IS_LEGACY
from tensorflow import keras
from variants import others_slow

from tiedbert.adversarial import (
    ALUM,
    FGM,
    KL,
    R3F,
    SMART,
    VAT,
    AdversarialTraining,
    GradientPenalty,
    RDrop,
)

layers = keras.layers

COMPARING = {
    "VAT": VAT(0.3, xi=0.01),
    "VAT-2": VAT(0.3, steps=2, norm="linf"),
    "SMART": SMART(0.3, proximal=1.0, norm="l2"),
    "ALUM": ALUM(0.3, norm="l2"),
    "R3F": R3F(0.3),
    "RDrop": RDrop(),
}

# Certain outputs: beside one class the others are lost to rounding.

X = np.array([[1, 0], [0.6, 0], [0, 0.8], [-0.5, 0]], "float32")
KERNEL = np.array([[20.0, -20, 5], [-20, 20, 3]], "float32")


def certain(head, kernel):
    inputs = keras.Input((2,))
    h = layers.Dropout(0.2)(layers.Activation("linear", name="hidden")(inputs))
    logits = layers.Dense(kernel.shape[1], use_bias=False)
    model = keras.Model(inputs, head(logits(h)))
    model.set_weights([kernel])
    return model


def weights_and_logs(head, method, loss, kernel=KERNEL, **options):
    keras.utils.set_random_seed(1)
    model = certain(head, kernel)
    y = np.eye(3)[[0, 1, 1, 0]][:, : kernel.shape[1]]
    training = AdversarialTraining(model, method, "hidden")
    options = {"run_eagerly": True, **options}
    training.compile(keras.optimizers.SGD(0.1), loss, **options)
    history = training.fit(X, y, shuffle=False, verbose=0).history
    return model.get_weights(), {name: value[0] for name, value in history.items()}


CATEGORIES = keras.losses.CategoricalCrossentropy
EVENTS = keras.losses.BinaryCrossentropy
HEADS = {
    "Activation": (layers.Activation("softmax"), CATEGORIES),
    "Softmax": (layers.Softmax(), CATEGORIES),
    "tf.nn.softmax": (layers.Activation(tf.nn.softmax), CATEGORIES),
    "sigmoid": (layers.Activation("sigmoid"), EVENTS),
    "tf.sigmoid": (layers.Activation(tf.sigmoid), EVENTS),
}


@pytest.mark.cases(1)
@pytest.mark.both_kerases
@pytest.mark.parametrize("head", others_slow(["Activation", "sigmoid"], HEADS))
@pytest.mark.parametrize("name", others_slow(["VAT", "SMART"], COMPARING))
def test_certain_probabilities_are_compared_by_their_logits(name, head):
    layer, loss = HEADS[head]
    method = COMPARING[name]
    if head.startswith("tf.") and name == "SMART":
        method = SMART(0.3)  # no function of TensorFlow's can be copied by its name
    logits, wanted = weights_and_logs(lambda x: x, method, loss(from_logits=True))
    found, logs = weights_and_logs(layer, method, loss())
    if head.startswith(
        "tf."
    ):  # whose logits Keras' own loss does not know across parts
        logs = {
            k: v for k, v in logs.items() if k in ("adversarial_loss", "delta_norm")
        }
        wanted = {k: wanted[k] for k in logs}
    else:
        assert_close(found, logits, rtol=1e-4)
    assert wanted["adversarial_loss"] > 0
    assert logs == pytest.approx(wanted, rel=1e-4)


@pytest.mark.slow
@pytest.mark.cases(1)
@pytest.mark.parametrize("eagerly", [False, True])
def test_events_that_are_categories_too_are_compared_as_what_they_are(eagerly):
    """A given measure says what it looks at: these probabilities, each by itself."""
    method = R3F(0.3, divergence=KL(from_logits=False, binary=True))
    head, loss = layers.Activation("softmax"), CATEGORIES()
    kernel = KERNEL[:, :2] / 40
    _, logs = weights_and_logs(head, method, loss, kernel, run_eagerly=eagerly)
    # Of two categories each is an event, and the other is its opposite.
    same = R3F(0.3, divergence=KL(from_logits=False))
    _, expected = weights_and_logs(head, same, loss, kernel, run_eagerly=eagerly)
    assert logs["adversarial_loss"] == pytest.approx(expected["adversarial_loss"], 1e-5)


@pytest.mark.slow
def test_probabilities_without_logits_are_clipped_as_those_of_a_loss():
    """A documented limit: two saturated means of softmaxes have no divergence."""

    def head(logits):
        return layers.Average()([layers.Softmax()(logits), layers.Softmax()(logits)])

    _, logs = weights_and_logs(head, ALUM(0.01), CATEGORIES(), run_eagerly=False)
    assert abs(logs["adversarial_loss"]) < 1e-6
    _, logs = weights_and_logs(head, ALUM(0.01), CATEGORIES(), KERNEL / 20)
    _, wanted = weights_and_logs(
        lambda x: x, ALUM(0.01), CATEGORIES(from_logits=True), KERNEL / 20
    )
    assert logs["adversarial_loss"] == pytest.approx(wanted["adversarial_loss"], 1e-2)


# Tokens without a label

IGNORED = -100
Y = np.array([[0, 1, IGNORED, IGNORED], [2, IGNORED, IGNORED, IGNORED]])
TOKENS = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
IGNORING = keras.losses.SparseCategoricalCrossentropy(
    from_logits=True, ignore_class=IGNORED
)


def tagger():
    ids = keras.Input((4,), dtype="int32")
    h = layers.Embedding(9, 3, name="hidden")(ids)
    h = layers.Dropout(0.0)(layers.Activation("tanh")(h))
    return problems.scrambled(keras.Model(ids, layers.Dense(3)(h)))


def logs_of(method, tokens, labels, model=tagger):
    keras.utils.set_random_seed(1)
    model = model()
    training = AdversarialTraining(model, method, "hidden")
    training.compile(keras.optimizers.SGD(0.1), IGNORING, run_eagerly=True)
    history = training.fit(tokens, labels, shuffle=False, verbose=0).history
    return {name: value[0] for name, value in history.items()}, model.get_weights()


LABELLED = {**COMPARING, "GradientPenalty": GradientPenalty(), "FGM": FGM(0.5)}
NOT_VAT = [name for name in LABELLED if not name.startswith("VAT")]


@pytest.mark.cases(1)
@pytest.mark.parametrize("name", others_slow(["SMART", "GradientPenalty"], NOT_VAT))
def test_what_stands_at_a_token_without_a_label_does_not_matter(name, monkeypatch):
    problems.fix_noise(monkeypatch)
    others = np.array([[1, 2, 8, 7], [5, 1, 2, 3]])
    method = LABELLED[name]
    if name in ("SMART", "ALUM", "FGM"):  # a ball of each token: others may move too
        method = type(method)(**{**vars(method), "norm": "l2_per_token"})
    (found, weights), (expected, wanted) = (
        logs_of(method, tokens, Y) for tokens in (others, TOKENS)
    )
    assert found == pytest.approx(expected, rel=1e-4)
    assert_close(weights, wanted)


@pytest.mark.cases(1)
@pytest.mark.parametrize("name", others_slow(["SMART", "GradientPenalty"], NOT_VAT))
def test_a_text_without_a_label_does_not_count(name, monkeypatch):
    problems.fix_noise(monkeypatch)
    tokens = np.concatenate([TOKENS, [[1, 1, 1, 1], [3, 4, 5, 6]]])
    labels = np.concatenate([Y, np.full((2, 4), IGNORED)])
    (found, weights), (expected, wanted) = (
        logs_of(LABELLED[name], *data) for data in ((tokens, labels), (TOKENS, Y))
    )
    del found["delta_norm"], expected["delta_norm"]  # of all examples
    assert found == pytest.approx(expected, rel=1e-4)
    assert_close(weights, wanted)


def test_vat_learns_from_tokens_without_a_label():
    """As it does not look at labels: all that has none might as well have one."""
    found, expected = (
        logs_of(VAT(0.5), TOKENS, labels)[0] for labels in (Y, np.abs(Y) % 3)
    )
    assert found["clean_loss"] != pytest.approx(expected["clean_loss"], rel=1e-2)
    names = "adversarial_loss", "delta_norm"
    assert [found[n] for n in names] == pytest.approx([expected[n] for n in names])


def test_a_text_that_the_mask_hides_has_no_part_in_the_penalty():
    def model():
        ids = keras.Input((None,), dtype="int32")
        h = layers.Embedding(9, 3, mask_zero=True, name="hidden")(ids)
        return problems.scrambled(keras.Model(ids, layers.Dense(3)(h)))

    labels = np.abs(Y) % 3
    padded = np.concatenate([TOKENS, np.zeros((3, 4), int)])
    more = np.concatenate([labels, np.zeros((3, 4), int)])
    (found, weights), (expected, wanted) = (
        logs_of(GradientPenalty(), *data, model)
        for data in ((padded, more), (TOKENS, labels))
    )
    assert found == pytest.approx(expected, rel=1e-5)
    assert_close(weights, wanted)


@pytest.mark.both_kerases
def test_outputs_in_an_ordered_dict_keep_their_losses():
    """Keras 3 keeps the order of the keys; Keras 2 and `tf.nest` sort them."""

    def trained(structure, losses, labels):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((2,))
        h = layers.Activation("linear", name="hidden")(inputs)
        z = layers.Dense(3, activation="softmax", name="z")(h)
        y = layers.Dense(1, name="y")(h)
        model = keras.Model(inputs, structure(z, y))
        training = AdversarialTraining(model, VAT(0.3), "hidden")
        training.compile(keras.optimizers.SGD(0.1), losses, run_eagerly=True)
        training.fit(X, labels, shuffle=False, verbose=0)
        return [w for name in "yz" for w in model.get_layer(name).get_weights()]

    ordered = collections.OrderedDict
    classes, values = np.eye(3)[[0, 1, 2, 0]], np.ones([4, 1])
    losses = [CATEGORIES(), keras.losses.MeanSquaredError()]
    expected = trained(lambda z, y: [z, y], losses, [classes, values])
    found = trained(
        lambda z, y: ordered(z=z, y=y),
        losses[::-1] if IS_LEGACY else losses,
        ordered(z=classes, y=values),
    )
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other)
