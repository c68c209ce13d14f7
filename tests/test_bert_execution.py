"""Our own BERTs compute the same however they are run: padding, XLA, files, devices."""

import functools

import bert_zoo
import numpy as np
import pytest
import tensorflow as tf
from bert_samples import CONFIG, scramble, write_config
from generation import IS_LEGACY
from tensorflow import keras
from variants import others_slow

from tiedbert.bert import build_bert, classifier

pytestmark = pytest.mark.skipif(IS_LEGACY, reason="there it is bert4keras itself")

KINDS = ["bert", "albert", "nezha", "roformer", "roformer_v2", "electra"]
TEXT = np.array([[2, 7, 8, 9, 3]], np.int32)
kinds = pytest.mark.parametrize("kind", others_slow(["bert"], KINDS))


def encoder(folder, kind, **options):
    return scramble(build_bert(write_config(folder), model=kind, **options))


def padded(length, pad):
    """The text among padding, and its segments."""
    ids = np.full([1, length], pad, np.int32)
    ids[:, : TEXT.shape[1]] = TEXT
    return [ids, np.zeros_like(ids)]


def assert_close(found, expected, tolerance):
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(
        np.asarray(found, "float32"), expected, rtol=0, atol=tolerance * scale
    )


@kinds
@pytest.mark.parametrize("pad", [0, 5])
def test_padding_of_any_length_changes_no_token(kind, pad, tmp_path):
    model = encoder(tmp_path, kind, pad_token_id=pad)
    expected = model(padded(TEXT.shape[1], pad)).numpy()
    for length in (6, 17, 32):
        found = model(padded(length, pad))[:, : TEXT.shape[1]]
        assert_close(found, expected, 1e-6)
        static = build_bert(
            write_config(tmp_path), model=kind, pad_token_id=pad, sequence_length=length
        )
        static.set_weights(model.get_weights())
        assert_close(static(padded(length, pad))[:, : TEXT.shape[1]], expected, 1e-6)


@kinds
@pytest.mark.parametrize("options", [{}, {"jit_compile": True}], ids=["graph", "xla"])
def test_a_compiled_call_is_the_eager_one(kind, options, tmp_path):
    model = encoder(tmp_path, kind)
    signature = [tf.TensorSpec([None, None], tf.int32)] * 2
    call = tf.function(lambda *x: model(list(x)), signature, **options)
    for length in (5, 9):
        inputs = padded(length, 0)
        assert_close(call(*map(tf.constant, inputs)), model(inputs).numpy(), 1e-5)


@kinds
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_is_near_and_forgets_padding(kind, policy, tmp_path):
    whole = encoder(tmp_path, kind)
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = build_bert(write_config(tmp_path), model=kind)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    model.set_weights(whole.get_weights())
    expected = whole(padded(5, 0)).numpy()
    found = model(padded(5, 0))
    assert found.dtype == policy.removeprefix("mixed_")
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert_close(found, expected, 0.05)
    longer = model(padded(32, 0))[:, :5]
    assert_close(longer, np.asarray(found, "float32"), 0.02)


@kinds
def test_files_give_the_same_numbers(kind, tmp_path):
    model = encoder(tmp_path, kind)
    inputs = [tf.constant(x) for x in padded(9, 0)]
    expected = model(inputs).numpy()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(inputs), expected)
    model.save_weights(tmp_path / "model.weights.h5")
    other = build_bert(write_config(tmp_path), model=kind)
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(other(inputs), expected)
    model.export(tmp_path / "exported", verbose=False)
    served = tf.saved_model.load(tmp_path / "exported")
    assert_close(served.serve(inputs), expected, 1e-6)


@kinds
def test_a_seed_gives_the_same_weights_and_dropout(kind, tmp_path):
    def made():
        keras.utils.set_random_seed(3)
        model = build_bert(write_config(tmp_path, **bert_zoo.DROPOUT), model=kind)
        return model.get_weights(), model(padded(9, 0), training=True).numpy()

    (weights, outputs), (again, others) = made(), made()
    for a, b in zip(weights, again, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(outputs, others)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_replicas_train_as_one(kind, mirrored, tmp_path):
    draw = np.random.default_rng(0)
    ids = draw.integers(1, CONFIG["vocab_size"], [8, 6]).astype("int32")
    inputs, labels = [ids, np.zeros_like(ids)], draw.integers(0, 2, 8)
    first = classifier(encoder(tmp_path, kind), 2, dropout=0)
    weights, trained = first.get_weights(), []
    for scope in (None, mirrored):
        make = functools.partial(trained_in, kind, weights, inputs, labels, tmp_path)
        if scope is None:
            trained.append(make())
        else:
            with scope.scope():
                trained.append(make())
    for one, two in zip(*trained, strict=True):
        np.testing.assert_allclose(two, one, rtol=0, atol=1e-5)


def trained_in(kind, weights, inputs, labels, folder):
    model = classifier(build_bert(write_config(folder), model=kind), 2, dropout=0)
    model.set_weights(weights)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    model.fit(inputs, labels, batch_size=8, epochs=2, shuffle=False, verbose=0)
    return model.get_weights()
