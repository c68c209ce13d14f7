"""Google-format checkpoints: what is read, written and refused."""

import os

import numpy as np
import pytest
import tensorflow as tf
from bert_samples import BATCH, build_theirs, scramble, write_config

from tiedbert.bert import (
    build_bert,
    load_google_checkpoint,
    masked_lm,
    save_google_checkpoint,
)
from tiedbert.errors import InputError

ATTENTION = "Transformer-0-MultiHeadSelfAttention"
FEED_FORWARD = "Transformer-0-FeedForward"


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path)


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
