"""A batch in micro-batches teaches what the whole batch does."""

import models
import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras
from variants import slow

from tiedbert.adversarial import (
    FGM,
    PGD,
    SMART,
    AdversarialTraining,
    FreeAT,
    FreeLB,
    GradientPenalty,
    RDrop,
)
from tiedbert.adversarial.micro_batches import gradients_in_micro_batches
from tiedbert.errors import InputError

layers = keras.layers
TOKENS = np.array(
    [[2, 7, 5, 3], [2, 8, 3, 0], [2, 6, 6, 3], [2, 4, 3, 0], [2, 5, 8, 3]]
)
LABELS = np.array([0, 2, 1, 1, 0])
EACH = np.array([1.0, 0.5, 2.0, 0.0, 3.0], np.float32)
FROM_LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# None of them draws anything.
METHODS = [
    FGM(0.5),
    slow(FGM(0.5, clean=False)),
    PGD(0.5, steps=3),
    slow(FreeLB(0.5, random_start=False)),
    GradientPenalty(),
    slow(SMART(0.0, proximal=1.0)),
    slow(RDrop()),
]


def classifier():
    """Padding, a penalty on weights, and a weight that no gradient reaches."""
    keras.utils.set_random_seed(0)
    tokens = keras.Input((None,), dtype="int32")
    h = layers.Embedding(9, 4, mask_zero=True)(tokens)
    h = layers.Dense(4, "tanh", kernel_regularizer="l2", name="hidden")(h)
    h = models.Plain()(layers.GlobalAveragePooling1D()(h))
    return keras.Model(tokens, layers.Dense(3)(h))


def trained(method, micro_batches, rows=5, batch_size=5, **options):
    """Weights and logs of two epochs; momentum makes all of their steps count."""
    model = classifier()
    training = AdversarialTraining(model, method, "hidden", micro_batches=micro_batches)
    optimizer = keras.optimizers.SGD(0.5, momentum=0.9)
    # To trace a step takes longer than to run a few of these.
    options = options or {"run_eagerly": True}
    training.compile(optimizer, FROM_LOGITS, metrics=["accuracy"], **options)
    given = {"batch_size": batch_size, "epochs": 2, "shuffle": False, "verbose": 0}
    weights = EACH[:rows]
    fitted = training.fit(TOKENS[:rows], LABELS[:rows], sample_weight=weights, **given)
    return model.get_weights(), fitted.history


def assert_alike(given, found):
    for old, new in zip(given[0], found[0], strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-5)
    assert set(found[1]) == set(given[1])
    for name, values in given[1].items():
        np.testing.assert_allclose(found[1][name], values, rtol=1e-4, atol=1e-5)


@pytest.mark.cases(1)
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_micro_batches_train_as_the_batch_does(method):
    """Also a smaller last batch, and more micro-batches than it has rows."""
    assert_alike(trained(method, 1, batch_size=4), trained(method, 3, batch_size=4))


@pytest.mark.slow
def test_micro_batches_run_in_a_graph():
    assert_alike(trained(FGM(0.5), 1), trained(FGM(0.5), 3, jit_compile=False))


@pytest.mark.slow
def test_micro_batches_on_two_devices(mirrored):
    given = trained(FGM(0.5), 1, rows=4, batch_size=4)
    with mirrored.scope():
        found = trained(FGM(0.5), 2, rows=4, batch_size=4, jit_compile=False)
    assert_alike(given, found)


def test_micro_batches_run_one_after_another_and_each_row_once():
    seen = []

    def gradients(micro_batch):
        rows, nothing = micro_batch
        assert nothing is None
        seen.append(rows[:, 0].numpy().tolist())
        return [tf.reduce_mean(rows, axis=0), None], "value"

    rows = tf.constant([[float(i)] for i in range(7)])
    weights = [tf.Variable([0.0]), tf.Variable([0.0])]
    found, value = gradients_in_micro_batches(gradients, (rows, None), 3, weights)
    assert value == "value"
    assert seen == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0, 6.0]]
    np.testing.assert_allclose(found[0], [3.0], rtol=1e-6)
    assert found[1] is None


@pytest.mark.parametrize("micro_batches", [0, -1, 2.0, "2", None])
def test_the_number_of_micro_batches_is_a_whole_one(micro_batches):
    with pytest.raises(
        InputError, match="micro_batches: a whole number >= 1; received"
    ):
        AdversarialTraining(classifier(), FGM(), "hidden", micro_batches=micro_batches)


def test_a_sum_has_no_micro_batches():
    loss = keras.losses.SparseCategoricalCrossentropy(reduction="sum")
    training = AdversarialTraining(classifier(), FGM(), "hidden", micro_batches=2)
    for given in (loss, [loss]):
        with pytest.raises(
            InputError, match="micro_batches=2 needs a loss that is a mean"
        ):
            training.compile("sgd", given)


def test_free_adversarial_training_has_no_micro_batches():
    with pytest.raises(InputError, match="FreeAT steps within a batch"):
        AdversarialTraining(classifier(), FreeAT(), "hidden", micro_batches=2)
