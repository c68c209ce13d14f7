"""Building bert4keras models: their weights, their kinds, their checkpoints."""

import json
import os

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
from tensorflow import keras

from tiedbert.bert import (
    build_bert,
    build_bert_from,
    load_google_checkpoint,
    masked_lm,
    save_google_checkpoint,
)
from tiedbert.bert.kinds import KINDS, FreshTruncatedNormal
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


# The halves of T5 are in the whole.
WHOLE = [name for name in KINDS if not name.endswith(("_encoder", "_decoder"))]


@pytest.fixture(scope="module", params=WHOLE)
def built(request, tmp_path_factory):
    """A model of each kind, its kernels at the start, and bert4keras' own model."""
    config = write_config(tmp_path_factory.mktemp("kind"))
    model = build_bert(config, model=request.param)
    kernels = [w.numpy() for w in model.trainable_weights if "kernel" in w.name]
    return model, kernels, build_theirs(config, model=request.param)


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


@pytest.mark.parametrize("kind", ["bert", "albert", "nezha", "roformer_v2"])
@pytest.mark.parametrize("application", ["lm", "unilm"])
def test_language_models_predict_every_token(config, kind, application):
    model = build_bert(config, model=kind, application=application)
    theirs = build_theirs(config, model=kind, application=application)
    theirs.set_weights(scramble(model).get_weights())
    assert model(BATCH).shape == (*TOKENS.shape, CONFIG["vocab_size"])
    np.testing.assert_array_equal(model(BATCH), theirs(BATCH))


@pytest.mark.parametrize("kind", ["electra", "gpt", "gpt2", "gpt2_ml", "t5", "mt5.1.1"])
def test_an_application_that_a_kind_does_not_have_is_refused(config, kind):
    with pytest.raises(InputError, match=f"'{kind}' model has no application 'lm'"):
        build_bert(config, model=kind, application="lm")


def test_an_unknown_application_is_refused(config):
    with pytest.raises(InputError, match="'ml': expected encoder or lm or unilm"):
        build_bert(config, application="ml")


def test_an_unknown_kind_is_refused(config):
    with pytest.raises(InputError, match="no model kind 'brt': expected one of albert"):
        build_bert(config, model="brt")


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


# Checkpoints. The oracle is bert4keras' own loader.


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A masked language model, and the folder of its configuration and checkpoint."""
    folder = tmp_path_factory.mktemp("saved")
    model = masked_lm(build_bert(write_config(folder)))
    scramble(model)
    save_google_checkpoint(model, folder / "bert_model.ckpt")
    return model, folder


def checkpoint_of(folder):
    return folder / "bert_model.ckpt"


def config_of(folder):
    return folder / "bert_config.json"


def test_the_checkpoint_has_googles_names(saved):
    _, folder = saved
    shapes = dict(tf.train.list_variables(str(checkpoint_of(folder))))
    attention = "bert/encoder/layer_0/attention"
    assert shapes["bert/embeddings/word_embeddings"] == [30, 16]
    assert shapes["bert/embeddings/LayerNorm/gamma"] == [16]
    assert shapes[f"{attention}/self/query/kernel"] == [16, 16]
    assert shapes["bert/encoder/layer_0/intermediate/dense/kernel"] == [16, 24]
    assert shapes["cls/predictions/output_bias"] == [30]
    assert len(shapes) == 5 + 16 + 5  # embeddings, one block, head


def test_a_checkpoint_gives_back_every_value(saved):
    model, folder = saved
    again = masked_lm(build_bert(config_of(folder)))
    load_google_checkpoint(again, checkpoint_of(folder))
    for ours, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_build_bert_loads_what_bert4keras_loads(saved):
    _, folder = saved
    ours = build_bert(config_of(folder), checkpoint_of(folder))
    theirs = build_theirs(config_of(folder), checkpoint_of(folder))
    np.testing.assert_array_equal(ours(BATCH), theirs(BATCH))


def test_bert4keras_reads_our_masked_lm(saved):
    model, folder = saved
    positions = np.array([[1, 3], [5, 0]], np.int32)
    everywhere = build_theirs(
        config_of(folder), checkpoint_of(folder), with_mlm="linear"
    )(BATCH)
    expected = tf.gather(everywhere, positions, batch_dims=1)
    found = model([*BATCH, positions])
    assert float(tf.reduce_max(tf.abs(expected))) > 1  # not a comparison of zeros
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


def test_every_head_of_bert_survives_a_checkpoint(saved, tmp_path):
    """The next-sentence kernel is the one that the format keeps transposed."""
    _, folder = saved
    options = {"with_pool": True, "with_nsp": True, "with_mlm": "linear"}
    model = scramble(build_bert(config_of(folder), **options))
    save_google_checkpoint(model, tmp_path / "all.ckpt")
    theirs = build_theirs(config_of(folder), tmp_path / "all.ckpt", **options)
    ours = build_bert(config_of(folder), tmp_path / "all.ckpt", **options)
    for first, second, third in zip(
        model(BATCH), theirs(BATCH), ours(BATCH), strict=True
    ):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, third)


def test_kept_tokens_are_taken_from_the_table(saved):
    model, folder = saved
    kept = [0, 2, 3, 29]
    bert = build_bert(config_of(folder), checkpoint_of(folder), keep_tokens=kept)
    table = model.get_layer("Embedding-Token").get_weights()[0]
    found = bert.get_layer("Embedding-Token").get_weights()[0]
    np.testing.assert_array_equal(found, table[kept])


def test_a_larger_model_can_be_filled_on_request(saved):
    _, folder = saved
    model = build_bert(
        config_of(folder),
        checkpoint_of(folder),
        intermediate_size=48,
        autoresize_weights=True,
    )
    assert model.get_layer(FEED_FORWARD).get_weights()[0].shape == (16, 48)


def test_a_vocabulary_of_another_size_is_refused_with_both_sizes(saved, tmp_path):
    _, folder = saved
    with pytest.raises(
        InputError,
        match="the vocabulary does not belong to this checkpoint: "
        "expected 31 tokens, found 30 in bert/embeddings/word_embeddings",
    ):
        build_bert(write_config(tmp_path, vocab_size=31), checkpoint_of(folder))


def test_another_shape_is_refused_with_both_shapes(saved, tmp_path):
    _, folder = saved
    with pytest.raises(
        InputError,
        match=r"bert/encoder/layer_0/intermediate/dense/kernel: "
        r"expected shape \(16, 20\), found \(16, 24\)",
    ):
        build_bert(write_config(tmp_path, intermediate_size=20), checkpoint_of(folder))


def test_a_missing_variable_is_named_with_its_layer(saved, tmp_path):
    _, folder = saved
    with pytest.raises(
        InputError,
        match="expected a variable bert/encoder/layer_1/attention/self/query/kernel "
        'for layer "Transformer-1-MultiHeadSelfAttention", found none',
    ):
        build_bert(write_config(tmp_path, num_hidden_layers=2), checkpoint_of(folder))


def test_a_refused_checkpoint_changes_no_weight(saved, tmp_path):
    _, folder = saved
    model = build_bert(write_config(tmp_path, intermediate_size=20))
    before = model.get_weights()
    with pytest.raises(InputError, match="expected shape"):
        load_google_checkpoint(model, checkpoint_of(folder))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_no_checkpoint_is_said_so(config, tmp_path):
    with pytest.raises(InputError, match="no checkpoint at .*nowhere.ckpt: "):
        build_bert(config, tmp_path / "nowhere.ckpt")


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
@pytest.mark.parametrize("size", [0, 50])
def test_a_checkpoint_cut_short_is_refused(saved, tmp_path, suffix, size):
    model, _ = saved
    prefix = tmp_path / "cut.ckpt"
    save_google_checkpoint(model, prefix)
    os.truncate(f"{prefix}{suffix}", size)
    with pytest.raises(InputError, match="cut.ckpt"):
        load_google_checkpoint(model, prefix)


def test_a_changed_byte_in_a_checkpoint_is_found(saved, tmp_path):
    model, _ = saved
    prefix = tmp_path / "changed.ckpt"
    save_google_checkpoint(model, prefix)
    data = tmp_path / "changed.ckpt.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read: .*Checksum does not match"):
        load_google_checkpoint(model, prefix)


def test_saving_leaves_only_the_checkpoint(saved, tmp_path):
    model, _ = saved
    for _ in range(2):  # the second time over the first
        save_google_checkpoint(model, tmp_path / "new" / "bert_model.ckpt")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "bert_model.ckpt.data-00000-of-00001",
        "bert_model.ckpt.index",
    ]


def test_a_checkpoint_that_cannot_be_written_is_an_os_error(saved, tmp_path):
    model, _ = saved
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        save_google_checkpoint(model, tmp_path / "file" / "bert_model.ckpt")


# A BERT from a cut point on.


@pytest.fixture
def halves(config):
    """The whole model, the part up to Embedding-Norm, and the part from there on."""
    whole = scramble(build_bert(config))
    rest = build_bert_from("Embedding-Norm", config)
    rest.set_weights(whole.get_weights()[-len(rest.get_weights()) :])
    hidden = whole.get_layer("Embedding-Norm").output
    return whole, keras.Model(whole.inputs, hidden), rest


@pytest.mark.parametrize("delta", [None, 0.0])
def test_the_rest_from_embedding_norm_is_the_whole_bert(halves, delta):
    whole, front, rest = halves
    hidden = tf.identity(front(BATCH))  # an ordinary tensor: no mask comes with it
    if delta is not None:
        hidden += delta
    found = rest([hidden, TOKENS != 0])
    np.testing.assert_array_equal(found, whole(BATCH))


def test_the_rest_depends_on_its_hidden_state_and_mask(halves):
    whole, front, rest = halves
    hidden = tf.identity(front(BATCH))
    assert np.abs(rest([hidden + 0.1, TOKENS != 0]) - whole(BATCH)).max() > 0.01
    assert np.abs(rest([hidden, TOKENS >= 0]) - whole(BATCH))[0].max() > 0.01


def test_a_plain_partial_model_loses_the_padding(halves):
    """Why build_bert_from exists: Keras forgets the mask at the first addition."""
    whole, front, _ = halves
    hidden = whole.get_layer("Embedding-Norm").output
    naive = keras.Model(hidden, whole.output)
    error = np.abs(naive(front(BATCH) + 0.0) - whole(BATCH))
    assert error[0, :5].max() > 0.01  # the real tokens of the padded text
    assert error[1].max() < 1e-6  # the text without padding


def test_build_bert_from_loads_a_checkpoint(saved):
    model, folder = saved
    rest = build_bert_from("Embedding-Norm", config_of(folder), checkpoint_of(folder))
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
