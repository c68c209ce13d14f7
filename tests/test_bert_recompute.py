"""Blocks computed twice: the same numbers and gradients, with dropout."""

import numpy as np
import pytest
import tensorflow as tf
from bert_samples import BATCH, scramble, write_config
from generation import IS_LEGACY
from tensorflow import keras
from variants import others_slow

from tiedbert.bert import (
    build_bert,
    build_bert_from,
    classifier,
    masked_lm,
    recompute_activations,
)
from tiedbert.errors import InputError

needs_keras_3 = pytest.mark.skipif(IS_LEGACY, reason="a function for Keras 3")
DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
POSITIONS = np.array([[1, 2], [3, 5]], np.int32)
HEADS = {
    "encoder": (lambda bert: bert, BATCH),
    "masked_lm": (masked_lm, [*BATCH, POSITIONS]),
    "early_gather": (
        lambda bert: masked_lm(bert, predictions=2, early_gather=True),
        [*BATCH, POSITIONS],
    ),
    "classifier": (lambda bert: classifier(bert, 2), BATCH),
}


def model_of(folder, head="encoder", **options):
    config = write_config(folder, num_hidden_layers=2, **DROPOUT)
    return scramble(HEADS[head][0](build_bert(config, **options)))


def states(model):
    """The variables of the random numbers of a model."""
    return [v for v in model.variables if "seed_generator" in v.path]


def step(model, variables, inputs, wrap=lambda function: function):
    """(outputs, gradients) of a training call, the random numbers begun anew."""
    for i, state in enumerate(states(model)):
        state.assign([7, i])

    @wrap
    def run():
        with tf.GradientTape() as tape:
            outputs = model([tf.constant(x) for x in inputs], training=True)
            loss = tf.reduce_sum(tf.sin(outputs))
        return outputs, tape.gradient(loss, variables)

    return run()


def assert_gradients_agree(found, expected):
    """Beside their own size; that of the bias of keys is 0 but for rounding."""
    found, expected = (
        [tf.convert_to_tensor(gradient).numpy() for gradient in side]
        for side in (found, expected)
    )
    largest = max(np.abs(gradient).max() for gradient in expected)
    for a, b in zip(found, expected, strict=True):
        scale = 1e-5 * np.abs(b).max() + 1e-6 * largest
        np.testing.assert_allclose(a, b, rtol=0, atol=scale)


WRAPS = {
    "eager": lambda function: function,
    "graph": tf.function,
    "xla": tf.function(jit_compile=True),
}


CASES = [(head, wrap) for head in HEADS for wrap in WRAPS]
BY_DEFAULT = [("early_gather", "eager"), ("classifier", "graph")]


@needs_keras_3
@pytest.mark.parametrize("case", others_slow(BY_DEFAULT, CASES), ids="-".join)
def test_outputs_and_gradients_are_those_without_it(case, tmp_path):
    head, wrap = case
    model, inputs = model_of(tmp_path, head), HEADS[head][1]
    again = recompute_activations(model)
    assert [v.path for v in states(again)] == [v.path for v in states(model)]
    weights = [v.value for v in model.trainable_weights]
    (expected, gradients), (found, others) = (
        step(m, weights, inputs, WRAPS[wrap]) for m in (model, again)
    )
    exact = wrap == "eager"
    scale = 0 if exact else 1e-5 * float(np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=scale)
    assert_gradients_agree(others, gradients)
    np.testing.assert_array_equal(again(inputs), model(inputs))


@needs_keras_3
@pytest.mark.parametrize(
    "kind", others_slow(["albert"], ["albert", "nezha", "roformer_v2"])
)
def test_other_kinds(kind, tmp_path):
    model = model_of(tmp_path, model=kind, application="unilm")
    again = recompute_activations(model)
    assert sum("block" in layer.name for layer in again.layers) == 2
    weights = [v.value for v in model.trainable_weights]
    (expected, gradients), (found, others) = (
        step(m, weights, BATCH) for m in (model, again)
    )
    np.testing.assert_array_equal(found, expected)
    assert_gradients_agree(others, gradients)


@needs_keras_3
@pytest.mark.slow
def test_fit_trains_the_weights_of_both(tmp_path):
    model = model_of(tmp_path, "classifier")
    again = recompute_activations(model)
    again.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [w.numpy() for w in model.trainable_weights]
    again.fit(BATCH, np.array([0, 1]), verbose=0)
    assert any(
        not np.array_equal(w, old)
        for w, old in zip(model.trainable_weights, before, strict=True)
    )
    again.save(tmp_path / "again.keras")
    loaded = keras.models.load_model(tmp_path / "again.keras")
    np.testing.assert_array_equal(loaded(BATCH), model(BATCH))


@needs_keras_3
def test_a_model_from_the_middle_of_a_block_on(tmp_path):
    config = write_config(tmp_path, num_hidden_layers=2)
    start = "Transformer-0-MultiHeadSelfAttention-Norm"
    rest = build_bert_from(start, config)
    again = recompute_activations(rest)
    inputs = [np.random.default_rng(0).normal(size=(2, 7, 16)).astype("float32")]
    inputs.append(np.ones([2, 7], bool))
    np.testing.assert_array_equal(again(inputs), rest(inputs))


@needs_keras_3
def test_a_model_without_blocks_is_refused():
    x = keras.Input((3,))
    with pytest.raises(InputError, match="model 'plain' without a Transformer block"):
        recompute_activations(keras.Model(x, keras.layers.Dense(2)(x), name="plain"))


def test_under_keras_2_it_is_refused(tmp_path):
    if not IS_LEGACY:
        pytest.skip("is about Keras 2")
    with pytest.raises(InputError, match="own models, which need Keras 3"):
        recompute_activations(build_bert(write_config(tmp_path)))
