"""Google-format checkpoints: what is read, written and refused."""

import os
import re

import bert_mlm
import numpy as np
import pytest
import tensorflow as tf
from bert_samples import BATCH, build_theirs, scramble, write_config
from tensorflow import keras
from variants import legacy, others_slow, slow

from tiedbert.bert import (
    build_bert,
    classifier,
    load_google_checkpoint,
    masked_lm,
    save_google_checkpoint,
)
from tiedbert.errors import InputError, NewHeadWarning

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


@pytest.mark.parametrize("path", ["", "folder/"])
def test_a_prefix_without_a_name_is_refused(saved, path):
    with pytest.raises(InputError, match="expected a prefix like folder/bert_model.ck"):
        save_google_checkpoint(saved[0], path)


def test_build_bert_loads_what_bert4keras_loads(saved):
    _, folder = saved
    ours = build_bert(config_of(folder), checkpoint_of(folder))
    theirs = build_theirs(config_of(folder), checkpoint_of(folder))
    np.testing.assert_array_equal(ours(BATCH), theirs(BATCH))


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


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001", ".meta"])
def test_the_prefix_is_told_when_a_file_of_a_checkpoint_is_given(saved, suffix):
    _, folder = saved
    with pytest.raises(InputError, match=rf"ckpt, without \{suffix}$"):
        build_bert(config_of(folder), f"{checkpoint_of(folder)}{suffix}")


def test_the_names_that_are_there_are_told(saved, config, tmp_path):
    model = build_bert(config, model="electra")
    save_google_checkpoint(model, tmp_path / "electra.ckpt", "electra")
    with pytest.raises(InputError, match="found none; the names there begin with elec"):
        build_bert(config, tmp_path / "electra.ckpt")


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_a_pointer_of_git_lfs_is_told(saved, config, tmp_path, suffix):
    save_google_checkpoint(saved[0], tmp_path / "saved.ckpt")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4\nsize 9\n"
    (tmp_path / f"saved.ckpt{suffix}").write_text(pointer)
    with pytest.raises(InputError, match="saved.ckpt.*`git lfs pull` fetches it"):
        build_bert(config, tmp_path / "saved.ckpt")


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


# Every kind. The oracle is a checkpoint of bert4keras' own model, under the names of
# the release, written by TensorFlow's own Saver.


@pytest.fixture(scope="module", params=others_slow(bert_mlm.BY_DEFAULT, bert_mlm.KINDS))
def released(request, tmp_path_factory):
    """Name of the case, bert4keras' model, its checkpoint and what is in it."""
    folder = tmp_path_factory.mktemp("released")
    config = write_config(folder, num_hidden_layers=2)
    theirs = bert_mlm.theirs(request.param, config)
    checkpoint = folder / "released.ckpt"
    values = bert_mlm.write_googles(request.param, theirs, checkpoint)
    return request.param, config, theirs, checkpoint, values


def head_of(name, config, **options):
    """A new masked language model of the case."""
    kind = bert_mlm.kind_of(name)
    return masked_lm(
        build_bert(config, model=kind, **bert_mlm.KINDS[name], **options),
        early_gather=True,
    )


def give_sinusoids(model, theirs):
    """NEZHA's relative positions are computed, not stored; the oracle's are drawn."""
    name = "Embedding-Relative-Position"
    if name in theirs.layers:
        model.get_layer(name).set_weights(theirs.layers[name].get_weights())


@pytest.mark.cases(2)
def test_every_kind_reads_its_release(released):
    name, config, theirs, checkpoint, _ = released
    model = scramble(head_of(name, config), seed=1)
    load_google_checkpoint(model, checkpoint, bert_mlm.kind_of(name))
    give_sinusoids(model, theirs)
    expected = bert_mlm.logits_of_theirs(theirs)
    assert float(tf.reduce_max(tf.abs(expected))) > 0.3
    found = model(bert_mlm.inputs_of(model))
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


@pytest.mark.cases(2)
def test_every_kind_is_written_as_it_was_released(released, tmp_path):
    name, config, _, checkpoint, values = released
    kind = bert_mlm.kind_of(name)
    model = scramble(head_of(name, config), seed=1)
    load_google_checkpoint(model, checkpoint, kind)
    save_google_checkpoint(model, tmp_path / "ours.ckpt", kind)
    reader = tf.train.load_checkpoint(str(tmp_path / "ours.ckpt"))
    assert set(reader.get_variable_to_shape_map()) == set(values)
    for stored, value in values.items():
        np.testing.assert_array_equal(reader.get_tensor(stored), value, stored)


@pytest.mark.cases(2)
def test_bert4keras_reads_every_kind_that_it_has(released, tmp_path):
    name, config, theirs, checkpoint, _ = released
    if name.startswith("electra"):
        pytest.skip("bert4keras has no ELECTRA with this head")
    model = head_of(name, config)
    load_google_checkpoint(model, checkpoint, bert_mlm.kind_of(name))
    save_google_checkpoint(model, tmp_path / "ours.ckpt", bert_mlm.kind_of(name))
    expected = bert_mlm.logits_of_theirs(theirs)
    again = bert_mlm.theirs(name, config)
    again.load_weights_from_checkpoint(str(tmp_path / "ours.ckpt"))
    np.testing.assert_array_equal(bert_mlm.logits_of_theirs(again), expected)


def test_a_projection_that_no_release_has_survives_too(tmp_path):
    config = write_config(tmp_path, embedding_size=8)
    model = scramble(masked_lm(build_bert(config, model="roformer_v2")))
    save_google_checkpoint(model, tmp_path / "v2.ckpt", "roformer_v2")
    again = masked_lm(build_bert(config, model="roformer_v2"))
    load_google_checkpoint(again, tmp_path / "v2.ckpt", "roformer_v2")
    for ours, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.legacy_keras
@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("kind", "activation"),
    [
        legacy("gpt2_ml", "gelu"),
        legacy("t5.1.1", "gated"),
        slow("gpt", "gelu"),
        slow("t5", "relu"),
    ],
)
def test_other_kinds_survive_too(tmp_path, kind, activation):
    gated = ["gelu", "linear"]
    config = write_config(
        tmp_path,
        num_hidden_layers=2,
        hidden_act=gated if activation == "gated" else activation,
    )
    model = scramble(build_bert(config, model=kind))
    save_google_checkpoint(model, tmp_path / "saved.ckpt", kind)
    again = build_bert(config, tmp_path / "saved.ckpt", model=kind)
    theirs = build_theirs(config, tmp_path / "saved.ckpt", model=kind)
    for built in (again, theirs):
        for old, new in zip(model.get_weights(), built.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("kind", ["electra", "electra_generator"])
def test_the_discriminator_of_electra_survives(config, tmp_path, kind):
    options = {"with_discriminator": True, "embedding_size": 8, "model": kind}
    model = scramble(build_bert(config, **options))
    save_google_checkpoint(model, tmp_path / "electra.ckpt", kind)
    again = build_bert(config, tmp_path / "electra.ckpt", **options)
    np.testing.assert_array_equal(again(BATCH), model(BATCH))
    names = dict(tf.train.list_variables(str(tmp_path / "electra.ckpt")))
    assert names["discriminator_predictions/dense_1/kernel"] == [16, 1]


def test_the_classifier_survives_beside_every_name_of_its_encoder(config, tmp_path):
    model = scramble(classifier(build_bert(config), 3))
    save_google_checkpoint(model, tmp_path / "classifier.ckpt")
    again = classifier(build_bert(config), 3)
    load_google_checkpoint(again, tmp_path / "classifier.ckpt")
    np.testing.assert_array_equal(again(BATCH), model(BATCH))
    names = dict(tf.train.list_variables(str(tmp_path / "classifier.ckpt")))
    assert names["output_weights"] == [3, 16]
    assert names["bert/pooler/dense/kernel"] == [16, 16]


@pytest.mark.cases(1)
@pytest.mark.parametrize("with_pool", [True, False])
def test_a_new_classifier_takes_an_encoder_and_keeps_its_head(
    config, tmp_path, with_pool
):
    source = scramble(build_bert(config, with_pool=with_pool))
    save_google_checkpoint(source, tmp_path / "bert.ckpt")
    model = scramble(classifier(build_bert(config), 3), seed=1)
    head = ["Classifier"] if with_pool else ["Pooler-Dense", "Classifier"]
    before = {name: model.get_layer(name).get_weights() for name in head}
    message = f"bert.ckpt has no weights for {' and '.join(head)}, the head"
    with pytest.warns(NewHeadWarning, match=message):
        load_google_checkpoint(model, tmp_path / "bert.ckpt")
    for name, weights in before.items():
        for found, expected in zip(
            model.get_layer(name).get_weights(), weights, strict=True
        ):
            np.testing.assert_array_equal(found, expected)
    known = [layer for layer in source.layers if layer.weights]
    for layer in known:
        for found, expected in zip(
            model.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(found, expected)


def test_a_layer_that_the_checkpoint_lacks_cannot_be_resized(config, tmp_path):
    save_google_checkpoint(build_bert(config), tmp_path / "bert.ckpt")
    with pytest.raises(InputError, match="pooler/dense/kernel not found.*begin with b"):
        build_bert(
            config, tmp_path / "bert.ckpt", with_pool=True, autoresize_weights=True
        )


# A part of the vocabulary.

KEPT = [0, 2, 3, 29, 5, 11, 12, 13, 7, 8]
SMALL = np.array([[1, 3, 8, 9, 2, 0, 0], [1, 4, 2, 5, 6, 7, 2]], np.int32)


@pytest.mark.cases(1)
@pytest.mark.parametrize("compound", [None, [[3, 4], [0, 5, 6]]])
@pytest.mark.parametrize("name", ["bert", "albert"])
def test_kept_tokens_are_taken_from_table_and_bias(tmp_path, name, compound):
    config = write_config(tmp_path)
    whole = bert_mlm.theirs(name, config)
    bert_mlm.write_googles(name, whole, tmp_path / "whole.ckpt")
    tokens = {"keep_tokens": KEPT, "compound_tokens": compound}
    theirs = bert_mlm.theirs(name, config, **tokens)
    theirs.load_weights_from_checkpoint(str(tmp_path / "whole.ckpt"))
    ours = scramble(head_of(name, config, **tokens), seed=1)
    load_google_checkpoint(ours, tmp_path / "whole.ckpt", name, **tokens)
    everywhere = theirs.model([SMALL, BATCH[1]])
    expected = tf.gather(everywhere, bert_mlm.POSITIONS, batch_dims=1)
    assert expected.shape[-1] == len(KEPT) + len(compound or [])
    found = ours([SMALL, BATCH[1], bert_mlm.POSITIONS])
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


def test_the_generator_of_electra_keeps_tokens_too(tmp_path):
    config = write_config(tmp_path, embedding_size=8)
    model = scramble(masked_lm(build_bert(config, model="electra_generator")))
    save_google_checkpoint(model, tmp_path / "whole.ckpt", "electra_generator")
    small = masked_lm(build_bert(config, model="electra_generator", keep_tokens=KEPT))
    load_google_checkpoint(
        small, tmp_path / "whole.ckpt", "electra_generator", keep_tokens=KEPT
    )
    tokens = np.array(KEPT)[SMALL] * (SMALL > 0)
    expected = model([tokens, BATCH[1], bert_mlm.POSITIONS]).numpy()[..., KEPT]
    found = small([SMALL, BATCH[1], bert_mlm.POSITIONS])
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


def test_kept_tokens_that_were_not_said_are_a_vocabulary_of_another_size(saved):
    _, folder = saved
    model = masked_lm(build_bert(config_of(folder), keep_tokens=KEPT))
    with pytest.raises(InputError, match="expected 10 tokens, found 30 in bert/"):
        load_google_checkpoint(model, checkpoint_of(folder))


def test_a_kept_token_beyond_the_vocabulary_is_named(saved):
    _, folder = saved
    with pytest.raises(InputError, match="of the 30 tokens in .*, received 30"):
        build_bert(config_of(folder), checkpoint_of(folder), keep_tokens=[0, 30])


def test_a_head_can_be_filled_with_what_bert4keras_has_resized(saved, tmp_path):
    model, folder = saved
    larger = {"hidden_size": 32, "intermediate_size": 48}
    resized = build_bert(
        config_of(folder),
        checkpoint_of(folder),
        with_mlm="linear",
        autoresize_weights=True,
        **larger,
    )
    save_google_checkpoint(resized, tmp_path / "larger.ckpt")
    ours = masked_lm(build_bert(config_of(folder), **larger))
    load_google_checkpoint(ours, tmp_path / "larger.ckpt")
    expected = tf.gather(resized(BATCH), bert_mlm.POSITIONS, batch_dims=1)
    found = ours([*BATCH, bert_mlm.POSITIONS])
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(
        ours.get_layer("MLM-Bias").bias, model.get_layer("MLM-Bias").bias
    )


def test_resized_weights_are_those_of_bert4keras(saved):
    _, folder = saved
    larger = {"hidden_size": 32, "intermediate_size": 48, "autoresize_weights": True}
    paths = config_of(folder), checkpoint_of(folder)
    ours = build_bert(*paths, with_mlm="linear", **larger)
    theirs = build_theirs(*paths, with_mlm="linear", **larger)
    for found, expected in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_bias_of_zeros_cannot_be_resized(config, tmp_path):
    """bert4keras would make it not a number without an error."""
    path = tmp_path / "new.ckpt"
    save_google_checkpoint(masked_lm(build_bert(config)), path)
    message = "are all zero cannot be resized: .*FeedForward.*bias"
    with pytest.raises(InputError, match=message):
        build_bert(config, path, intermediate_size=48, autoresize_weights=True)


@pytest.mark.parametrize("option", ["autoresize_weights", "ignore_invalid_weights"])
def test_no_checkpoint_is_said_so_under_every_option(config, tmp_path, option):
    with pytest.raises(InputError, match="no checkpoint at .*nowhere.ckpt: "):
        build_bert(config, tmp_path / "nowhere.ckpt", **{option: True})


def test_kept_tokens_may_be_an_array(saved):
    model, folder = saved
    kept = np.array(KEPT)
    small = masked_lm(build_bert(config_of(folder), keep_tokens=kept))
    load_google_checkpoint(small, checkpoint_of(folder), keep_tokens=kept)
    table = model.get_layer("Embedding-Token").get_weights()[0]
    found = small.get_layer("Embedding-Token").get_weights()[0]
    np.testing.assert_array_equal(found, table[KEPT])


# What does not belong together.


def test_what_else_a_checkpoint_holds_is_left_alone(saved, tmp_path):
    """As an optimizer's moments and the step, which Google's training leaves there."""
    model, folder = saved
    reader = tf.train.load_checkpoint(str(checkpoint_of(folder)))
    values = {n: reader.get_tensor(n) for n in reader.get_variable_to_shape_map()}
    more = {f"{name}/adam_m": np.zeros_like(x) for name, x in values.items()}
    more["global_step"] = np.int64(7)
    everything = {**more, **values}
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "training.ckpt"),
        tensor_names=list(everything),
        shape_and_slices=[""] * len(everything),
        tensors=list(everything.values()),
    )
    again = masked_lm(build_bert(config_of(folder)))
    load_google_checkpoint(again, tmp_path / "training.ckpt")
    for ours, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_unshared_blocks_that_differ_have_no_place_in_alberts_format(tmp_path):
    config = write_config(tmp_path, num_hidden_layers=2)
    model = scramble(build_bert(config, model="albert_unshared"))
    with pytest.raises(InputError, match='save such a model with model_kind="bert"'):
        save_google_checkpoint(model, tmp_path / "no.ckpt", "albert_unshared")
    assert not list(tmp_path.glob("no*"))
    save_google_checkpoint(model, tmp_path / "yes.ckpt", "bert")
    again = build_bert(config, model="albert_unshared")
    load_google_checkpoint(again, tmp_path / "yes.ckpt", "bert")
    np.testing.assert_array_equal(again(BATCH), model(BATCH))


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("kind", "said", "message"),
    [
        (
            "albert",
            "bert",
            'Attention" has 8 weights, a checkpoint of BERT names for 0',
        ),
        ("roformer_v2", "bert", "a checkpoint of BERT names for"),
        ("bert", "roformer_v2", "a checkpoint of RoFormerV2 names for"),
        legacy("t5", "bert", "a checkpoint of BERT names for 0"),
    ],
)
def test_a_model_of_another_kind_is_refused(config, tmp_path, kind, said, message):
    model = build_bert(config, model=kind)
    with pytest.raises(InputError, match=re.escape(message)):
        save_google_checkpoint(model, tmp_path / "no.ckpt", said)
    assert not list(tmp_path.glob("no*"))


def test_a_model_with_a_bert_inside_is_refused(config, tmp_path):
    bert = build_bert(config)
    model = keras.Model(bert.inputs, bert(bert.inputs))
    with pytest.raises(InputError, match="the model has none of these layers: "):
        save_google_checkpoint(model, tmp_path / "no.ckpt")
