"""Hugging Face's folders of every kind; `make test-peers` compares the numbers."""

import json

import ml_dtypes
import numpy as np
import pytest
from bert_samples import CONFIG, SEGMENTS, TOKENS, scramble, write_config
from generation import IS_LEGACY
from safetensors.numpy import load_file, save_file
from tensorflow import keras
from variants import others_slow, slow

from tiedbert.bert import (
    build_bert,
    classifier,
    load_safetensors,
    masked_lm,
    save_google_checkpoint,
    save_safetensors,
)
from tiedbert.errors import InputError, NewHeadWarning

NARROW = {"embedding_size": 8}
KINDS = {
    "albert": {**NARROW, "hidden_act": "gelu_new", "layer_norm_eps": 1e-12},
    "electra": NARROW,
    "electra_generator": {},
    "roformer": {**NARROW, "layer_norm_eps": 1e-12},
    "roberta": {},
}
OF_KERAS_3 = {
    "hf_roberta": {"type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1},
    "distilbert": {"dropout_rate": 0.1},
}
HERE = [*KINDS, *([] if IS_LEGACY else OF_KERAS_3)]
BY_DEFAULT = [name for name in HERE if name in ("albert", "hf_roberta", "distilbert")]
kinds = pytest.mark.parametrize("kind", others_slow(BY_DEFAULT, HERE))
needs_keras_3 = pytest.mark.skipif(IS_LEGACY, reason="kinds of Keras 3")
POSITIONS = np.array([[1, 3], [5, 0]], np.int32)


def build(folder, kind, **changes):
    settings = {**KINDS, **OF_KERAS_3}[kind]
    config = write_config(
        folder, **{"num_hidden_layers": 2, **settings, **changes}, model=kind
    )
    return build_bert(config)


def inputs_of(model):
    known = {
        "Input-Token": TOKENS,
        "Input-Segment": SEGMENTS,
        "Masked-Positions": POSITIONS,
    }
    return [known[tensor.name] for tensor in model.inputs]


def assert_same_outputs(first, second):
    assert np.abs(first(inputs_of(first))).max() > 0.1
    np.testing.assert_array_equal(first(inputs_of(first)), second(inputs_of(second)))


def assert_refused(model, path, message):
    before = model.get_weights()
    with pytest.raises(InputError, match=message) as caught:
        load_safetensors(model, path)
    assert "\n" not in str(caught.value)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def changed(source, folder, rename=lambda name: name, **more):
    """A folder with the tensors and the configuration of another, changed."""
    folder.mkdir()
    tensors = load_file(source / "model.safetensors")
    tensors = {rename(name): value for name, value in tensors.items()}
    save_file({**tensors, **more}, folder / "model.safetensors")
    (folder / "config.json").write_text((source / "config.json").read_text())
    return folder


# The names, as the documentation and the files of the library have them.

EMBEDDINGS = ["embeddings.word_embeddings.weight", "embeddings.LayerNorm.weight"]
NAMES = {
    "albert": (
        "albert",
        [
            "embeddings.token_type_embeddings.weight",
            "embeddings.position_embeddings.weight",
            "encoder.embedding_hidden_mapping_in.weight",
            "encoder.albert_layer_groups.0.albert_layers.0.attention.query.weight",
            "encoder.albert_layer_groups.0.albert_layers.0.attention.key.bias",
            "encoder.albert_layer_groups.0.albert_layers.0.attention.dense.weight",
            "encoder.albert_layer_groups.0.albert_layers.0.attention.LayerNorm.bias",
            "encoder.albert_layer_groups.0.albert_layers.0.ffn.weight",
            "encoder.albert_layer_groups.0.albert_layers.0.ffn_output.bias",
            "encoder.albert_layer_groups.0.albert_layers.0.full_layer_layer_norm.bias",
        ],
        ["predictions.bias", "predictions.LayerNorm.weight", "predictions.dense.bias"],
        4 + 1 + 2 + 16 + 5,
    ),
    "electra": (
        "electra",
        ["embeddings_project.weight", "encoder.layer.1.attention.self.value.bias"],
        [
            "generator_predictions.dense.weight",
            "generator_predictions.LayerNorm.bias",
            "generator_lm_head.bias",
        ],
        4 + 1 + 2 + 32 + 5,
    ),
    "roformer": (
        "roformer",
        ["embeddings_project.bias", "encoder.embed_positions.weight"],
        ["cls.predictions.bias", "cls.predictions.transform.dense.weight"],
        4 + 2 + 32 + 5 + 1,
    ),
    "hf_roberta": (
        "roberta",
        [
            "embeddings.token_type_embeddings.weight",
            "embeddings.position_embeddings.weight",
            "encoder.layer.0.attention.output.LayerNorm.weight",
            "encoder.layer.1.intermediate.dense.weight",
        ],
        ["lm_head.bias", "lm_head.dense.weight", "lm_head.layer_norm.bias"],
        4 + 1 + 32 + 5,
    ),
    "distilbert": (
        "distilbert",
        [
            "embeddings.position_embeddings.weight",
            "transformer.layer.0.attention.q_lin.weight",
            "transformer.layer.0.attention.k_lin.bias",
            "transformer.layer.0.attention.v_lin.bias",
            "transformer.layer.1.attention.out_lin.weight",
            "transformer.layer.1.sa_layer_norm.weight",
            "transformer.layer.1.ffn.lin1.bias",
            "transformer.layer.1.ffn.lin2.weight",
            "transformer.layer.1.output_layer_norm.bias",
        ],
        [
            "vocab_transform.weight",
            "vocab_layer_norm.bias",
            "vocab_projector.bias",
        ],
        4 + 32 + 5,
    ),
}
NAMED = [kind for kind in NAMES if kind in HERE]


@pytest.mark.parametrize("kind", others_slow(NAMED[-1:], NAMED))
def test_the_tensors_have_the_names_of_the_library(tmp_path, kind):
    prefix, encoder, head, number = NAMES[kind]
    save_safetensors(masked_lm(build(tmp_path, kind)), tmp_path / "head")
    expected = {*(f"{prefix}.{name}" for name in (*EMBEDDINGS, *encoder)), *head}
    found = load_file(tmp_path / "head" / "model.safetensors")
    assert expected <= set(found)
    # The norm of the embeddings has two, and the head no table.
    assert len(found) == number
    save_safetensors(build(tmp_path, kind), tmp_path / "bare")
    bare = set(load_file(tmp_path / "bare" / "model.safetensors"))
    assert {*EMBEDDINGS, *encoder} <= bare
    assert not any(name.startswith(f"{prefix}.") for name in bare)


@kinds
def test_a_folder_is_read_back_as_its_kind(tmp_path, kind):
    """No kind is given: the file says it."""
    model = scramble(masked_lm(build(tmp_path, kind)))
    save_safetensors(model, tmp_path / "hf")
    again = masked_lm(build_bert(tmp_path / "hf" / "config.json"))
    load_safetensors(again, tmp_path / "hf")
    assert_same_outputs(model, again)
    encoder = build_bert(tmp_path / "hf" / "config.json")
    load_safetensors(encoder, tmp_path / "hf")  # without the head
    norm = model.get_layer(encoder.layers[-1].name)
    whole = keras.Model(encoder.inputs, encoder.output)
    assert whole.layers[-1].get_weights()[0].tolist() == norm.get_weights()[0].tolist()


@kinds
def test_a_classifier_of_texts_is_read_back(tmp_path, kind):
    model = scramble(classifier(build(tmp_path, kind), 3))
    save_safetensors(model, tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["architectures"][0].endswith("ForSequenceClassification")
    again = classifier(build_bert(tmp_path / "hf" / "config.json"), 3)
    load_safetensors(again, tmp_path / "hf")
    assert_same_outputs(model, again)


@pytest.mark.parametrize("dtype", [np.float16, slow(ml_dtypes.bfloat16)])
def test_other_names_and_numbers_are_read(tmp_path, dtype):
    model = scramble(build(tmp_path, "albert"))
    save_safetensors(model, tmp_path / "hf")

    def old(name):
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        return f"albert.{name.replace('LayerNorm.bias', 'LayerNorm.beta')}"

    folder = changed(tmp_path / "hf", tmp_path / "old", old)
    tensors = load_file(folder / "model.safetensors")
    stored = {name: value.astype(dtype) for name, value in tensors.items()}
    save_file(stored, folder / "model.safetensors")
    again = build_bert(folder / "config.json")
    load_safetensors(again, folder)
    for found, expected in zip(again.get_weights(), model.get_weights(), strict=True):
        rounded = expected.astype(dtype).astype(np.float32)
        np.testing.assert_array_equal(found, rounded)


@needs_keras_3
def test_the_configuration_has_the_names_of_distilbert(tmp_path):
    model = classifier(build(tmp_path, "distilbert"), 3, dropout=0.2)
    save_safetensors(model, tmp_path, [f"word{i}" for i in range(30)])
    config = json.loads((tmp_path / "config.json").read_text())
    expected = {
        "model_type": "distilbert",
        "dim": 16,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 24,
        "activation": "gelu",
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "seq_classif_dropout": 0.2,
    }
    assert {key: config[key] for key in expected} == expected
    assert not {"hidden_size", "type_vocab_size", "layer_norm_eps"} & set(config)
    other = build(tmp_path, "distilbert", layer_norm_eps=1e-5)
    with pytest.raises(InputError, match="DistilBert has layer_norm_eps 1e-12; this"):
        save_safetensors(other, tmp_path / "no")


@needs_keras_3
def test_the_length_of_roberta_is_without_the_first_positions(tmp_path):
    words = [f"word{i}" for i in range(30)]
    save_safetensors(build(tmp_path, "hf_roberta"), tmp_path, words)
    tokenizer = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert tokenizer["model_max_length"] == CONFIG["max_position_embeddings"] - 2


@needs_keras_3
def test_other_settings_than_the_files_are_two_values(tmp_path):
    config = write_config(tmp_path, model_type="distilbert", dim=8)
    with pytest.raises(InputError, match="dim and hidden_size are one setting.* 8"):
        build_bert(config)


# What a file does not say.


@pytest.mark.parametrize(
    ("model_type", "layer", "expected"),
    [
        ("albert", "Embedding-Token", {"output_dim": 128}),
        slow("bert", "Embedding-Dropout", {"rate": 0.1}),
        pytest.param(
            *("roberta", "Embedding-Token", {"pad_id": 1}), marks=needs_keras_3
        ),
    ],
)
def test_silence_means_the_default_of_the_library(
    tmp_path, model_type, layer, expected
):
    config = write_config(tmp_path, model_type=model_type, hidden_act=None)
    found = vars(build_bert(config).get_layer(layer))
    assert {name: found[name] for name in expected} == expected


def test_the_kind_is_that_of_the_type(tmp_path):
    model = build_bert(write_config(tmp_path, model_type="albert", hidden_act=None))
    forward = model.get_layer("Transformer-FeedForward")
    assert forward.activation[0].__name__ in ("gelu_tanh", "gelu")
    assert model.get_layer("Transformer-FeedForward-Norm").epsilon == 1e-12


# ERNIE: a BERT, with one more embedding.


def ernie(folder, **changes):
    """A folder of ERNIE made of one of BERT, and the tensor that it has besides."""
    model = scramble(masked_lm(build_bert(write_config(folder))))
    save_safetensors(model, folder / "bert")
    tasks = np.arange(48, dtype=np.float32).reshape(3, 16) / 10
    more = {"ernie.embeddings.task_type_embeddings.weight": tasks}
    rename = lambda name: name.replace("bert.", "ernie.")  # noqa: E731
    made = changed(folder / "bert", folder / "ernie", rename, **more)
    config = json.loads((made / "config.json").read_text())
    config.update({"model_type": "ernie", "use_task_id": True, **changes})
    (made / "config.json").write_text(json.dumps(config))
    return made, model, tasks


def test_the_first_task_of_ernie_is_added_to_its_segments(tmp_path):
    folder, plain, tasks = ernie(tmp_path)
    model = masked_lm(build_bert(folder / "config.json"))
    load_safetensors(model, folder)
    found, before = (
        m.get_layer("Embedding-Segment").get_weights()[0] for m in (model, plain)
    )
    np.testing.assert_array_equal(found, before + tasks[:1])
    save_safetensors(model, tmp_path / "again")  # as a BERT
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert config["model_type"] == "bert"
    again = masked_lm(build_bert(tmp_path / "again" / "config.json"))
    load_safetensors(again, tmp_path / "again")
    assert_same_outputs(again, model)


def test_tasks_that_no_configuration_mentions_are_refused(tmp_path):
    folder, model, _ = ernie(tmp_path, use_task_id=False)
    message = "ernie.embeddings.task_type_embeddings.weight would be left unread"
    assert_refused(model, folder, message)
    (folder / "config.json").unlink()
    assert_refused(model, folder, message)
    with pytest.raises(InputError, match="use_task_id is True"):
        build_bert(write_config(tmp_path, use_task_id=True))
    config = write_config(tmp_path, use_task_id=True, model_type="ernie")
    with pytest.raises(InputError, match="no place for the task types of ERNIE"):
        build_bert(config, tmp_path / "x.ckpt")


# What would be lost, or would be another function.


@pytest.mark.parametrize(
    "name",
    [
        "bert.encoder.layer.0.attention.self.distance_embedding.weight",
        slow("bert.encoder.layer.0.attention.self.query.lora_A.weight"),
        "bert.encoder.layer.0.crossattention.self.query.weight",
        "cls.predictions.transform.other.weight",
        slow("bert.embeddings.language_embeddings.weight"),
    ],
)
def test_a_tensor_that_would_be_left_unread_is_refused(tmp_path, name):
    model = scramble(masked_lm(build_bert(write_config(tmp_path))))
    save_safetensors(model, tmp_path / "hf")
    folder = changed(tmp_path / "hf", tmp_path / "more", **{name: np.ones([2, 2])})
    assert_refused(model, folder, f"{name} would be left unread")


def test_buffers_further_blocks_and_other_heads_may_be_there(tmp_path):
    model = scramble(masked_lm(build_bert(write_config(tmp_path))))
    save_safetensors(model, tmp_path / "hf")
    more = {
        "bert.embeddings.position_ids": np.arange(32)[None],
        "bert.pooler.dense.weight": np.ones([2, 2]),
        "bert.encoder.layer.1.attention.self.query.weight": np.ones([2, 2]),
        "cls.seq_relationship.weight": np.ones([2, 2]),
        "qa_outputs.weight": np.ones([2, 2]),
    }
    load_safetensors(model, changed(tmp_path / "hf", tmp_path / "more", **more))


def test_positions_of_roformer_that_were_trained_are_refused(tmp_path):
    model = build(tmp_path, "roformer")
    save_safetensors(model, tmp_path / "hf")
    name = "encoder.embed_positions.weight"
    table = load_file(tmp_path / "hf" / "model.safetensors")[name]
    assert table[1, 0] == np.float32(np.sin(1.0))
    folder = changed(tmp_path / "hf", tmp_path / "other", **{name: table + 0.1})
    assert_refused(model, folder, "embed_positions.weight: expected the sines")


def test_another_number_of_calls_of_alberts_block_is_refused(tmp_path):
    """No tensor tells it."""
    save_safetensors(build(tmp_path, "albert"), tmp_path / "hf")
    other = build(tmp_path, "albert", num_hidden_layers=3)
    assert_refused(other, tmp_path / "hf", "num_hidden_layers: expected 3, .* found 2")


def test_blocks_of_their_own_read_alberts_block_and_are_not_written(tmp_path):
    model = scramble(build(tmp_path, "albert"))
    save_safetensors(model, tmp_path / "hf")
    again = build_bert(tmp_path / "hf" / "config.json", model="albert_unshared")
    load_safetensors(again, tmp_path / "hf")
    expected = model(inputs_of(model))
    np.testing.assert_allclose(again(inputs_of(again)), expected, atol=1e-5)
    with pytest.raises(InputError, match="Albert has one block, this albert_unshared"):
        save_safetensors(again, tmp_path / "no")


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("nezha", {}, "transformers has no nezha: expected a model of bert, "),
        slow("roformer_v2", {}, "transformers has no roformer_v2"),
        ("albert", {"embedding_size": None}, "Albert has .* lacks Embedding-Mapping"),
        ("roformer", {"layer_norm_eps": None}, "one layer_norm_eps; this one has"),
    ],
)
def test_what_the_library_does_not_have_is_refused(tmp_path, kind, changes, message):
    settings = {**KINDS.get(kind, {}), **changes}
    model = masked_lm(build_bert(write_config(tmp_path, **settings), model=kind))
    with pytest.raises(InputError, match=message):
        save_safetensors(model, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def pooled(folder, kind, **options):
    return build_bert(write_config(folder, **KINDS[kind]), model=kind, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda folder: pooled(folder, "roformer", with_pool=True),
            "RoFormerModel has no place for the weights of Pooler-Dense",
        ),
        (
            lambda folder: classifier(pooled(folder, "roformer", with_pool=True), 2),
            'RoFormer has gelu.* in "Pooler-Dense"; this one has tanh',
        ),
        (
            lambda folder: pooled(folder, "albert", with_nsp=True),
            "no class AlbertForNextSentencePrediction",
        ),
        (
            lambda folder: masked_lm(build(folder, "electra", hidden_act="relu")),
            'Electra has gelu in "MLM-Dense"; this one has relu',
        ),
    ],
    ids=["pooler", "tanh", "order", "relu"],
)
def test_a_head_of_another_function_is_refused(tmp_path, make, message):
    with pytest.raises(InputError, match=message):
        save_safetensors(make(tmp_path), tmp_path / "hf")


def test_a_new_head_takes_no_pooler_for_its_own(tmp_path):
    """The pooler of an encoder of RoBERTa is no part of its classifiers."""
    kind = "electra" if IS_LEGACY else "hf_roberta"
    options = {} if IS_LEGACY else {"with_pool": True}
    settings = {**KINDS, **OF_KERAS_3}[kind]
    config = write_config(tmp_path, model=kind, **settings)
    save_safetensors(scramble(build_bert(config, **options)), tmp_path / "hf")
    model = classifier(build_bert(config), 3)
    with pytest.warns(NewHeadWarning, match="Pooler-Dense and Classifier, the head"):
        load_safetensors(model, tmp_path / "hf")


def test_a_model_is_not_read_from_another_kind(tmp_path):
    save_safetensors(build(tmp_path, "electra"), tmp_path / "hf")
    bert = build_bert(write_config(tmp_path))
    message = "model_type: expected 'bert', .*, found 'electra'"
    assert_refused(bert, tmp_path / "hf", message)


# Adapters.


@needs_keras_3
def test_an_adapter_is_written_into_its_weights(tmp_path):
    config = write_config(tmp_path)
    model = scramble(masked_lm(build_bert(config)))
    plain = masked_lm(build_bert(config))
    plain.set_weights(model.get_weights())
    attention = model.get_layer("Transformer-0-MultiHeadSelfAttention")
    forward = model.get_layer("Transformer-0-FeedForward")
    adapted = [
        *(attention.q_dense, attention.k_dense, attention.v_dense, attention.o_dense),
        *(forward.inner[0], forward.o_dense),
        *(model.get_layer("Embedding-Token"), model.get_layer("MLM-Dense")),
    ]
    for layer in adapted:
        layer.enable_lora(2, lora_alpha=3)
    draw = np.random.default_rng(0)
    for weight in model.weights:
        if "lora" in weight.path:
            weight.assign(draw.normal(0, 0.2, weight.shape))
    inputs = [TOKENS, SEGMENTS, POSITIONS]
    expected = model(inputs).numpy()
    assert np.abs(expected - plain(inputs)).max() > 0.1
    save_safetensors(model, tmp_path / "hf")
    load_safetensors(plain, tmp_path / "hf")
    np.testing.assert_allclose(plain(inputs), expected, atol=1e-4)
    save_google_checkpoint(model, tmp_path / "x.ckpt")
    with_head = masked_lm(build_bert(config, tmp_path / "x.ckpt"))
    from tiedbert.bert import load_google_checkpoint

    load_google_checkpoint(with_head, tmp_path / "x.ckpt")
    np.testing.assert_array_equal(with_head(inputs), plain(inputs))
    message = "has adapters .* in Embedding-Token, .*: load the weights first"
    assert_refused(model, tmp_path / "hf", message)
    with pytest.raises(InputError, match=message):
        load_google_checkpoint(model, tmp_path / "x.ckpt")
