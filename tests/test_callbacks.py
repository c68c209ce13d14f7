"""What training writes into a run directory, and how it goes on from there."""

import os

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError
from tiedbert.jobs.callbacks import (
    BestEpoch,
    MetricsLog,
    StepTime,
    StopAfter,
    TrainingState,
)
from tiedbert.jobs.optimization import adamw
from tiedbert.jobs.runs import read_metrics

X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(12, 2)
Y = X[:, :1] ** 2 - X[:, 1:]
STEPS = 3  # an epoch


def small_model(seed=0):
    keras.utils.set_random_seed(seed)
    x = keras.Input((2,))
    h = keras.layers.Dense(4, activation="tanh")(x)
    model = keras.Model(x, keras.layers.Dense(1)(h))
    model.compile(adamw(1e-2, 4 * STEPS), "mse", run_eagerly=True)
    return model


def fit(model, *callbacks, epochs, done=0):
    return model.fit(
        X, Y, batch_size=4, shuffle=False, verbose=0,
        initial_epoch=done, epochs=epochs, callbacks=list(callbacks),
    ).history  # fmt: skip


def values_of(model):
    """Weights and everything the optimizer keeps."""
    kept = [np.asarray(value) for value in model.optimizer.variables]
    return model.get_weights() + kept


def assert_same_values(first, second):
    for a, b in zip(values_of(first), values_of(second), strict=True):
        np.testing.assert_array_equal(a, b)


def scalars(folder):
    """(tag, step) -> (value, plugin) in the TensorBoard files of a run."""
    return {
        (value.tag, event.step): (
            float(tf.make_ndarray(value.tensor)),
            value.metadata.plugin_data.plugin_name,
        )
        for path in (folder / "events").iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    }


def test_each_epoch_is_a_line_of_metrics(tmp_path):
    losses = fit(small_model(), MetricsLog(tmp_path), epochs=3)["loss"]
    lines = read_metrics(tmp_path)
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert [line["step"] for line in lines] == [3, 6, 9]
    assert [line["loss"] for line in lines] == losses
    seconds = [line["seconds"] for line in lines]
    assert 0 < seconds[0] <= seconds[1] <= seconds[2]


@pytest.mark.slow
def test_tensorboard_gets_the_same_numbers(tmp_path):
    losses = fit(small_model(), MetricsLog(tmp_path), epochs=2)["loss"]
    assert scalars(tmp_path) == {
        ("loss", 3): (np.float32(losses[0]), "scalars"),
        ("loss", 6): (np.float32(losses[1]), "scalars"),
    }


def resumed(folder, seed=1):
    """A model from another start, and its state restored from `folder`."""
    model = small_model(seed)
    state = TrainingState(folder, model, model.optimizer)
    return model, state, state.restore()


def test_nothing_saved_is_no_epoch_done(tmp_path):
    model, _, done = resumed(tmp_path, seed=0)
    assert done == 0
    for ours, fresh in zip(
        model.get_weights(), small_model().get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, fresh)


@pytest.mark.both_kerases
def test_weights_and_optimizer_come_back_before_the_first_step(tmp_path):
    model = small_model()
    fit(model, TrainingState(tmp_path, model, model.optimizer), epochs=2)
    again, _, done = resumed(tmp_path)
    assert done == 2
    assert int(again.optimizer.iterations.numpy()) == 2 * STEPS
    assert max(np.abs(value).max() for value in values_of(again)[4:]) > 0
    assert_same_values(again, model)


@pytest.mark.slow
def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path):
    whole = small_model()
    fit(whole, epochs=4)
    model = small_model()
    fit(model, TrainingState(tmp_path, model, model.optimizer), epochs=2)
    for end in (3, 4):  # interrupted twice
        model, state, done = resumed(tmp_path)
        fit(model, state, done=done, epochs=end)
    assert_same_values(model, whole)


@pytest.mark.slow
def test_the_optimizer_may_be_that_of_a_model_around_it(tmp_path):
    """As in adversarial training, where the model itself is not compiled."""

    def wrapped():
        inner = small_model()
        inner = keras.Model(inner.inputs, inner.outputs)
        outer = keras.Model(inner.inputs, inner(inner.inputs))
        outer.compile(adamw(1e-2, 4 * STEPS), "mse", run_eagerly=True)
        return outer, TrainingState(tmp_path, inner, outer.optimizer)

    outer, state = wrapped()
    fit(outer, state, epochs=2)
    again, state = wrapped()
    assert state.restore() == 2
    assert_same_values(again, outer)


def test_what_is_kept_with_a_state_is_restored_with_it(tmp_path):
    """As the moving average of weights is."""
    model, kept = small_model(), tf.Variable([1.0, 2.0])
    fit(model, TrainingState(tmp_path, model, model.optimizer, variable=kept), epochs=1)
    model, again = small_model(), tf.Variable([0.0, 0.0])
    assert (
        TrainingState(tmp_path, model, model.optimizer, variable=again).restore() == 1
    )
    assert again.numpy().tolist() == [1.0, 2.0]


def test_a_state_of_the_other_keras_is_refused(tmp_path, monkeypatch):
    _, state, _ = resumed(tmp_path)
    state.on_epoch_end(0)
    other = 5 - _keras.GENERATION
    monkeypatch.setattr(_keras, "GENERATION", other)
    with pytest.raises(
        InputError, match=f"cannot be resumed under Keras {other}: start"
    ):
        resumed(tmp_path)


def test_only_the_newest_state_is_kept(tmp_path):
    model = small_model()
    fit(model, TrainingState(tmp_path, model, model.optimizer), epochs=3)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == [
        "checkpoint",
        "ckpt-3.data-00000-of-00001",
        "ckpt-3.index",
    ]


@pytest.mark.cases(1)
@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
@pytest.mark.parametrize("size", [0, 100])
def test_a_state_cut_short_is_refused(tmp_path, suffix, size):
    model = small_model()
    fit(model, TrainingState(tmp_path, model, model.optimizer), epochs=1)
    os.truncate(tmp_path / "checkpoints" / f"ckpt-1{suffix}", size)
    with pytest.raises(InputError, match="checkpoints cannot be read: "):
        resumed(tmp_path)


def test_a_state_that_cannot_be_written_is_an_os_error(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    model = small_model()
    state = TrainingState(tmp_path, model, model.optimizer)
    with pytest.raises(OSError, match="checkpoints cannot be written: .*directory"):
        fit(model, state, epochs=1)


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("earlier", "saved"), [([], [0.5, 0.7]), ([0.6], [0.7]), ([0.7], []), ([0.9], [])]
)
def test_the_best_epoch_is_saved(earlier, saved):
    calls = []
    best = BestEpoch(lambda: calls.append(best.best), "accuracy", earlier)
    for epoch, accuracy in enumerate([0.5, 0.5, 0.7, 0.6]):
        best.on_epoch_end(epoch, {"accuracy": accuracy})
    assert calls == saved
    assert best.best == max(0.7, *earlier, 0)


@pytest.mark.slow
@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("earlier", "epochs"), [([], 5), ([0.9], 3), ([0.9, 0.1, 0.1], 1)]
)
def test_patience_ends_the_training(earlier, epochs):
    """After three epochs without a better one, those before a resume among them."""

    class Given(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs):
            logs["accuracy"] = [0.2, 0.3, 0.3, 0.1, 0.3, 0.8][epoch]

    best = BestEpoch(lambda: None, "accuracy", earlier, patience=3)
    assert not best.done
    history = fit(small_model(), Given(), best, epochs=6)
    assert len(history["loss"]) == epochs
    assert best.done


def test_the_time_of_a_step_is_among_the_metrics(tmp_path):
    fit(small_model(), StepTime(), MetricsLog(tmp_path), epochs=2)
    first, second = read_metrics(tmp_path)
    assert 0 < second["step_seconds"] < second["seconds"]
    assert first["step_seconds"] < first["seconds"]


@pytest.mark.cases(1)
@pytest.mark.parametrize(("steps", "epochs"), [(1, 1), (3, 1), (4, 2), (6, 2)])
def test_training_stops_after_so_many_steps(tmp_path, steps, epochs):
    model = small_model()
    fit(model, StopAfter(steps), MetricsLog(tmp_path), epochs=epochs)
    assert int(model.optimizer.iterations.numpy()) == steps
    assert read_metrics(tmp_path)[-1]["step"] == steps
    assert len(read_metrics(tmp_path)) == epochs


def test_a_loss_that_is_no_number_ends_the_training(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.array([[np.nan]])
    with pytest.raises(InputError, match="diverged; lower the learning rate"):
        model.fit(x, x, callbacks=[MetricsLog(tmp_path)], verbose=0)
    assert read_metrics(tmp_path) == []
