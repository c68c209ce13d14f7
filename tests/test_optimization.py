"""The rate at every part of its way, and which weights decay."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

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
