"""ALBERT with several groups of blocks that share their weights, under Keras 3."""

import numpy as np
import pytest
import tensorflow as tf
from bert_samples import BATCH, scramble, write_config
from generation import IS_LEGACY

from tiedbert.bert import (
    build_bert,
    load_google_checkpoint,
    load_safetensors,
    save_google_checkpoint,
    save_safetensors,
)
from tiedbert.errors import InputError

needs_keras_3 = pytest.mark.skipif(IS_LEGACY, reason="bert4keras has one group")
EPSILON = {"layer_norm_eps": 1e-12}  # of both kinds


def config(folder, groups=2, layers=5):
    return write_config(
        folder, num_hidden_layers=layers, num_hidden_groups=groups, **EPSILON
    )


@pytest.fixture
def albert(tmp_path):
    return scramble(build_bert(config(tmp_path), model="albert"))


@needs_keras_3
def test_each_group_is_the_blocks_that_begin_in_its_part(albert, tmp_path):
    """As transformers has it: group ``int(i / (layers / groups))`` for layer i."""
    plain = write_config(tmp_path, num_hidden_layers=5, **EPSILON)
    unshared = build_bert(plain, model="albert_unshared")
    for layer in unshared.layers:
        name = layer.name
        for block, group in enumerate([0, 0, 0, 1, 1]):
            name = name.replace(f"Transformer-{block}-", f"Group-{group}-")
        same = albert.get_layer(name.replace("Group", "Transformer"))
        layer.set_weights(same.get_weights())
    np.testing.assert_array_equal(albert(BATCH), unshared(BATCH))


@needs_keras_3
def test_files_name_the_groups(albert, tmp_path):
    save_google_checkpoint(albert, tmp_path / "bert.ckpt", "albert")
    stored = tf.train.load_checkpoint(str(tmp_path / "bert.ckpt"))
    names = stored.get_variable_to_shape_map()
    kernel = "bert/encoder/transformer/group_{}/inner_group_0/ffn_1/intermediate/dense/"
    for group in (0, 1):
        layer = albert.get_layer(f"Transformer-{group}-FeedForward")
        name = f"{kernel.format(group)}kernel"
        assert name in names
        np.testing.assert_array_equal(stored.get_tensor(name), layer.get_weights()[0])
    again = build_bert(config(tmp_path), model="albert")
    load_google_checkpoint(again, tmp_path / "bert.ckpt", "albert")
    np.testing.assert_array_equal(again(BATCH), albert(BATCH))


@needs_keras_3
def test_a_folder_of_hugging_face_has_all_groups(tmp_path):
    narrow = {"embedding_size": 8}
    albert = scramble(build_bert(config(tmp_path), model="albert", **narrow))
    save_safetensors(albert, tmp_path / "files")
    again = build_bert(tmp_path / "files" / "config.json")
    load_safetensors(again, tmp_path / "files")
    np.testing.assert_array_equal(again(BATCH), albert(BATCH))
    one = build_bert(config(tmp_path, groups=1), model="albert", **narrow)
    with pytest.raises(InputError, match="num_hidden_groups: expected 1, .* found 2"):
        load_safetensors(one, tmp_path / "files")


@needs_keras_3
def test_more_groups_than_layers_are_refused(tmp_path):
    with pytest.raises(InputError, match="at most one a layer, 5, found 6"):
        build_bert(config(tmp_path, groups=6), model="albert")


def test_under_keras_2_one_group_is_built(tmp_path):
    if not IS_LEGACY:
        pytest.skip("is about Keras 2")
    with pytest.raises(InputError, match="num_hidden_groups is 2: .* has 1 "):
        build_bert(config(tmp_path), model="albert")
