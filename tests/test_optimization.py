"""The rate at every part of its way, and which weights decay."""

import contextlib
import functools

import numpy as np
import pytest
import tensorflow as tf
from generation import IS_LEGACY
from tensorflow import keras

from tiedbert import _keras
from tiedbert.jobs.optimization import adamw
from tiedbert.layers import EmbeddingDense

layers = keras.layers


def rates(optimizer, steps):
    """The learning rate at each of `steps`."""
    schedule = optimizer._learning_rate
    return [float(schedule(tf.constant(step, tf.int64))) for step in steps]


def test_the_rate_rises_to_its_peak_and_falls_to_zero():
    optimizer = adamw(0.4, total_steps=100, warmup=0.2)
    found = rates(optimizer, [0, 5, 10, 20, 60, 100])
    # Half of the warm-up: half of the peak; half of the cosine: half of the peak.
    assert found == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.2, 0.0], abs=1e-6)


def test_the_rate_stays_at_zero_after_the_last_step():
    assert rates(adamw(0.4, total_steps=10), [10, 11, 50]) == pytest.approx([0.0] * 3)


@pytest.mark.parametrize("total_steps", [1, 2, 5])
def test_short_trainings_have_a_rate_too(total_steps):
    found = rates(adamw(0.4, total_steps), range(total_steps + 1))
    assert np.all(np.isfinite(found))
    assert max(found) == pytest.approx(0.4)


def every_kind_of_weight():
    """Names of layers that look like names of weights, besides."""
    ids = keras.Input((2,), dtype="int32")
    table = layers.Embedding(4, 3, name="beta_embedding")
    h = layers.Dense(3, name="debiased")(table(ids))
    h = layers.LayerNormalization(name="norm")(h)
    h = layers.MultiHeadAttention(1, 2, name="gamma_attention")(h, h)
    return keras.Model(ids, EmbeddingDense(table, name="MLM-Bias")(h))


def test_matrices_decay_and_nothing_else():
    """A gradient of zero at rate 1: a weight that decays by a half is halved."""
    optimizer = adamw(1.0, total_steps=10, weight_decay=0.5)
    variables = every_kind_of_weight().trainable_variables
    optimizer.build(variables)
    optimizer.iterations.assign(1)  # the end of the warm-up
    for variable in variables:
        variable.assign(tf.ones(variable.shape))
    zeros = [tf.zeros(variable.shape) for variable in variables]
    optimizer.apply_gradients(zip(zeros, variables, strict=True))
    for variable in variables:
        kind = variable.name.split("/")[-1].split(":")[0]
        expected = 1.0 if kind in ("bias", "beta", "gamma") else 0.5
        assert np.all(variable.numpy() == expected), variable.name


def test_a_decay_of_zero_decays_nothing():
    optimizer = adamw(1.0, total_steps=10, weight_decay=0.0)
    variable = tf.Variable([[1.0]], name="kernel")
    optimizer.build([variable])
    optimizer.iterations.assign(1)
    optimizer.apply_gradients([(tf.zeros([1, 1]), variable)])
    assert variable.numpy() == 1.0


def test_gradients_are_clipped_by_their_common_norm():
    assert adamw(1.0, total_steps=10, clip_norm=0.25).global_clipnorm == 0.25


@pytest.mark.parametrize("run", ["eager", "graph", "xla", "mirrored"])
def test_a_step_is_that_of_keras(run, mirrored):
    """Dense and sparse gradients, clipping and decay, for several steps."""
    if IS_LEGACY:
        pytest.skip("there it is Keras' own")
    draw = np.random.default_rng(0)
    values = [draw.normal(size=shape).astype("float32") for shape in [(5, 3), (3,)]]
    rows = [draw.normal(size=(2, 3)).astype("float32") for _ in range(4)]
    options = {"weight_decay": 0.1, "global_clipnorm": 1.0, "epsilon": 1e-6}
    found = []
    for kind in (_keras.AdamW, keras.optimizers.AdamW):
        with mirrored.scope() if run == "mirrored" else contextlib.nullcontext():
            variables = [keras.Variable(value) for value in values]
            optimizer = kind(0.1, **options)
            optimizer.build(variables)

        step = step_of(optimizer, variables, sparse=run != "xla")
        if run == "mirrored":
            step = tf.function(functools.partial(mirrored.run, step))
        elif run != "eager":
            step = tf.function(step, jit_compile=run == "xla")
        for row in rows:
            step((tf.constant(row),) if run == "mirrored" else tf.constant(row))
        found.append([v.numpy() for v in [*variables, *optimizer.variables]])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=5e-5, atol=5e-6)


def step_of(optimizer, variables, sparse):
    def step(row):
        gradient = tf.IndexedSlices(row, tf.constant([1, 4]), tf.constant([5, 3]))
        gradient = gradient if sparse else tf.convert_to_tensor(gradient)
        optimizer.apply_gradients(zip([gradient, row[0]], variables, strict=True))

    return step


def test_the_optimizer_is_saved_with_its_class():
    if IS_LEGACY:
        pytest.skip("there it is Keras' own")
    config = keras.optimizers.serialize(adamw(0.1, 10))
    again = keras.optimizers.deserialize(config)
    assert type(again) is _keras.AdamW
    assert (again.weight_decay, again.global_clipnorm) == (0.01, 1.0)
    assert rates(again, [0, 1, 5]) == rates(adamw(0.1, 10), [0, 1, 5])
