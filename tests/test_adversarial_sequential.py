"""A Sequential is trained and attacked as the functional model of its layers."""

import adversarial_problems as problems
import numpy as np
import pytest
import tensorflow as tf
from adversarial_problems import FROM_LOGITS, assert_close, methods
from generation import IS_LEGACY
from tensorflow import keras
from variants import others_slow

from tiedbert.adversarial import FGM, AdversarialTraining, OneOf
from tiedbert.errors import InputError
from tiedbert.robustness import correct_under_attack

layers = keras.layers

DRAW = np.random.default_rng(0)
TOKENS = DRAW.integers(1, 9, (6, 4)).astype("int32")
LABELS = DRAW.integers(0, 3, 6)


def first_layers():
    return [layers.Embedding(9, 3, name="hidden"), layers.Dense(4, name="block")]


def last_layers():
    return [layers.GlobalAveragePooling1D(), layers.Dense(3)]


def with_input():
    inputs = keras.Input((4,), dtype="int32")
    return keras.Sequential([inputs, *first_layers(), *last_layers()])


def called():
    """Without an Input; Keras 3 takes the size of that batch for that of all."""
    model = keras.Sequential([*first_layers(), *last_layers()])
    model(TOKENS[:2])
    return model


def built():
    model = keras.Sequential([*first_layers(), *last_layers()])
    model.build((None, 4))
    return model


def fitted():
    model = keras.Sequential([*first_layers(), *last_layers()])
    model.compile(keras.optimizers.SGD(0.0), FROM_LOGITS, run_eagerly=True)
    model.fit(TOKENS, LABELS, verbose=0)
    return model


def nested():
    inner = keras.Sequential(first_layers(), name="inner")
    model = keras.Sequential([inner, keras.Sequential(last_layers())])
    model(TOKENS)
    return model


def in_a_functional_model():
    inputs = keras.Input((4,), dtype="int32")
    inner = keras.Sequential(first_layers(), name="inner")
    return keras.Model(inputs, keras.Sequential(last_layers())(inner(inputs)))


KINDS = [with_input, called, built, fitted, nested, in_a_functional_model]


def functional():
    inputs = keras.Input((4,), dtype="int32")
    h = inputs
    for layer in [*first_layers(), *last_layers()]:
        h = layer(h)
    return problems.scrambled(keras.Model(inputs, h))


def sequential(kind):
    model = kind()
    at = "inner/hidden" if kind in (nested, in_a_functional_model) else "hidden"
    return problems.scrambled(model), at


@pytest.mark.cases(2)
@pytest.mark.both_kerases
@pytest.mark.parametrize("kind", others_slow([called, nested], KINDS))
@pytest.mark.parametrize("name", others_slow(["FGM-0", "SMART-13"], methods()))
def test_a_step_is_that_of_the_functional_model(kind, name, monkeypatch):
    problems.fix_noise(monkeypatch)
    (model, at), whole = sequential(kind), functional()
    method = methods()[name]
    block = at.replace("hidden", "block")
    if name.startswith("YOPO"):
        method = type(method)(**{**vars(method), "until": block})
    found = problems.trained(
        model, method, TOKENS, LABELS, at, 0.1, loss=FROM_LOGITS, metrics=["accuracy"]
    )
    expected = problems.trained(
        whole,
        methods()[name],
        TOKENS,
        LABELS,
        learning_rate=0.1,
        loss=FROM_LOGITS,
        metrics=["accuracy"],
    )
    assert found == pytest.approx(expected, rel=1e-5)
    assert_close(model.get_weights(), whole.get_weights())


@pytest.mark.parametrize("at", [["hidden", "block"], OneOf("hidden", "block")])
def test_several_points_of_a_sequential(at):
    model, _ = sequential(called)
    logs = problems.trained(model, FGM(0.5), TOKENS, LABELS, at, loss=FROM_LOGITS)
    assert logs["delta_norm"] == pytest.approx(0.5, rel=1e-5)


@pytest.mark.both_kerases
def test_fit_trains_a_sequential_in_place_and_saves_it(tmp_path):
    model, at = sequential(nested)
    training = AdversarialTraining(model, FGM(0.5), at)
    training.compile(keras.optimizers.SGD(0.1), FROM_LOGITS, run_eagerly=True)
    before = model.predict(TOKENS, verbose=0)
    training.fit(TOKENS, LABELS, batch_size=4, verbose=0)
    trained = model.predict(TOKENS, verbose=0)
    assert not np.allclose(before, trained)
    np.testing.assert_array_equal(training.predict(TOKENS, verbose=0), trained)
    training.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, keras.Sequential)
    np.testing.assert_array_equal(loaded.predict(TOKENS, verbose=0), trained)


@pytest.mark.cases(1)
@pytest.mark.parametrize("kind", others_slow([called, nested], KINDS))
def test_an_attack_finds_what_it_finds_in_the_functional_model(kind):
    (model, at), whole = sequential(kind), functional()
    radii = [0.0, 0.2, 1.0, 5.0]
    data = tf.data.Dataset.from_tensor_slices((TOKENS, LABELS)).batch(4)
    for each in model, whole:
        each.compile(loss=FROM_LOGITS)
    found = correct_under_attack(model, data, at, FGM(), radii)
    expected = correct_under_attack(whole, data, "hidden", FGM(), radii)
    np.testing.assert_array_equal(found, expected)
    assert expected[0].any()
    assert not expected[-1].all()


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.last = layers.Dense(3, name="hidden"), layers.Dense(3)

    def call(self, inputs):
        return self.last(self.hidden(inputs))


class OwnCall(keras.Sequential):
    def call(self, inputs, training=None, mask=None):
        return -super().call(inputs, training=training, mask=mask)


def dense():
    return [layers.Dense(3, name="hidden"), layers.Dense(3)]


REFUSED = {
    "subclassed": (Subclassed, r"functional model.*keras\.Input"),
    "a Sequential that is not built": (
        lambda: keras.Sequential(dense()),
        "functional model.*not built; call it once, or give it an Input",
    ),
    "a Sequential with a call of its own": (
        lambda: OwnCall([keras.Input((3,)), *dense()]),
        r"functional model.*its class OwnCall overrides `call`",
    ),
}


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_graph_is_refused_in_words(name, called):
    build, message = REFUSED[name]
    model = build()
    if called and "not built" not in name:
        model(np.ones([2, 3], "float32"))
    with pytest.raises(InputError, match=message):
        AdversarialTraining(model, FGM(0.5), at="hidden")
    model.compile(loss=FROM_LOGITS)
    data = tf.data.Dataset.from_tensor_slices((np.ones([4, 3]), LABELS[:4])).batch(2)
    with pytest.raises(InputError, match=message):
        correct_under_attack(model, data, "hidden", FGM(), [1.0])


@pytest.mark.skipif(IS_LEGACY, reason="Keras 2 builds a Sequential with each layer")
def test_a_sequential_that_was_changed_is_cut_as_it_is_now():
    model, _ = sequential(with_input)
    model.pop()
    model.add(layers.Dense(3))
    whole = functional()
    whole.set_weights(model.get_weights())
    for each in model, whole:
        problems.trained(
            each, FGM(0.5), TOKENS, LABELS, learning_rate=0.1, loss=FROM_LOGITS
        )
    assert_close(model.get_weights(), whole.get_weights())
