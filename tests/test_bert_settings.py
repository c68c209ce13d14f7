"""What configurations and options say: obeyed, refused, or warned of."""

import json

import numpy as np
import pytest
import tensorflow as tf
from bert_samples import BATCH, CONFIG, SEGMENTS, TOKENS, scramble, write_config
from tensorflow import keras
from variants import legacy, others_slow, slow

from tiedbert.bert import (
    build_bert,
    classifier,
    load_safetensors,
    masked_lm,
    save_google_checkpoint,
    save_safetensors,
)
from tiedbert.bert.kinds import KINDS
from tiedbert.errors import InputError
from tiedbert.layers import check_tied
from tiedbert.surgery import clone

NORMS = {
    "bert": 1e-12,
    "albert": 1e-7,
    "nezha": 1e-7,
    "roformer": 1e-7,
    "roformer_v2": 1e-7,
    "electra": 1e-12,
    "gpt2": 1e-5,
    "t5": 1e-6,
}


def norms(model):
    return {layer.epsilon for layer in model.layers if layer.name.endswith("-Norm")}


# The epsilon of the norms.


@pytest.mark.parametrize("name", ["layer_norm_eps", slow("layer_norm_epsilon")])
def test_a_norm_divides_by_the_epsilon_of_the_configuration(tmp_path, name):
    bert = build_bert(write_config(tmp_path, **{name: 1e-3}))
    norm = bert.get_layer("Transformer-0-FeedForward-Norm")
    parts = keras.Model(bert.inputs, [norm.input, norm.output])
    scramble(bert).set_weights([w * 0.01 for w in bert.get_weights()])
    norm.set_weights([np.zeros(16), np.ones(16)])
    before, after = (value.numpy().astype("float64") for value in parts(BATCH))
    centred = before - before.mean(-1, keepdims=True)
    variance = before.var(-1, keepdims=True)
    assert variance.max() < 1e-3  # the epsilon is what counts
    np.testing.assert_allclose(after, centred / np.sqrt(variance + 1e-3), rtol=1e-4)


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    "kind",
    others_slow(["bert", "albert", "nezha"], [kind for kind in NORMS if kind in KINDS]),
)
def test_all_norms_of_a_kind_have_it_and_bert4keras_own_where_none_is_said(
    tmp_path, kind
):
    assert norms(build_bert(write_config(tmp_path), model=kind)) <= {
        NORMS[kind],
        1e-12,
    }
    said = write_config(tmp_path, layer_norm_eps=1e-4)
    assert norms(build_bert(said, model=kind)) == {1e-4}


@pytest.mark.cases(3)
@pytest.mark.parametrize(
    ("kind", "said", "expected"),
    [
        ("bert", None, 1e-12),
        ("bert", 1e-5, 1e-5),
        ("bert", 1e-7, 1e-7),
        ("nezha", None, 1e-12),
        ("nezha", 1e-5, 1e-5),
        ("nezha", 1e-7, 1e-7),
        ("roformer", None, 1e-12),
        ("roformer", 1e-7, 1e-7),
    ],
)
def test_the_norm_of_the_head_has_it_too(tmp_path, kind, said, expected):
    config = write_config(tmp_path, layer_norm_eps=said)
    model = masked_lm(build_bert(config, model=kind))
    assert model.get_layer("MLM-Norm").epsilon == expected


def test_a_saved_encoder_still_tells_the_head_its_epsilon(tmp_path):
    bert = build_bert(write_config(tmp_path, layer_norm_eps=1e-7), model="roformer")
    bert.save(tmp_path / "model.keras")
    for copy in (keras.models.load_model(tmp_path / "model.keras"), clone(bert)):
        assert masked_lm(copy).get_layer("MLM-Norm").epsilon == 1e-7


def test_a_folder_with_another_epsilon_builds_the_model_it_was_written_of(tmp_path):
    config = write_config(tmp_path, layer_norm_eps=1e-2)
    model = scramble(masked_lm(build_bert(config)))
    save_safetensors(model, tmp_path)
    again = masked_lm(build_bert(tmp_path / "config.json"))
    load_safetensors(again, tmp_path)
    inputs = [*BATCH, np.array([[1], [2]])]
    np.testing.assert_array_equal(again(inputs), model(inputs))
    plain = masked_lm(build_bert(write_config(tmp_path)))
    plain.set_weights(model.get_weights())
    assert np.abs(plain(inputs) - model(inputs)).max() > 1e-4


# Padding. The oracle is the model whose padding is 0, its two tokens exchanged.


def exchanged(array, one, two):
    """The array with two of its values exchanged."""
    return np.where(array == one, two, np.where(array == two, one, array))


@pytest.fixture(scope="module", params=["bert", *map(slow, ["albert", "nezha"])])
def padded(request, tmp_path_factory):
    """A model whose padding is token 4, and one of padding 0, of the same weights."""
    folder = tmp_path_factory.mktemp("padded")
    plain = scramble(build_bert(write_config(folder), model=request.param))
    model = build_bert(write_config(folder, pad_token_id=4), model=request.param)
    weights = plain.get_weights()
    weights[0] = weights[0][exchanged(np.arange(CONFIG["vocab_size"]), 0, 4)]
    model.set_weights(weights)
    return model, plain


@pytest.mark.cases(2)
def test_the_padding_of_the_configuration_is_masked(padded):
    model, plain = padded
    np.testing.assert_array_equal(
        model([exchanged(TOKENS, 0, 4), SEGMENTS]), plain(BATCH)
    )
    tokens = np.where(TOKENS == 0, 4, TOKENS)
    short = [tokens[:1, :5], SEGMENTS[:1, :5]]
    whole = [tokens[:1], SEGMENTS[:1]]
    np.testing.assert_allclose(model(short), model(whole)[:, :5], atol=1e-5)
    assert np.abs(model([TOKENS, SEGMENTS]) - model([tokens, SEGMENTS]))[0].max() > 0.01


def test_a_model_of_another_padding_survives_a_file(padded, tmp_path):
    model, _ = padded
    batch = [exchanged(TOKENS, 0, 4), SEGMENTS]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(batch), model(batch))


def test_hugging_faces_folder_says_the_padding(tmp_path):
    model = scramble(build_bert(write_config(tmp_path, pad_token_id=4)))
    save_safetensors(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["pad_token_id"] == 4
    again = build_bert(tmp_path / "config.json")
    load_safetensors(again, tmp_path)
    batch = [exchanged(TOKENS, 0, 4), SEGMENTS]
    np.testing.assert_array_equal(again(batch), model(batch))
    other = build_bert(write_config(tmp_path))
    with pytest.raises(InputError, match="pad_token_id: expected 0, .*found 4"):
        load_safetensors(other, tmp_path)


def test_padding_is_told_in_the_numbers_of_the_whole_vocabulary(tmp_path):
    """Of the tokens that are kept it may be another one."""
    kept = [9, 4, 2, 3]
    model = build_bert(write_config(tmp_path), pad_token_id=4, keep_tokens=kept)
    mask = model.get_layer("Embedding-Token").compute_mask(tf.constant([[2, 0, 1, 3]]))
    assert mask.numpy().tolist() == [[True, True, False, True]]
    with pytest.raises(InputError, match="pad_token_id 5 is none of the 4 tokens"):
        build_bert(write_config(tmp_path), pad_token_id=5, keep_tokens=kept)


@pytest.mark.parametrize("said", [{}, {"pad_token_id": None}, {"pad_token_id": 0}])
def test_padding_that_is_not_said_is_token_0_of_the_whole_vocabulary(tmp_path, said):
    config = write_config(tmp_path)
    config.write_text(json.dumps({**CONFIG, **said}))
    model = build_bert(config, keep_tokens=[5, 0, 6])
    mask = model.get_layer("Embedding-Token").compute_mask(tf.constant([[2, 0, 1, 2]]))
    assert mask.numpy().tolist() == [[True, True, False, True]]
    with pytest.raises(InputError, match="pad_token_id 0 is none of the 2 tokens"):
        build_bert(config, keep_tokens=[5, 6])


def test_a_table_of_another_padding_is_tied_to_its_head(tmp_path):
    model = masked_lm(build_bert(write_config(tmp_path, pad_token_id=4)))
    (tie,) = check_tied(clone(model))
    assert tie.looked_up
    assert tie.embedding.pad_id == 4


# What is another model.


REFUSED = [
    ({"model_type": "deberta"}, "model_type: expected one of bert, .*'deberta'"),
    ({"model_type": 3}, "model_type: expected one of bert, .* found 3"),
    (
        {"model_type": "albert", "model": "bert"},
        "model_type is 'albert', .* model='albert'",
    ),
    (
        {"model_type": "roberta", "model": "roberta"},
        "model_type is 'roberta', .* model='hf_roberta'",
    ),
    (
        {"num_hidden_groups": 1},
        "num_hidden_groups is 1: a 'bert' model of tiedbert has none",
    ),
    ({"position_embedding_type": "relative_key"}, "'relative_key': .* has 'absolute'"),
    ({"is_decoder": True}, "is_decoder is True: a 'bert' model of tiedbert has False"),
    ({"add_cross_attention": True}, "add_cross_attention is True"),
    ({"tie_word_embeddings": False}, "tie_word_embeddings is False"),
    ({"max_relative_position": 64}, "max_relative_position is 64"),
    ({"use_relative_position": True}, "use_relative_position is True"),
    ({"rotary_value": True}, "rotary_value is True"),
    ({"norm_type": "rms_norm"}, "norm_type is 'rms_norm'"),
    ({"ln_type": "preln"}, "ln_type is 'preln'"),
    ({"pruned_heads": {"0": [1]}}, "pruned_heads is"),
    ({"quantization_config": {"bits": 8}}, "quantization_config is"),
    ({"use_task_id": True}, "use_task_id is True"),
    ({"hidden_act": "quick_gelu"}, "hidden_act: expected an activation .*'quick_gelu'"),
    ({"hidden_act": 3}, "hidden_act: expected an activation .*found 3"),
    ({"hidden_act": "leaky_relu", "model_type": "bert"}, "of another slope"),
    ({"hidden_size": 17}, "hidden_size 17 is not a multiple of num_attention_heads 2"),
    ({"hidden_size": "16"}, "hidden_size: expected a whole number .*'16'"),
    ({"vocab_size": True}, "vocab_size: expected a whole number .*True"),
    ({"num_attention_heads": 0}, "expected a whole number >= 1, found 0"),
    ({"num_hidden_layers": -1}, "expected a whole number >= 0, found -1"),
    ({"hidden_dropout_prob": 1.0}, "_rate: expected a number >= 0 and < 1, found 1.0"),
    ({"layer_norm_eps": 0}, "layer_norm_eps: expected a number > 0, found 0"),
    ({"layer_norm_eps": "1e-12"}, "layer_norm_eps: expected a number .*'1e-12'"),
    ({"pad_token_id": -1}, "pad_token_id: expected a whole number"),
    ({"pad_token_id": 30}, "pad_token_id 30 is none of the 30 tokens"),
    ({"layers": 12}, "json: layers: not read from a file"),
    ({"sequence_length": "12"}, "sequence_length: expected a whole number"),
    ({"max_position": 9}, "max_position.* one setting: .* found 32 and 9"),
    ({"model": "brt"}, "no model kind 'brt'"),
    ({"model": 3}, "model: expected a name, received 3"),
    ({"application": "ml"}, "no application 'ml'"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_another_model_is_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        build_bert(write_config(tmp_path, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        legacy("albert", {"num_hidden_groups": 2}, "'albert' model of tiedbert has 1"),
        ("albert", {"inner_group_num": 2}, "'albert' model of tiedbert has 1"),
        ("albert_unshared", {"num_hidden_groups": 2}, "model of tiedbert has 1"),
        ("albert", {"model_type": "bert"}, "model_type is 'bert', .* model='bert'"),
        ("nezha", {"max_relative_position": 32}, "'nezha' model of tiedbert has 64"),
        (
            "nezha",
            {"use_relative_position": False},
            "'nezha' model of tiedbert has True",
        ),
        (
            "roformer_v2",
            {"use_bias": True},
            "'roformer_v2' model of tiedbert has False",
        ),
        legacy(
            "t5",
            {"relative_attention_num_buckets": 16},
            "'t5' model of tiedbert has 32",
        ),
    ],
)
def test_another_model_of_a_kind_is_refused(tmp_path, kind, changes, message):
    with pytest.raises(InputError, match=message):
        build_bert(write_config(tmp_path, **changes), model=kind)


def test_an_option_overrules_what_the_file_says(tmp_path):
    config = write_config(tmp_path, tie_word_embeddings=False, model_type="ernie")
    build_bert(config, tie_word_embeddings=True, model_type="bert")


# As they are published: shortened to the keys, sizes as in the other tests.
PUBLISHED = {
    "bert": {
        "architectures": ["BertForMaskedLM"],
        "attention_probs_dropout_prob": 0.1,
        "classifier_dropout": None,
        "directionality": "bidi",
        "gradient_checkpointing": False,
        "id2label": {"0": "LABEL_0"},
        "layer_norm_eps": 1e-12,
        "model_type": "bert",
        "pad_token_id": 0,
        "pooler_fc_size": 768,
        "pooler_type": "first_token_transform",
        "position_embedding_type": "absolute",
        "torch_dtype": "float32",
        "transformers_version": "4.6.0.dev0",
        "use_cache": True,
        "_name_or_path": "somewhere",
        "is_decoder": False,
        "pruned_heads": {},
        "problem_type": None,
    },
    "albert": {
        "embedding_size": 8,
        "num_hidden_groups": 1,
        "net_structure_type": 0,
        "gap_size": 0,
        "num_memory_blocks": 0,
        "inner_group_num": 1,
        "down_scale_factor": 1,
        "hidden_act": "gelu_new",
        "classifier_dropout_prob": 0.1,
        "bos_token_id": 2,
        "eos_token_id": 3,
    },
    "nezha": {"use_relative_position": True, "model_type": "nezha"},
    "roformer": {"rotary_value": False, "model_type": "roformer", "embedding_size": 16},
    "roformer_v2": {"norm_type": "rms_norm", "use_bias": False},
    "electra": {
        "model_type": "electra",
        "embedding_size": 8,
        "summary_activation": "gelu",
        "summary_type": "first",
        "summary_use_proj": True,
    },
}


@pytest.mark.cases(2)
@pytest.mark.parametrize("kind", others_slow(["bert", "albert", "nezha"], PUBLISHED))
def test_what_is_published_is_built_without_a_warning(tmp_path, kind):
    """Warnings are errors here. What has no effect on the function has none."""
    model = scramble(build_bert(write_config(tmp_path, **PUBLISHED[kind]), model=kind))
    changes = {k: PUBLISHED[kind].get(k) for k in ("embedding_size", "hidden_act")}
    plain = {k: v for k, v in changes.items() if v is not None}
    bare = build_bert(write_config(tmp_path, **plain), model=kind)
    bare.set_weights(model.get_weights())
    np.testing.assert_allclose(model(BATCH), bare(BATCH), atol=1e-6)


def test_a_setting_that_tiedbert_does_not_know_is_named(tmp_path):
    config = write_config(tmp_path, pre_norm=True, my_note="x", _mine=3)
    with pytest.warns(UserWarning, match="json: my_note, pre_norm: no setting of a"):
        build_bert(config)
    config = write_config(tmp_path, with_pool=True)
    with pytest.warns(UserWarning, match="with_pool: no setting of a 'electra' model"):
        build_bert(config, model="electra")


def test_the_file_may_say_kind_and_application(tmp_path):
    config = write_config(tmp_path, model="albert", application="LM")
    for built in (build_bert(config), build_bert(config, model="ALBERT")):
        assert built.output_shape == (None, None, 30)
        assert "Attention-LM-Mask" in {layer.name for layer in built.layers}
        assert "Transformer-FeedForward" in {layer.name for layer in built.layers}
    for given in ({"model": "bert"}, {"application": "encoder"}):
        with pytest.raises(InputError, match="json says .*: leave one of them out"):
            build_bert(config, **given)


def test_an_option_of_another_name_is_over_the_same_setting(tmp_path):
    config = write_config(tmp_path, dropout_rate=0.1, hidden_dropout_prob=0.1)
    bert = build_bert(config, hidden_dropout_prob=0.3)
    assert bert.get_layer("Embedding-Dropout").rate == 0.3


@pytest.mark.parametrize("name", ["hidden_act", slow("vocab_size")])
def test_null_is_not_said(tmp_path, name):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**CONFIG, name: None}))
    with pytest.raises(InputError, match=f"it lacks {name}$"):
        build_bert(path)


def test_a_byte_order_mark_is_no_part_of_the_json(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG), encoding="utf-8-sig")
    assert build_bert(path).output_shape == (None, None, 16)


# Options.


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("bert", {"droput_rate": 0.5}, "no option droput_rate: did you mean dropout_r"),
        ("bert", {"return_keras_model": False}, "no option return_keras_model"),
        ("bert", {"with_discriminator": True}, "no option with_discriminator"),
        ("electra", {"with_pool": True}, "'electra' model has no option with_pool"),
        ("nezha", {"custom_position_ids": True}, "has no option custom_position_ids"),
        ("roformer_v2", {"with_nsp": True}, "has no option with_nsp"),
        ("roformer_v2", {"initializer_range": 0.1}, "has no option initializer_range"),
        legacy("gpt2", {"segment_vocab_size": 3}, "has no option segment_vocab_size"),
        legacy("t5", {"max_position": 3}, "has no option max_position"),
        ("bert", {"with_pool": "tanhh"}, "with_pool: expected an activation"),
        ("bert", {"keep_tokens": ["a"]}, r"keep_tokens: .* received \['a'\]"),
        ("bert", {"keep_tokens": "ab"}, "keep_tokens: expected a list .* 'ab'"),
        ("bert", {"keep_tokens": []}, "keep_tokens: expected a list of token ids"),
        ("bert", {"keep_tokens": [0, -2]}, "keep_tokens: .*30 tokens.* received -2"),
        ("bert", {"keep_tokens": [0, 30]}, "the 30 tokens in the vocab.* received 30"),
        ("bert", {"compound_tokens": [[30]]}, "the 30 tokens in the .* received 30"),
        ("bert", {"compound_tokens": 3}, "compound_tokens: expected a list of lists"),
        ("bert", {"compound_tokens": [[]]}, "compound_tokens: expected a list of tok"),
        ("bert", {"compound_tokens": [[-1]]}, "compound_tokens: .* received -1"),
        ("bert", {"compound_tokens": [([1, 2], [1, -1])]}, "sum that is not 0"),
        ("bert", {"compound_tokens": [([1, 2], [1])]}, "as many weights as ids"),
        ("bert", {"sequence_length": 33}, "texts of 33 tokens, but .* 32 positions"),
        (
            "bert",
            {"sequence_length": 33, "hierarchical_position": False},
            "texts of 33 tokens, but the model has 32 positions$",
        ),
        (
            "bert",
            {"sequence_length": 33, "custom_position_ids": False},
            "texts of 33 tokens, but the model has 32 positions$",
        ),
        (
            "bert",
            {"sequence_length": 1025, "hierarchical_position": True},
            "texts of 1025 tokens, but the model has 1024 positions$",
        ),
    ],
)
def test_options_are_checked(tmp_path, kind, options, message):
    with pytest.raises(InputError, match=message):
        build_bert(write_config(tmp_path), model=kind, **options)


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_tokens": [0, 5], "compound_tokens": [[2]]}, "the 2 tokens that are ke"),
        ({"compound_tokens": [[30]]}, "compound_tokens: .* the 30 tokens in bert/emb"),
        (
            {"keep_tokens": [0, 30]},
            "keep_tokens: .* the 30 tokens in bert/.*, received",
        ),
    ],
)
@pytest.mark.parametrize("more", [{}, {"autoresize_weights": True}])
def test_tokens_beyond_the_checkpoint_are_named(tmp_path, options, message, more):
    config, checkpoint = write_config(tmp_path), tmp_path / "bert_model.ckpt"
    save_google_checkpoint(build_bert(config), checkpoint)
    larger = write_config(tmp_path, vocab_size=31)
    with pytest.raises(InputError, match=message):
        build_bert(larger, checkpoint, **options, **more)


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("compound", "rows"),
    [
        ([], []),
        ([np.array([3, 4])], [([3, 4], None)]),
        ([([3, 4], [1, 3])], [([3, 4], [1, 3])]),
    ],
)
def test_compound_tokens_are_means_of_rows(tmp_path, compound, rows):
    config, checkpoint = write_config(tmp_path), tmp_path / "bert_model.ckpt"
    model = scramble(build_bert(config))
    save_google_checkpoint(model, checkpoint)
    table = model.get_layer("Embedding-Token").get_weights()[0]
    built = build_bert(config, checkpoint, compound_tokens=compound)
    found = built.get_layer("Embedding-Token").get_weights()[0]
    means = [np.average(table[ids], 0, weights) for ids, weights in rows]
    np.testing.assert_allclose(found, [*table, *means], rtol=1e-6)


# Texts longer than the positions.


LONG = np.ones((2, 33), np.int32)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A classifier of 32 positions."""
    model = classifier(build_bert(write_config(tmp_path_factory.mktemp("short"))), 2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    return model


TOO_LONG = (
    "texts of 33 tokens, but 'Embedding-Position' has 32 positions: cut the texts, or "
    "build the model with more (max_position)"
)


@pytest.mark.parametrize(
    "use",
    [
        lambda model: model([LONG, 0 * LONG]),
        lambda model: model.predict([LONG, 0 * LONG], verbose=0),
        lambda model: model.fit([LONG, 0 * LONG], np.zeros(2), verbose=0),
    ],
    ids=["eager", "predict", "fit"],
)
def test_a_text_longer_than_the_positions_is_told(short, use):
    with pytest.raises(InputError) as caught:
        use(short)
    assert str(caught.value) == TOO_LONG


@pytest.mark.parametrize("train", [False, True])
def test_a_length_that_only_the_running_graph_knows_is_told(short, train):
    def step(tokens):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(short([tokens, 0 * tokens]))
        return tape.gradient(loss, short.trainable_weights) if train else loss

    run = tf.function(step, input_signature=[tf.TensorSpec([None, None], tf.int32)])
    run(LONG[:, :32])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[33\] \[tokens, but "):
        run(LONG)


def test_a_kind_without_positions_takes_texts_of_any_length(tmp_path):
    bert = build_bert(write_config(tmp_path), model="roformer", sequence_length=600)
    assert bert.output_shape == (None, 600, 16)


def test_the_last_position_is_there(tmp_path):
    bert = scramble(build_bert(write_config(tmp_path, max_position_embeddings=7)))
    long = scramble(build_bert(write_config(tmp_path)))
    weights = bert.get_weights()
    place = [w.shape for w in weights].index((7, 16))
    weights[place] = np.concatenate([weights[place], np.ones([25, 16])])
    long.set_weights(weights)
    np.testing.assert_array_equal(bert(BATCH), long(BATCH))


@pytest.mark.parametrize(
    ("options", "most"), [({}, 8), ({"hierarchical_position": True}, 64)]
)
def test_position_ids_and_hierarchies_have_their_ends(tmp_path, options, most):
    config = write_config(tmp_path, max_position_embeddings=8)
    bert = build_bert(config, custom_position_ids=True, **options)
    ids = np.full_like(TOKENS, most - 1)
    assert np.isfinite(bert([*BATCH, ids])).all()
    message = f"position ids from 0 to {most - 1} expected, found"
    for wrong in (ids + 1, np.where(SEGMENTS, ids, -1)):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            bert([*BATCH, wrong])


def test_a_file_keeps_the_check(short, tmp_path):
    short.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(BATCH), short(BATCH))
    with pytest.raises(InputError, match="texts of 33 tokens"):
        again([LONG, 0 * LONG])
