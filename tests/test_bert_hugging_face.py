"""Folders of Hugging Face's kind; `make test-peers` has the real library read them."""

import json
import os

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from bert_samples import BATCH, CONFIG, SEGMENTS, TOKENS, scramble, write_config
from numpy_bert import masked_lm_logits
from safetensors.numpy import load_file, save_file
from tensorflow import keras

from tiedbert.bert import (
    build_bert,
    classifier,
    load_safetensors,
    masked_lm,
    save_safetensors,
)
from tiedbert.errors import InputError, NewHeadWarning

POSITIONS = np.array([[1, 3], [5, 0]], np.int32)
WORDS = [f"word{i}" for i in range(CONFIG["vocab_size"])]
TABLE = "bert.embeddings.word_embeddings.weight"
HEADS = CONFIG["num_attention_heads"]


def build(folder, **changes):
    """A masked language model of two blocks, and of random weights."""
    config = write_config(folder, **{"num_hidden_layers": 2, **changes})
    return scramble(masked_lm(build_bert(config)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A masked language model and its folder."""
    folder = tmp_path_factory.mktemp("saved")
    model = build(folder)
    save_safetensors(model, folder / "hf", WORDS)
    return model, folder / "hf"


@pytest.fixture(scope="module")
def spare(tmp_path_factory):
    return build(tmp_path_factory.mktemp("spare"))


@pytest.fixture
def other(saved, spare):
    """The same kind of model with other weights, and a copy of the tensors."""
    model = scramble(spare, seed=1)
    return model, load_file(saved[1] / "model.safetensors")


def assert_same_weights(first, second):
    for one, two in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def write(folder, tensors):
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_the_tensors_give_the_logits_of_the_model(saved):
    model, folder = saved
    tensors = load_file(folder / "model.safetensors")
    everywhere = masked_lm_logits(tensors, TOKENS, SEGMENTS, HEADS)
    expected = np.take_along_axis(everywhere, POSITIONS[..., None], axis=1)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(model([*BATCH, POSITIONS]), expected, atol=1e-4, rtol=0)


def test_the_table_is_stored_once(saved):
    tensors = load_file(saved[1] / "model.safetensors")
    assert [n for n, v in tensors.items() if v.shape == (30, 16)] == [TABLE]
    assert len(tensors) == 5 + 2 * 16 + 5  # embeddings, two blocks, head
    assert {value.dtype for value in tensors.values()} == {np.dtype("float32")}


def test_the_configuration_is_read_off_the_model(saved):
    config = json.loads((saved[1] / "config.json").read_text())
    assert config["architectures"] == ["BertForMaskedLM"]
    assert config["model_type"] == "bert"
    assert config["layer_norm_eps"] == 1e-12
    expected = {**CONFIG, "num_hidden_layers": 2}
    assert {key: config[key] for key in expected} == expected


def test_settings_that_are_no_shapes_survive(tmp_path):
    settings = {
        "hidden_dropout_prob": 0.3,
        "attention_probs_dropout_prob": 0.2,
        "initializer_range": 0.5,
        "hidden_act": "relu",
        "num_attention_heads": 8,
    }
    save_safetensors(build(tmp_path, **settings), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert {key: config[key] for key in settings} == settings


def test_every_weight_comes_back(saved):
    model, folder = saved
    again = masked_lm(build_bert(folder / "config.json"))
    load_safetensors(again, folder)
    assert_same_weights(model, again)
    assert again.get_layer("MLM-Bias").embedding_layer is again.get_layer(
        "Embedding-Token"
    )


def test_where_the_positions_are_gathered_makes_no_difference(saved):
    model, folder = saved
    again = masked_lm(build_bert(folder / "config.json"), early_gather=True)
    load_safetensors(again, folder)
    inputs = [*BATCH, POSITIONS]
    np.testing.assert_allclose(model(inputs), again(inputs), atol=1e-5, rtol=0)


@pytest.mark.cases(1)
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "silu"])
def test_the_configuration_that_was_written_builds_the_same_model(tmp_path, activation):
    model = build(tmp_path, hidden_act=activation)
    save_safetensors(model, tmp_path)
    again = masked_lm(build_bert(tmp_path / "config.json"))
    load_safetensors(again, tmp_path)
    inputs = [*BATCH, POSITIONS]
    np.testing.assert_array_equal(model(inputs), again(inputs))


def test_a_model_with_its_loss_is_the_same_model(saved, tmp_path):
    model, folder = saved
    again = masked_lm(build_bert(folder / "config.json"), with_loss=True)
    load_safetensors(again, folder)
    assert_same_weights(model, again)
    save_safetensors(again, tmp_path)
    written = load_file(tmp_path / "model.safetensors")
    for name, tensor in load_file(folder / "model.safetensors").items():
        np.testing.assert_array_equal(written[name], tensor)


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("BertModel", {}),
        ("BertModel", {"with_pool": True}),
        ("BertForNextSentencePrediction", {"with_nsp": True}),
        ("BertForMaskedLM", {"with_mlm": "linear"}),
        ("BertForPreTraining", {"with_nsp": True, "with_mlm": True}),
    ],
)
def test_bert4keras_own_heads_come_back(tmp_path, architecture, options):
    config = write_config(tmp_path)
    model, again = (build_bert(config, **options) for _ in range(2))
    save_safetensors(scramble(model), tmp_path)
    load_safetensors(again, tmp_path)
    assert_same_weights(model, again)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["architectures"] == [architecture]


def test_a_classifier_comes_back_with_its_number_of_classes(tmp_path):
    config = write_config(tmp_path)
    model, again = (classifier(build_bert(config), num_labels=3) for _ in range(2))
    save_safetensors(scramble(model), tmp_path)
    load_safetensors(again, tmp_path)
    assert_same_weights(model, again)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["architectures"] == ["BertForSequenceClassification"]
    assert stored["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}


# A head that an encoder's files do not have.


@pytest.mark.parametrize("with_pool", [True, False])
def test_a_new_classifier_keeps_its_head_and_takes_the_encoder(tmp_path, with_pool):
    config = write_config(tmp_path)
    source = scramble(build_bert(config, with_pool=with_pool))
    save_safetensors(source, tmp_path)
    model = scramble(classifier(build_bert(config), 3), seed=1)
    head = ["Classifier"] if with_pool else ["Pooler-Dense", "Classifier"]
    before = {name: model.get_layer(name).get_weights() for name in head}
    message = f"no weights for {' and '.join(head)}, the head"
    with pytest.warns(NewHeadWarning, match=message):
        load_safetensors(model, tmp_path)
    for layer in model.layers:
        known = layer.name not in head
        theirs = source.get_layer(layer.name) if known and layer.weights else None
        right = theirs.get_weights() if theirs else before.get(layer.name, [])
        for found, expected in zip(layer.get_weights(), right, strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "missing",
    [
        "classifier.bias",
        "bert.pooler.dense.weight",
        "bert.encoder.layer.0.output.dense",
    ],
)
def test_a_classifier_that_lacks_more_than_its_head_is_refused(tmp_path, missing):
    config = write_config(tmp_path)
    model = scramble(classifier(build_bert(config), 3))
    save_safetensors(model, tmp_path / "hf")
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    for name in [name for name in tensors if name.startswith(missing)]:
        del tensors[name]
    assert_refused(model, write(tmp_path / "part", tensors), f"tensor {missing}")


def test_a_masked_language_model_is_loaded_whole(tmp_path):
    config = write_config(tmp_path)
    save_safetensors(build_bert(config), tmp_path)
    assert_refused(masked_lm(build_bert(config)), tmp_path, "tensor cls.predictions.tr")


def token_classifier(bert, *between):
    hidden = bert.output
    for layer in between:
        hidden = layer(hidden)
    logits = keras.layers.Dense(3, name="Classifier")(hidden)
    return scramble(keras.Model(bert.inputs, logits))


@pytest.mark.cases(1)
@pytest.mark.parametrize("between", [[], [keras.layers.Dropout(0.1)]])
def test_a_classifier_of_tokens_is_one(tmp_path, between):
    bert = build_bert(write_config(tmp_path))
    model = token_classifier(bert, *between)
    save_safetensors(model, tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["architectures"] == ["BertForTokenClassification"]
    assert len(stored["id2label"]) == 3
    again = token_classifier(build_bert(tmp_path / "config.json"))
    load_safetensors(again, tmp_path)
    np.testing.assert_array_equal(again(BATCH), model(BATCH))
    texts = classifier(build_bert(tmp_path / "config.json"), 3)
    message = "expected BertForSequenceClassification, .* found BertForTokenClassifi"
    assert_refused(texts, tmp_path, message)


def dense(**options):
    return keras.layers.Dense(3, name="Classifier", **options)


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("options", "head", "message"),
    [
        ({}, lambda h: dense(activation="softmax")(h), "without an activation"),
        ({}, lambda h: keras.layers.Softmax()(dense()(h)), "the logits of"),
        ({}, lambda h: [h, dense()(h)], "the logits of"),
        ({}, lambda h: dense()(h[:, 0]), "this one reads"),
        (
            {},
            lambda h: dense()(keras.layers.GlobalAveragePooling1D(name="mean")(h)),
            "this one reads mean",
        ),
        ({"with_pool": "linear"}, lambda h: h, 'tanh in "Pooler-Dense"; .* has linear'),
    ],
)
def test_another_head_than_hugging_faces_is_refused(tmp_path, options, head, message):
    bert = build_bert(write_config(tmp_path), **options)
    model = keras.Model(bert.inputs, head(bert.output))
    with pytest.raises(InputError, match=message):
        save_safetensors(model, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_another_activation_in_the_transform_is_refused(tmp_path):
    model = build(tmp_path)
    model.get_layer("MLM-Dense").activation = keras.activations.relu
    with pytest.raises(InputError, match='gelu.* in "MLM-Dense"; this one has relu'):
        save_safetensors(model, tmp_path / "hf")


def test_the_dropout_of_a_classifier_is_told(tmp_path):
    model = classifier(build_bert(write_config(tmp_path)), 3, dropout=0.3)
    save_safetensors(model, tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["classifier_dropout"] == 0.3
    assert stored["hidden_dropout_prob"] == 0.0


def test_an_encoder_takes_its_part_of_a_larger_file(saved, tmp_path):
    model, folder = saved
    bert = build_bert(write_config(tmp_path))  # one block of two, no head
    load_safetensors(bert, folder)
    for layer in bert.layers:
        theirs = model.get_layer(layer.name).get_weights()
        for one, two in zip(layer.get_weights(), theirs, strict=True):
            np.testing.assert_array_equal(one, two)


# Other writers.


def old_names(name):
    """As Hugging Face converted Google's checkpoints in 2018."""
    return name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta")


@pytest.mark.parametrize(
    "rename",
    [
        old_names,
        lambda name: name.removeprefix("bert."),
        lambda name: name.replace("predictions.bias", "predictions.decoder.bias"),
    ],
)
def test_other_names_of_the_same_tensors_are_known(saved, other, tmp_path, rename):
    model, tensors = other
    renamed = {rename(name): value for name, value in tensors.items()}
    assert renamed.keys() != tensors.keys()
    load_safetensors(model, write(tmp_path / "renamed", renamed))
    assert_same_weights(model, saved[0])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats_become_float32(other, tmp_path, dtype):
    model, tensors = other
    stored = {name: value.astype(dtype) for name, value in tensors.items()}
    load_safetensors(model, write(tmp_path / "half", stored))
    found = model.get_layer("Embedding-Token").get_weights()[0]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, stored[TABLE].astype(np.float32))


def test_integers_are_refused(other, tmp_path):
    model, tensors = other
    tensors[TABLE] = tensors[TABLE].astype(np.int8)
    with pytest.raises(InputError, match=f"{TABLE}: expected floating.*found I8"):
        load_safetensors(model, write(tmp_path / "int", tensors))


@pytest.mark.parametrize(
    ("part", "owner"), [("weight", TABLE), ("bias", "cls.predictions.bias")]
)
def test_a_second_copy_of_the_head_must_be_the_table(
    saved, other, tmp_path, part, owner
):
    model, tensors = other
    copy = f"cls.predictions.decoder.{part}"
    tensors[copy] = tensors[owner].copy()
    load_safetensors(model, write(tmp_path / "tied", tensors))
    assert_same_weights(model, saved[0])
    tensors[copy].flat[0] += 1
    with pytest.raises(InputError, match=f"{copy} to equal {owner}, found other"):
        load_safetensors(model, write(tmp_path / "untied", tensors))


def split_up(folder, tensors):
    """Two files and their index, as for models of many gigabytes."""
    folder.mkdir()
    files = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(tensors)}
    for file in set(files.values()):
        part = {name: tensors[name] for name in tensors if files[name] == file}
        save_file(part, folder / file)
    write_index(folder, files)
    return files


def write_index(folder, files):
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": files}))


def test_a_model_in_several_files_is_read(saved, other, tmp_path):
    model, tensors = other
    split_up(tmp_path / "parts", tensors)
    load_safetensors(model, tmp_path / "parts")
    assert_same_weights(model, saved[0])


@pytest.mark.parametrize(
    "file",
    [
        "../model.safetensors",
        "/etc/model.safetensors",
        "a\\model.safetensors",
        "..",
        "x.bin",
    ],
)
def test_an_index_leads_nowhere_else(other, tmp_path, file):
    model, tensors = other
    write(tmp_path, tensors)  # there is something to be found
    files = split_up(tmp_path / "parts", tensors)
    write_index(tmp_path / "parts", {**files, TABLE: file})
    with pytest.raises(InputError, match="expected names of .safetensors files beside"):
        load_safetensors(model, tmp_path / "parts")


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": [1]}}']
)
def test_a_bad_index_is_refused(other, tmp_path, content):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(InputError, match="is not an index of safetensors files"):
        load_safetensors(other[0], tmp_path)


def test_an_index_that_promises_too_much_is_refused(other, tmp_path):
    model, tensors = other
    files = split_up(tmp_path / "parts", tensors)
    write_index(tmp_path / "parts", {**files, "more": files[TABLE]})
    with pytest.raises(InputError, match="expected more in part-.*, found none"):
        load_safetensors(model, tmp_path / "parts")


# What is refused; no weight changes then.


def assert_refused(model, path, message):
    before = model.get_weights()
    with pytest.raises(InputError, match=message):
        load_safetensors(model, path)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_another_vocabulary_is_refused_with_both_sizes(saved, tmp_path):
    model = build(tmp_path, vocab_size=31)
    message = (
        "model.safetensors: the vocabulary does not belong to this model: "
        f"expected 31 tokens, found 30 in {TABLE}"
    )
    assert_refused(model, saved[1], message)


def test_another_shape_is_refused_with_both_shapes(saved, tmp_path):
    model = build(tmp_path, intermediate_size=20)
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    message = rf"{name}: expected shape \(20, 16\), found \(24, 16\)"
    assert_refused(model, saved[1], message)


def test_a_missing_tensor_is_named(saved, tmp_path):
    model = build(tmp_path, num_hidden_layers=3)
    message = (
        "expected a tensor bert.encoder.layer.2.attention.self.query.weight, found "
        "none; the names there begin with bert, cls"
    )
    assert_refused(model, saved[1], message)


def test_two_names_for_one_tensor_are_refused(other, tmp_path):
    model, tensors = other
    tensors[TABLE.removeprefix("bert.")] = tensors[TABLE] + 1
    message = f"expected one tensor for {TABLE}, found .* and "
    assert_refused(model, write(tmp_path / "twice", tensors), message)


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("num_attention_heads", 4),
        ("hidden_act", "gelu_new"),
        ("layer_norm_eps", 1e-5),
        ("model_type", "roberta"),
        ("position_embedding_type", "relative_key"),
        ("is_decoder", True),
        ("add_cross_attention", True),
        ("pad_token_id", 1),
    ],
)
def test_another_configuration_is_refused(other, saved, tmp_path, setting, found):
    model, tensors = other
    folder = write(tmp_path / "else", tensors)
    config = json.loads((saved[1] / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, setting: found}))
    message = f"config.json: .* do not fit: {setting}: expected .*, found {found!r}"
    assert_refused(model, folder, message)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_bad_configuration_is_refused(other, tmp_path, content):
    model, tensors = other
    folder = write(tmp_path / "bad", tensors)
    (folder / "config.json").write_text(content)
    assert_refused(model, folder, "config.json")


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_a_file_cut_short_is_refused(saved, other, tmp_path, size):
    path = tmp_path / "cut.safetensors"
    whole = (saved[1] / "model.safetensors").read_bytes()
    path.write_bytes(whole[:size])
    assert_refused(other[0], path, "cut.safetensors is not a safetensors file, or not")


def test_no_file_is_said_so(other, tmp_path):
    assert_refused(other[0], tmp_path / "x.safetensors", "no safetensors file at .*x")


def test_pickles_are_not_read(other, tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    assert_refused(other[0], folder, "found pytorch_model.bin .* are not read")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "x.pt", "tf_model.h5"])
def test_a_file_of_another_library_is_told_by_its_name(other, tmp_path, name):
    message = rf"{name}: expected a .safetensors file or its folder, found \.\w+: such"
    assert_refused(other[0], tmp_path / name, message)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4\nsize 9\n"


def test_a_pointer_of_git_lfs_is_told(saved, other, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text(POINTER)
    assert_refused(other[0], path, "not a safetensors file, .*`git lfs pull` fetches")
    (tmp_path / "vocab.txt").write_text(POINTER)
    with pytest.raises(InputError, match="30 tokens, found 3; it is a pointer"):
        save_safetensors(saved[0], tmp_path / "hf", tmp_path / "vocab.txt")


@pytest.mark.cases(4)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"application": "lm"}, "attention in both directions"),
        ({"application": "unilm"}, "attention in both directions"),
        ({"segment_vocab_size": 0}, "lacks Embedding-Segment"),
        ({"embedding_size": 8}, "no place for .* of Embedding-Mapping"),
        ({"attention_head_size": 4}, "this one has 2 heads of 4"),
        ({"hierarchical_position": True}, "hierarchical positions"),
        ({"hidden_act": "tanh"}, "one activation of gelu, .* has tanh"),
        ({"hidden_act": ["gelu", "linear"]}, "one activation of gelu, "),
    ],
)
def test_what_hugging_faces_bert_is_not_is_refused(tmp_path, options, message):
    model = build_bert(write_config(tmp_path), **options)
    with pytest.raises(InputError, match=f"Hugging Face's Bert\\w* has .*{message}"):
        save_safetensors(model, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_layers_of_the_users_own_are_refused(saved, tmp_path):
    bert = build_bert(write_config(tmp_path))
    model = keras.Model(bert.inputs, keras.layers.Dense(3, name="mine")(bert.output))
    with pytest.raises(InputError, match="no place for the weights of mine"):
        save_safetensors(model, tmp_path / "hf")
    assert_refused(model, saved[1], "no place for the weights of mine")


def test_two_epsilons_are_refused(tmp_path):
    model = build(tmp_path)
    model.get_layer("MLM-Norm").epsilon = 1e-5
    with pytest.raises(InputError, match="one layer_norm_eps; this one has .*1e-12, 1"):
        save_safetensors(model, tmp_path)


# The vocabulary.


def test_the_vocabulary_has_one_token_a_line(saved):
    text = (saved[1] / "vocab.txt").read_bytes().decode()
    assert text == "".join(f"{word}\n" for word in WORDS)
    config = json.loads((saved[1] / "tokenizer_config.json").read_text())
    assert config["do_lower_case"] is True
    assert config["model_max_length"] == CONFIG["max_position_embeddings"]


def test_an_older_vocabulary_stays_only_if_it_fits(saved, tmp_path):
    folder = tmp_path / "hf"
    save_safetensors(saved[0], folder, WORDS)
    save_safetensors(saved[0], folder)
    assert (folder / "vocab.txt").read_text().split() == WORDS
    larger = build(tmp_path, vocab_size=31)
    with pytest.raises(InputError, match="vocab.txt: expected 31 tokens, found 30"):
        save_safetensors(larger, folder)


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_vocabulary_file_is_copied(saved, tmp_path, end):
    # A separator of lines that is no line feed is a token like others.
    words = ["\u2028", "\x85", *WORDS[2:]]
    path = tmp_path / "mine.txt"
    path.write_bytes(("\n".join(words) + end).encode())
    save_safetensors(saved[0], tmp_path / "hf", path, lowercase=False)
    found = (tmp_path / "hf" / "vocab.txt").read_bytes().decode()
    assert found.split("\n") == [*words, ""]
    config = json.loads((tmp_path / "hf" / "tokenizer_config.json").read_text())
    assert config["do_lower_case"] is False


def test_a_byte_order_mark_is_no_part_of_a_token(saved, tmp_path):
    path = tmp_path / "windows.txt"
    path.write_bytes("\r\n".join(WORDS).encode("utf-8-sig"))
    save_safetensors(saved[0], tmp_path / "hf", path)
    assert (tmp_path / "hf" / "vocab.txt").read_text(encoding="utf-8").split() == WORDS
    (tmp_path / "hf" / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8-sig")
    with pytest.raises(InputError, match="vocab.txt begins with a byte-order mark"):
        save_safetensors(saved[0], tmp_path / "hf")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n".join(WORDS).encode("utf-16"), "expected a vocabulary in UTF-8, .*0xff"),
        ("\n".join(["好", *WORDS[1:]]).encode("gbk"), "expected a vocabulary in UTF-8"),
        (None, "no vocabulary at .*mine.txt"),
    ],
)
def test_a_vocabulary_file_that_cannot_be_read_is_told(
    saved, tmp_path, content, message
):
    path = tmp_path / "mine.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        save_safetensors(saved[0], tmp_path / "hf", path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["\ufeffword0", *WORDS[1:]], 'first token .* encoding="utf-8-sig"'),
        (WORDS[1:], "vocab: expected 30 tokens, found 29"),
        ([*WORDS, "more"], "vocab: expected 30 tokens, found 31"),
        ([*WORDS[1:], "word1"], "expected each token once"),
        (list(range(30)), r"vocab: expected a list of str .* received list \[0, 1"),
        (30, "vocab: expected a list of str .* received int 30"),
        ({word: 0 for word in WORDS}, "vocab: expected a list of str .* received dict"),
        ([*WORDS[1:], "two\nlines"], "expected each token once, and on one line"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(saved, tmp_path, words, message):
    with pytest.raises(InputError, match=message):
        save_safetensors(saved[0], tmp_path / "hf", words)
    assert not (tmp_path / "hf").exists()


# Writing.


def test_whoever_reads_the_configuration_reads_the_weights(saved):
    modes = {
        (saved[1] / f).stat().st_mode for f in ("config.json", "model.safetensors")
    }
    assert len(modes) == 1


def test_only_whole_files_get_their_names(saved, tmp_path, monkeypatch):
    model, folder = saved
    save_safetensors(model, tmp_path / "hf", WORDS)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        save_safetensors(scramble(build(tmp_path), seed=2), tmp_path / "hf", WORDS)
    files = sorted(path.name for path in (tmp_path / "hf").iterdir())
    assert files == sorted(path.name for path in folder.iterdir())
    for file in files:
        assert (tmp_path / "hf" / file).read_bytes() == (folder / file).read_bytes()


def test_saving_again_replaces_what_is_there(saved, tmp_path):
    model = build(tmp_path)
    save_safetensors(scramble(model, seed=3), tmp_path / "hf")
    save_safetensors(saved[0], tmp_path / "hf")
    load_safetensors(model, tmp_path / "hf")
    assert_same_weights(model, saved[0])


def test_a_model_of_variables_in_half_precision_is_written_in_float32(tmp_path):
    config = write_config(tmp_path)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = build_bert(config)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    save_safetensors(model, tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    assert {value.dtype for value in found.values()} == {np.dtype("float32")}


def test_training_goes_on_from_a_loaded_model(saved):
    """The tie holds after a step: both uses of the table moved together."""
    _, folder = saved
    model = masked_lm(build_bert(folder / "config.json"))
    load_safetensors(model, folder)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, run_eagerly=True)  # quicker for one step
    model.fit([*BATCH, POSITIONS], POSITIONS, verbose=0)
    table = model.get_layer("Embedding-Token").embeddings
    head = model.get_layer("MLM-Bias")
    hidden = tf.ones([1, 16])
    np.testing.assert_allclose(
        head(hidden), hidden @ tf.transpose(table) + head.bias, rtol=1e-6
    )
