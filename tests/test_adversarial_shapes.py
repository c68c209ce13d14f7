"""Batches of which nothing is known but the dtype, as behind `tf.py_function`.

Keras 3 refuses them in plain `fit` too.
"""

import adversarial_problems as problems
import numpy as np
import pytest
import tensorflow as tf
from adversarial_problems import FROM_LOGITS, assert_close, methods
from generation import IS_LEGACY
from tensorflow import keras
from variants import others_slow, slow

from tiedbert.adversarial import FGM, SMART, VAT, AdversarialTraining
from tiedbert.robustness import curve

if not IS_LEGACY:
    pytest.skip("Keras 3 takes no such batches", allow_module_level=True)

layers = keras.layers

METHODS = methods()
X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
TOKENS = np.array([[1, 2, 3, 4], [5, 6, 0, 0], [7, 8, 1, 0], [2, 2, 2, 2]])
LABELS = np.array([0, 1, 2, 0])


def unknown(*parts):
    """Batches of the parts, None and dicts among them, without a shape."""
    dtypes = [tf.as_dtype(part.dtype) for part in tf.nest.flatten(parts)]

    def forget(*parts):
        flat = tf.py_function(lambda *x: x, tf.nest.flatten(parts), dtypes)
        return tf.nest.pack_sequence_as(parts, flat)

    return tf.data.Dataset.from_tensor_slices(parts).batch(2).map(forget)


def known(*parts):
    return tf.data.Dataset.from_tensor_slices(parts).batch(2)


def assert_the_same(build, method, *parts, micro_batches=1, loss=FROM_LOGITS):
    found = []
    for data in known(*parts), unknown(*parts):
        keras.utils.set_random_seed(0)
        model = build()
        training = AdversarialTraining(
            model, method, "hidden", micro_batches=micro_batches
        )
        training.compile(keras.optimizers.SGD(0.1), loss, weighted_metrics=[])
        logs = training.fit(data, shuffle=False, verbose=0).history
        found.append((model.get_weights(), logs))
    (weights, logs), (others, other_logs) = found
    assert_close(others, weights)
    for name, values in logs.items():
        assert other_logs[name] == pytest.approx(values, rel=1e-5)


@pytest.mark.parametrize("name", others_slow(["FGM-0", "VAT-11", "YOPO-10"], METHODS))
@pytest.mark.parametrize("weights", [slow(False), True])
def test_every_method_takes_them(name, weights):
    parts = (X, LABELS, np.arange(4.0, dtype="float32")) if weights else (X, LABELS)
    assert_the_same(problems.network, METHODS[name], *parts)


@pytest.mark.parametrize("method", [slow(FGM(0.5)), VAT(0.5), slow(SMART(0.5))])
@pytest.mark.parametrize("shape", [slow((4, 1)), (4, 4)])
def test_weights_of_tokens_and_of_columns(method, shape):
    weights = np.random.default_rng(1).uniform(size=shape).astype("float32")
    build = lambda: problems.padded(per_token=True)  # noqa: E731
    assert_the_same(build, method, TOKENS, TOKENS % 3, weights)


@pytest.mark.parametrize("method", [FGM(0.5), slow(SMART(0.5))])
def test_micro_batches_of_them(method):
    assert_the_same(problems.network, method, X, LABELS, micro_batches=2)


def two_inputs(pack):
    one, two = keras.Input((3,), name="one"), keras.Input((None,), name="two")
    h = layers.Dense(4, name="hidden")(one)
    h = layers.Concatenate()([h, layers.Reshape((1,))(layers.Lambda(total)(two))])
    return problems.scrambled(keras.Model(pack(one, two), layers.Dense(3)(h)))


def total(x):
    return tf.reduce_sum(x, axis=1)


PACKS = {
    "by name": lambda one, two: [one, two],
    "by key": lambda one, two: {"b": one, "a": two},
    "in order": lambda one, two: [one, two],
}


@pytest.mark.parametrize("name", others_slow(["by key"], PACKS))
def test_several_inputs(name):
    two = np.arange(8, dtype="float32").reshape(4, 2) / 8
    given = {
        "by name": {"two": two, "one": X},
        "by key": {"a": two, "b": X},
        "in order": (X, two),
    }
    build = lambda: two_inputs(PACKS[name])  # noqa: E731
    assert_the_same(build, FGM(0.5), given[name], LABELS)


def test_a_curve_of_them():
    model = problems.network()
    model.compile(loss=FROM_LOGITS)
    radii = [0.0, 0.5, 2.0]
    found, expected = (
        curve(model, data(X, LABELS), "hidden", FGM(), radii)
        for data in (unknown, known)
    )
    assert found == expected
