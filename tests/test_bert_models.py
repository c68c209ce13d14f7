"""Building bert4keras models: their weights, their kinds, their parts."""

import json

import numpy as np
import pytest
import tensorflow as tf
from bert_samples import (
    BATCH,
    CONFIG,
    TOKENS,
    build_theirs,
    scramble,
    write_config,
)
from generation import IS_LEGACY
from tensorflow import keras
from variants import legacy, others_slow

from tiedbert.bert import build_bert, build_bert_from, save_google_checkpoint
from tiedbert.bert.initializers import FreshTruncatedNormal
from tiedbert.bert.kinds import KINDS, OF_KERAS_3
from tiedbert.errors import InputError

ATTENTION = "Transformer-0-MultiHeadSelfAttention"
FEED_FORWARD = "Transformer-0-FeedForward"


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path)


def square_kernels(model):
    """Query, key, value and output kernels, and the feed-forward pair as vectors."""
    attention = [w for w in model.get_layer(ATTENTION).get_weights() if w.ndim == 2]
    pair = [w for w in model.get_layer(FEED_FORWARD).get_weights() if w.ndim == 2]
    return attention, [np.ravel(w) for w in pair]


def are_equal(arrays):
    first, *others = arrays
    return [bool(np.array_equal(first, other)) for other in others]


def test_the_kernels_of_a_layer_start_apart(config):
    attention, pair = square_kernels(build_bert(config))
    assert are_equal(attention) == [False, False, False]
    assert are_equal(pair) == [False]


def test_without_the_cure_they_start_identical(config):
    """Why bert4keras' own initializer is not used."""
    attention, pair = square_kernels(build_theirs(config))
    assert are_equal(attention) == [True, True, True]
    assert are_equal(pair) == [True]


@pytest.mark.parametrize("expected", [0.02, 0.05])
def test_kernels_have_the_standard_deviation_of_the_configuration(tmp_path, expected):
    config = write_config(tmp_path, hidden_size=64, initializer_range=expected)
    attention, pair = square_kernels(build_bert(config))
    # Cut at two standard deviations, which Keras does not make up for.
    found = [np.std(kernel) / expected for kernel in attention + pair]
    np.testing.assert_allclose(found, 0.88, atol=0.03)


def test_the_initializer_survives_its_configuration():
    initializer = FreshTruncatedNormal(0.3)
    again = keras.initializers.deserialize(keras.initializers.serialize(initializer))
    assert type(again) is FreshTruncatedNormal
    assert again.stddev == 0.3


def test_the_random_seed_reproduces_the_weights(config):
    built = []
    for seed in (7, 7, 8):
        keras.utils.set_random_seed(seed)
        built.append(build_bert(config).get_layer(ATTENTION).get_weights()[0])
    assert are_equal(built) == [True, False]


def token_inputs(model):
    """What a model of any kind takes, by the names of its inputs."""
    return {
        tensor.name: np.zeros([2, 7, 16], np.float32)
        if tensor.name == "Input-Context"
        else np.zeros_like(TOKENS)
        if tensor.name == "Input-Segment"
        else TOKENS
        for tensor in model.inputs
    }


# Kinds of bert4keras; the halves of T5 are in the whole.
WHOLE = [
    name
    for name in KINDS
    if not name.endswith(("_encoder", "_decoder")) and name not in OF_KERAS_3
]


BY_DEFAULT = ["bert", "albert", "nezha", "roformer_v2", "electra"]
BY_DEFAULT += ["gpt2", "t5"] if IS_LEGACY else []


@pytest.fixture(scope="module", params=others_slow(BY_DEFAULT, WHOLE))
def built(request, tmp_path_factory):
    """A model of each kind, its kernels at the start, and bert4keras' own model."""
    config = write_config(tmp_path_factory.mktemp("kind"))
    model = build_bert(config, model=request.param)
    kernels = [w.numpy() for w in model.trainable_weights if "kernel" in w.name]
    theirs = request.param.removesuffix("_generator")  # it has no class of its own
    return model, kernels, build_theirs(config, model=theirs)


@pytest.mark.cases(1)
def test_no_two_kernels_of_any_kind_start_alike(built):
    _, kernels, _ = built
    assert len(kernels) >= 6
    assert len({kernel.tobytes() for kernel in kernels}) == len(kernels)


def test_every_kind_is_built_as_bert4keras_builds_it(built):
    model, _, theirs = built
    theirs.set_weights(scramble(model).get_weights())
    inputs = token_inputs(model)
    np.testing.assert_array_equal(model(inputs), theirs(inputs))
    assert np.isfinite(model(inputs)).all()


@pytest.mark.cases(1)
@pytest.mark.parametrize("kind", ["bert", "albert", "nezha", "roformer_v2"])
@pytest.mark.parametrize("application", ["lm", "unilm"])
def test_language_models_predict_every_token(config, kind, application):
    model = build_bert(config, model=kind, application=application)
    theirs = build_theirs(config, model=kind, application=application)
    theirs.set_weights(scramble(model).get_weights())
    assert model(BATCH).shape == (*TOKENS.shape, CONFIG["vocab_size"])
    np.testing.assert_array_equal(model(BATCH), theirs(BATCH))


OF_BERT4KERAS = ["gpt", "gpt2", "gpt2_ml", "t5", "mt5.1.1"]


@pytest.mark.parametrize("kind", ["electra", *map(legacy, OF_BERT4KERAS)])
def test_an_application_that_a_kind_does_not_have_is_refused(config, kind):
    with pytest.raises(InputError, match=f"'{kind}' model has no application 'lm'"):
        build_bert(config, model=kind, application="lm")


def test_an_unknown_application_is_refused(config):
    with pytest.raises(InputError, match="'ml': expected encoder or lm or unilm"):
        build_bert(config, application="ml")


def test_an_unknown_kind_is_refused(config):
    with pytest.raises(InputError, match="no model kind 'brt': expected one of albert"):
        build_bert(config, model="brt")


def test_a_kind_of_keras_3_is_refused_under_keras_2(config):
    if not IS_LEGACY:
        pytest.skip("is about Keras 2")
    with pytest.raises(
        InputError, match="'modernbert' model is .* needs Keras 3: start"
    ):
        build_bert(config, model="ModernBERT")


def test_options_go_over_the_configuration(config):
    assert (
        build_bert(config, vocab_size=40).get_layer("Embedding-Token").input_dim == 40
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no BERT configuration at .*bert_config.json"),
        (b"{", "bert_config.json is not a JSON file: "),
        (b"\xff\xfe{", "bert_config.json is not a JSON file: "),
        (b"version https://git-lfs.github.com/spec/v1\n", "JSON.* `git lfs pull`"),
        (b"[]", "it lacks hidden_act, hidden_size, intermediate_size, num_"),
        (b'{"vocab_size": 3}', "it lacks hidden_act, hidden_size, "),
    ],
)
def test_a_bad_configuration_is_refused(tmp_path, content, message):
    path = tmp_path / "bert_config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        build_bert(path)


def test_a_folder_is_no_configuration(tmp_path):
    with pytest.raises(InputError, match="is a folder: expected the file in it, bert_"):
        build_bert(tmp_path)


# A BERT from a cut point on.


PRESENT, EVERYWHERE = tf.constant(TOKENS != 0), tf.constant(TOKENS >= 0)


@pytest.fixture
def halves(config):
    """The whole model, the part up to Embedding-Norm, and the part from there on."""
    whole = scramble(build_bert(config))
    rest = build_bert_from("Embedding-Norm", config)
    rest.set_weights(whole.get_weights()[-len(rest.get_weights()) :])
    hidden = whole.get_layer("Embedding-Norm").output
    return whole, keras.Model(whole.inputs, hidden), rest


@pytest.mark.cases(1)
@pytest.mark.parametrize("delta", [None, 0.0])
def test_the_rest_from_embedding_norm_is_the_whole_bert(halves, delta):
    whole, front, rest = halves
    hidden = tf.identity(front(BATCH))  # an ordinary tensor: no mask comes with it
    if delta is not None:
        hidden += delta
    found = rest([hidden, PRESENT])
    np.testing.assert_array_equal(found, whole(BATCH))


def test_the_rest_depends_on_its_hidden_state_and_mask(halves):
    whole, front, rest = halves
    hidden = tf.identity(front(BATCH))
    assert np.abs(rest([hidden + 0.1, PRESENT]) - whole(BATCH)).max() > 0.01
    assert np.abs(rest([hidden, EVERYWHERE]) - whole(BATCH))[0].max() > 0.01


def test_a_plain_partial_model_loses_the_padding(halves):
    """Why build_bert_from exists: Keras forgets the mask at the first addition."""
    whole, front, _ = halves
    hidden = whole.get_layer("Embedding-Norm").output
    naive = keras.Model(hidden, whole.output)
    error = np.abs(naive(front(BATCH) + 0.0) - whole(BATCH))
    assert error[0, :5].max() > 0.01  # the real tokens of the padded text
    assert error[1].max() < 1e-6  # the text without padding


def test_build_bert_from_loads_a_checkpoint(config, tmp_path):
    model = scramble(build_bert(config))
    save_google_checkpoint(model, tmp_path / "bert_model.ckpt")
    rest = build_bert_from("Embedding-Norm", config, tmp_path / "bert_model.ckpt")
    np.testing.assert_array_equal(
        rest.get_layer(FEED_FORWARD).get_weights()[0],
        model.get_layer(FEED_FORWARD).get_weights()[0],
    )


def test_a_wrong_start_shows_the_closest_names(config):
    with pytest.raises(InputError, match='did you mean "Embedding-Norm"'):
        build_bert_from("Embeding-Norm", config)


def test_a_start_that_matches_several_calls_shows_them(tmp_path):
    config = write_config(tmp_path, num_hidden_layers=2)
    with pytest.raises(InputError, match="called 2 times .* say which of .*Norm:0"):
        build_bert_from("Transformer-FeedForward-Norm", config, model="albert")
    rest = build_bert_from("Transformer-FeedForward-Norm:0", config, model="albert")
    assert rest.output_shape == (None, None, 16)


def test_configuration_files_are_json_objects_as_google_writes_them(config):
    assert json.loads(config.read_text()) == CONFIG
