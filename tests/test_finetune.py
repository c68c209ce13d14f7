"""The fit of `tiedbert finetune`, with a small model in the place of a BERT."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from tiedbert.adversarial import FGM, SMART, AdversarialTraining
from tiedbert.jobs import finetune

EPOCHS = 2
OPTIONS = SimpleNamespace(learning_rate=0.1, epochs=EPOCHS, patience=None)
X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(12, 2)


class Batches(keras.utils.Sequence):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        rows = X[4 * i : 4 * (i + 1)]
        return rows, (rows[:, 0] > 0).astype("int32")


def small_model(seed):
    keras.utils.set_random_seed(seed)
    x = keras.Input((2,))
    hidden = keras.layers.Dense(4, activation="tanh", name="hidden")(x)
    return keras.Model(x, keras.layers.Dense(2)(hidden))


def fitted(folder, method, seed):
    """The training after what `fit` does in a run folder, new or not."""
    model = small_model(seed)
    training = AdversarialTraining(model, method, "hidden")
    data = Batches(), Batches()
    finetune.fit(model, training, data, OPTIONS, folder, lambda: None)
    return training


def saved_names(folder):
    newest = tf.train.latest_checkpoint(str(folder / "checkpoints"))
    return {name.partition("/")[0] for name, _ in tf.train.list_variables(newest)}


def test_a_resumed_run_has_the_averaged_weights(tmp_path):
    method = SMART(proximal=1.0, momentum=0.5)
    first = fitted(tmp_path, method, seed=0)
    pairs = zip(first.average.get_weights(), first.model.get_weights(), strict=True)
    assert all(np.any(average != weight) for average, weight in pairs)
    # All epochs are done: what it has is what was saved.
    resumed = fitted(tmp_path, method, seed=1)
    for name in "average", "model":
        ours, saved = (getattr(run, name).get_weights() for run in (resumed, first))
        for restored, value in zip(ours, saved, strict=True):
            np.testing.assert_array_equal(restored, value)


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("method", "has_average"), [(SMART(proximal=1.0), True), (SMART(), False)]
)
def test_a_checkpoint_holds_an_average_if_there_is_one(tmp_path, method, has_average):
    assert (fitted(tmp_path, method, seed=0).average is not None) == has_average
    assert ("average" in saved_names(tmp_path)) == has_average


def test_without_a_wrapper_there_is_no_average():
    model = small_model(0)
    assert finetune.averages(model, model) == {}
    assert finetune.averages(model, AdversarialTraining(model, FGM(), "hidden")) == {}
