"""ModernBERT: numbers, masks, heads, settings and tensors, under Keras 3."""

import numpy as np
import numpy_modernbert
import pytest
import tensorflow as tf
from bert_samples import scramble, write_config
from cuts import cut_at_all
from generation import IS_LEGACY
from modern_samples import (
    IS_REAL,
    LENGTHS,
    PAD,
    POSITIONS,
    PUBLISHED,
    TIME,
    TOKENS,
    TYPES,
    write_modern,
)
from safetensors.numpy import load_file, save_file
from tensorflow import keras
from variants import others_slow, slow

from tiedbert.bert import (
    build_bert,
    build_bert_from,
    classifier,
    load_google_checkpoint,
    load_safetensors,
    masked_lm,
    recompute_activations,
    save_google_checkpoint,
    save_safetensors,
)
from tiedbert.bert.kind_of import kind_of
from tiedbert.errors import InputError
from tiedbert.surgery import split

pytestmark = pytest.mark.skipif(IS_LEGACY, reason="bert4keras has no ModernBERT")

if not IS_LEGACY:
    from tiedbert.bert.hugging_face.modern_config import check, describe
    from tiedbert.bert.hugging_face.modern_tensors import (
        read_values,
        stored_tensors,
        stored_weights,
    )
    from tiedbert.bert.hugging_face.safetensors_files import StoredTensors

DROPOUT = {"embedding_dropout": 0.1, "mlp_dropout": 0.2, "attention_dropout": 0.1}


def build(folder, options=None, **changes):
    """A model with weights of its own, of two blocks: one is global, one is local."""
    config = write_modern(folder, **changes)
    return scramble(build_bert(config, model="modernbert", **(options or {})))


@pytest.fixture
def bert(tmp_path):
    return build(tmp_path)


def tokens(rows=TOKENS):
    return [tf.constant(rows)]


def assert_near(found, expected, tolerance=1e-5):
    scale = np.abs(np.asarray(expected)).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


# Numbers.


SIZES = {
    "published": {"num_hidden_layers": 4},
    "one head": {"num_attention_heads": 1},
    "odd window": {"local_attention": 5},
    "no window": {"local_attention": 0},
    "all global": {"global_attn_every_n_layers": 1, "global_rope_theta": 50.0},
}


@pytest.mark.parametrize("name", others_slow(["published", "odd window"], SIZES))
def test_hidden_states_are_those_of_the_formulas(name, tmp_path):
    bert, config = build(tmp_path, **SIZES[name]), {**PUBLISHED, **SIZES[name]}
    every = config["global_attn_every_n_layers"]
    types = [TYPES[i % every > 0] for i in range(config["num_hidden_layers"])]
    config["layer_types"] = types
    expected = numpy_modernbert.encode(stored_tensors(bert), TOKENS, config, IS_REAL)
    assert_near(bert(tokens()).numpy()[IS_REAL], expected[IS_REAL])


def test_the_layers_are_named_as_those_of_bert4keras(bert):
    names = [layer.name for layer in bert.layers]
    assert names[:3] == ["Input-Token", "Embedding-Token", "Embedding-Norm"]
    assert names[-1] == "Output-Norm"
    attention = "Transformer-{}-MultiHeadSelfAttention"
    assert f"{attention.format(0)}-Norm" not in names
    for part in ("", "-Norm", "-Probabilities", "-Add"):
        assert attention.format(1) + part in names
    assert not [w.path for w in bert.weights if "bias" in w.path or "beta" in w.path]


def test_padding_changes_no_real_token(bert):
    found = bert(tokens()).numpy()
    for row, length in enumerate(LENGTHS):
        alone = bert(tokens(TOKENS[row : row + 1, :length]))
        assert_near(found[row, :length], alone[0])


def test_a_text_of_padding_alone_has_numbers(bert):
    assert np.isfinite(bert(tokens(np.full((1, TIME), PAD, np.int32)))).all()


def test_packed_texts_are_as_they_are_alone(bert, tmp_path):
    packed = build(tmp_path, {"with_pack": True})
    packed.set_weights(bert.get_weights())
    lengths = 5, 6, 2
    rows, pack = TOKENS[:1].copy(), np.zeros((1, TIME), np.int32)
    starts = np.cumsum([0, *lengths])
    for number, (start, length) in enumerate(zip(starts, lengths, strict=False), 1):
        pack[0, start : start + length] = number
    found = packed([tf.constant(rows), tf.constant(pack)]).numpy()
    assert np.isfinite(found).all()
    for start, length in zip(starts, lengths, strict=False):
        part = slice(start, start + length)
        assert_near(found[:, part], bert(tokens(rows[:, part])))


def test_half_precision_is_near(bert, tmp_path):
    config = write_modern(tmp_path)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = build_bert(config, model="modernbert")
    finally:
        keras.config.set_dtype_policy("float32")
    half.set_weights(bert.get_weights())
    found = half(tokens())
    assert found.dtype == tf.bfloat16
    expected = bert(tokens()).numpy()
    difference = np.abs(tf.cast(found, tf.float32).numpy() - expected)[IS_REAL]
    assert difference.mean() < 0.02 * np.abs(expected).mean()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"sequence_length": TIME}])
def test_xla_gives_the_same(options, tmp_path):
    bert = build(tmp_path, options)
    assert_near(tf.function(bert, jit_compile=True)(tokens()), bert(tokens()))


# Heads.


def test_the_head_is_that_of_the_formulas(bert):
    model = scramble(masked_lm(bert))
    hidden = bert(tokens()).numpy().astype("float64")
    tensors = stored_tensors(model)
    hidden = numpy_modernbert.gelu(hidden @ tensors["head.dense.weight"].T)
    hidden = numpy_modernbert.normalize(tensors, "head.norm", hidden)
    table = tensors["model.embeddings.tok_embeddings.weight"]
    expected = hidden @ table.T + tensors["decoder.bias"]
    expected = np.take_along_axis(expected, POSITIONS[..., None], axis=1)
    assert_near(model([*tokens(), tf.constant(POSITIONS)]), expected)


def test_both_ways_to_the_head_give_the_same(tmp_path):
    whole = build(tmp_path, {"with_mlm": "linear"})
    model = masked_lm(build_bert(tmp_path / "config.json", model="modernbert"))
    model.set_weights(whole.get_weights())
    expected = tf.gather(whole(tokens()), POSITIONS, batch_dims=1)
    assert_near(model([*tokens(), tf.constant(POSITIONS)]), expected)


def outputs_and_gradients(model, inputs):
    with tf.GradientTape() as tape:
        outputs = model(inputs, training=False)
        loss = tf.reduce_sum(tf.sin(outputs))
    gradients = tape.gradient(loss, [v.value for v in model.trainable_weights])
    return [outputs, *map(tf.convert_to_tensor, gradients)]


@pytest.mark.parametrize(
    ("blocks", "options"),
    [(2, {}), slow(4, {}), slow(1, {}), slow(2, {"with_pack": True})],
)
def test_an_early_gather_gives_the_same(blocks, options, tmp_path):
    bert = build(tmp_path, options, num_hidden_layers=blocks)
    late = scramble(masked_lm(bert))
    early = masked_lm(bert, predictions=3, early_gather=True)
    for name in ("MLM-Dense", "MLM-Norm", "MLM-Bias"):
        early.get_layer(name).set_weights(late.get_layer(name).get_weights())
    inputs = [*tokens(), tf.constant(POSITIONS)]
    if "with_pack" in options:
        inputs.insert(1, tf.constant(1 + (np.arange(TIME) > 5) + 0 * TOKENS))
    feed_forward = early.get_layer(f"Transformer-{blocks - 1}-FeedForward")
    assert tuple(feed_forward._inbound_nodes[-1].output_tensors[0].shape)[1] == 3
    found, expected = (outputs_and_gradients(m, inputs) for m in (early, late))
    for a, b in zip(found, expected, strict=True):
        assert_near(a, b)


def test_the_loss_within_is_that_of_the_logits(bert):
    model = masked_lm(bert, early_gather=True, with_loss=True)
    logits = masked_lm(bert)
    for name in ("MLM-Dense", "MLM-Norm", "MLM-Bias"):
        model.get_layer(name).set_weights(logits.get_layer(name).get_weights())
    labels, weights = POSITIONS + 3, np.ones(POSITIONS.shape, np.float32)
    inputs = [*tokens(), tf.constant(POSITIONS)]
    found = model([*inputs, tf.constant(labels), tf.constant(weights)])
    expected = keras.losses.sparse_categorical_crossentropy(
        labels, logits(inputs), from_logits=True
    )
    assert_near(found, expected)


def test_a_classifier_reads_the_first_token(bert):
    model = classifier(bert, 3, dropout=0.0)
    pooler, last = (model.get_layer(name) for name in ("Pooler-Dense", "Classifier"))
    expected = last(pooler(bert(tokens())[:, 0]))
    np.testing.assert_allclose(model(tokens()), expected, rtol=1e-6)
    with pytest.raises(InputError, match="no place for the weights of Pooler-Dense, C"):
        stored_tensors(model)


# Surgery, files, memory.


def test_a_cut_within_a_local_block_is_exact(tmp_path):
    """Of a model with a head; test_zoo_bert4keras.py cuts at every tensor."""
    model = build(tmp_path, {"with_mlm": True})
    attention = "Transformer-1-MultiHeadSelfAttention"
    points = [f"{attention}-Norm", f"{attention}-Probabilities"]
    assert cut_at_all(model, tokens(), points) == ({}, [])


def test_the_rest_needs_hidden_states_and_mask_alone(bert, tmp_path):
    rest = build_bert_from(
        "Embedding-Norm", tmp_path / "config.json", model="modernbert"
    )
    rest.set_weights(bert.get_weights()[1:][-len(rest.get_weights()) :])
    front, _ = split(bert, "Embedding-Norm")
    hidden, mask = front(tokens())
    np.testing.assert_array_equal(rest([hidden, mask]), bert(tokens()))


@pytest.mark.parametrize("wrap", [lambda run: run, slow(tf.function)])
def test_recomputed_blocks_give_the_same_with_dropout(wrap, tmp_path):
    model = masked_lm(build(tmp_path, **DROPOUT), predictions=3, early_gather=True)
    again = recompute_activations(model)
    assert sum("block" in layer.name for layer in again.layers) == 2
    states = [v for v in model.variables if "seed_generator" in v.path]
    inputs = [*tokens(), tf.constant(POSITIONS)]
    weights = [v.value for v in model.trainable_weights]

    def step(model):
        for index, state in enumerate(states):
            state.assign([7, index])

        @wrap
        def run():
            with tf.GradientTape() as tape:
                outputs = model(inputs, training=True)
                loss = tf.reduce_sum(tf.sin(outputs))
            return outputs, tape.gradient(loss, weights)

        return run()

    (found, others), (expected, gradients) = step(again), step(model)
    assert_near(found, expected, 1e-6)
    assert np.abs(found - model(inputs)).max() > 0.01  # there is dropout
    for a, b in zip(others, gradients, strict=True):
        assert_near(tf.convert_to_tensor(a), tf.convert_to_tensor(b))


def test_dropout_is_where_the_configuration_says(tmp_path):
    model = build(tmp_path, {"dropout_rate": 0.3}, attention_dropout=0.1)
    rates = {
        layer.name: layer.rate
        for layer in model.layers
        if isinstance(layer, keras.layers.Dropout)
    }
    attention = "Transformer-{}-MultiHeadSelfAttention-Dropout"
    assert rates == {
        "Embedding-Dropout": 0.3,
        **{attention.format(index): 0.1 for index in range(2)},
    }
    assert model.get_layer("Transformer-1-FeedForward").dropout.rate == 0.3
    attention = model.get_layer("Transformer-1-MultiHeadSelfAttention")
    assert attention.attention_dropout == 0.1


@pytest.mark.parametrize("ending", ["model.keras", slow("model.weights.h5")])
def test_it_is_saved_and_loaded(ending, tmp_path):
    model = scramble(masked_lm(build(tmp_path, **DROPOUT)))
    inputs = [*tokens(), tf.constant(POSITIONS)]
    if ending.endswith(".keras"):
        model.save(tmp_path / ending)
        again = keras.models.load_model(tmp_path / ending)
    else:
        model.save_weights(tmp_path / ending)
        again = keras.models.model_from_json(model.to_json())
        again.load_weights(tmp_path / ending)
    np.testing.assert_array_equal(again(inputs), model(inputs))


def test_google_has_no_file_of_it(bert, tmp_path):
    config, path = tmp_path / "config.json", tmp_path / "model.ckpt"
    save_google_checkpoint(build_bert(write_config(tmp_path)), path)
    uses = (
        lambda: save_google_checkpoint(bert, path, "modernbert"),
        lambda: load_google_checkpoint(bert, path, "modernbert"),
        lambda: build_bert(config, path, model="modernbert"),
    )
    for use in uses:
        with pytest.raises(InputError, match="'modernbert' model has no checkpoint in"):
            use()


@pytest.mark.parametrize(
    ("said", "options", "types"),
    [
        ({"layer_types": TYPES}, {"global_attn_every_n_layers": 1}, ["full"] * 2),
        ({"layer_types": TYPES}, {"num_hidden_layers": 1}, ["full"]),
        ({"global_attn_every_n_layers": 1}, {"layer_types": TYPES}, TYPES),
    ],
)
def test_an_option_replaces_what_the_file_says_of_layers(
    said, options, types, tmp_path
):
    model = build(tmp_path, options, **said)
    found = [name.removesuffix("_attention") for name in describe(model)["layer_types"]]
    assert found == [name.removesuffix("_attention") for name in types]


def test_a_head_that_the_model_does_not_have_may_be_untied(bert, tmp_path):
    save_safetensors(masked_lm(bert), tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    table = tensors["model.embeddings.tok_embeddings.weight"]
    save_file({**tensors, "decoder.weight": table + 1}, path)
    load_safetensors(bert, path)
    with pytest.raises(InputError, match="the head is not tied"):
        load_safetensors(masked_lm(bert), path)
    save_file({**tensors, "head.dense.bias": np.zeros(16, np.float32)}, path)
    with pytest.raises(InputError, match=r"head\.dense\.bias would be left unread"):
        load_safetensors(masked_lm(bert), path)


def test_a_pooler_of_another_function_is_not_written(bert, tmp_path):
    with pytest.raises(InputError, match="no place for the weights of Pooler-Dense"):
        save_safetensors(classifier(bert, 2), tmp_path / "bert")


@pytest.mark.parametrize("head", [lambda bert: bert, masked_lm])
def test_files_of_either_form_are_written_and_read(head, bert, tmp_path):
    model = head(bert)
    save_safetensors(model, tmp_path / "files")
    again = head(build_bert(tmp_path / "files" / "config.json"))
    load_safetensors(again, tmp_path / "files")
    for name, weights in stored_weights(model).items():
        for a, b in zip(weights, stored_weights(again)[name], strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_tensor_that_would_be_left_unread_is_refused(bert, tmp_path):
    save_safetensors(bert, tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = {**load_file(path), "layers.0.attn.Wqkv.bias": np.zeros(3, np.float32)}
    save_file(tensors, path)
    with pytest.raises(InputError, match="Wqkv.bias would be left unread"):
        load_safetensors(bert, tmp_path)


# Tensors of Hugging Face.


def write(tensors, folder):
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    return StoredTensors(folder)


@pytest.mark.parametrize("head", [masked_lm, slow(lambda bert: bert)])
def test_tensors_are_read_as_they_are_written(head, bert, tmp_path):
    model = scramble(head(bert))
    tensors = stored_tensors(model)
    prefix = "model." if head is masked_lm else ""
    wide = tensors[f"{prefix}layers.1.attn.Wqkv.weight"]
    attention = model.get_layer("Transformer-1-MultiHeadSelfAttention")
    parts = attention.q_dense, attention.k_dense, attention.v_dense
    for found, part in zip(np.split(wide, 3), parts, strict=True):
        np.testing.assert_array_equal(found, part.kernel.numpy().T)
    again = head(build_bert(tmp_path / "config.json", model="modernbert"))
    for weight, value in read_values(again, write(tensors, tmp_path / "file")):
        weight.assign(value)
    for found, expected in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


NAME = "layers.1.mlp.Wi.weight"
WRONG = {
    "missing": (lambda x: x.pop(NAME), f"expected a tensor model.{NAME}, found none"),
    "one half": (
        lambda x: x.update({NAME: x[NAME][:24].copy()}),
        r"Wi.weight: expected shape \(48, 16\), .* found \(24, 16\)",
    ),
    "twice": (
        lambda x: x.update({f"model.{NAME}": x[NAME]}),
        f"expected one tensor for model.{NAME}, found {NAME} and model.{NAME}",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_does_not_fit_is_refused(case, bert, tmp_path):
    tensors, (change, message) = stored_tensors(bert), WRONG[case]
    change(tensors)
    with pytest.raises(InputError, match=message) as caught:
        read_values(bert, write(tensors, tmp_path / "file"))
    assert "\n" not in str(caught.value)


def test_the_configuration_is_read_from_the_model(tmp_path):
    changes = {"local_attention": 6, "num_hidden_layers": 3, **DROPOUT}
    found = describe(masked_lm(build(tmp_path, **changes)))
    for name, value in {**PUBLISHED, **changes}.items():
        if name in found and name != "architectures":
            assert found[name] == value, name
    assert found["layer_types"] == [*TYPES, "sliding_attention"]
    (tmp_path / "again").mkdir()
    again = write_modern(tmp_path / "again", **found, torch_dtype=None)
    assert describe(masked_lm(build_bert(again, model="modernbert"))) == found


UNSEEN = {
    "num_attention_heads": 4,
    "norm_eps": 1e-6,
    "pad_token_id": 3,
    "hidden_activation": "silu",
    "local_attention": 6,
    "global_rope_theta": 5.0,
    "local_rope_theta": 5.0,
    "global_attn_every_n_layers": 1,
}


@pytest.mark.parametrize("name", others_slow(["local_attention"], UNSEEN))
def test_the_configuration_of_another_model_is_seen(name, bert, tmp_path):
    changes = {name: UNSEEN[name], "layer_norm_eps": None}
    if name == "hidden_activation":
        changes["classifier_activation"] = UNSEEN[name]
    own = describe(bert)
    more = write_modern(tmp_path, num_hidden_layers=5, local_attention=5)
    check(own, more)  # the same function, for this model
    with pytest.raises(InputError, match="this file do not fit: .*, as the model has"):
        check(own, write_modern(tmp_path, **changes))


def test_another_model_is_not_described(bert):
    bert.get_layer("Transformer-1-FeedForward").activation[0] = keras.activations.relu
    with pytest.raises(InputError, match="gelu or another activation .* the same in a"):
        describe(bert)
    other = keras.Model(bert.inputs, bert.get_layer("Embedding-Norm").output)
    with pytest.raises(InputError, match="this one lacks Output-Norm"):
        describe(other)


# Settings.


OLD = ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")
NEW = {
    "layer_types": TYPES,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 160000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
}
SAME = {
    "newer": {**dict.fromkeys(OLD), **NEW},
    "both": NEW,
    "shortest": {
        **dict.fromkeys([*OLD, "norm_eps", "layer_norm_eps", "mlp_dropout"]),
        **dict.fromkeys(["classifier_activation", "embedding_dropout"]),
    },
}


@pytest.mark.parametrize("case", SAME)
def test_older_and_newer_configurations_give_the_same(case, bert, tmp_path):
    (tmp_path / "again").mkdir()
    again = build(tmp_path / "again", **SAME[case])
    assert describe(again) == describe(bert)


def test_the_types_of_layers_are_obeyed_one_by_one(tmp_path):
    types = ["sliding_attention", *TYPES]
    said = {"global_attn_every_n_layers": None, "layer_types": types}
    bert = build(tmp_path, num_hidden_layers=3, **said)
    found, config = describe(bert), {**PUBLISHED, "layer_types": types}
    assert found["layer_types"] == types
    assert "global_attn_every_n_layers" not in found
    expected = numpy_modernbert.encode(stored_tensors(bert), TOKENS, config, IS_REAL)
    assert_near(bert(tokens()).numpy()[IS_REAL], expected[IS_REAL])


ROPE = NEW["rope_parameters"]
YARN = {**ROPE, "full_attention": {"rope_type": "yarn", "rope_theta": 1.0, "factor": 4}}
REFUSED = [
    ({"attention_bias": True}, "attention_bias is True: a 'modernbert' model .* False"),
    ({"mlp_bias": True}, "mlp_bias is True"),
    ({"norm_bias": True}, "norm_bias is True"),
    ({"classifier_bias": True}, "classifier_bias is True"),
    ({"decoder_bias": False}, "decoder_bias is False"),
    ({"rope_scaling": {"factor": 2.0}}, "rope_scaling is .* has none"),
    ({"head_dim": 4}, "head_dim is 4"),
    ({"tie_word_embeddings": False}, "tie_word_embeddings is False"),
    ({"is_decoder": True}, "is_decoder is True"),
    ({"hidden_activation": "silu"}, "classifier_activation, of the head: expected one"),
    (
        {"rope_parameters": YARN},
        "rope_parameters.full_attention: expected rope_theta a",
    ),
    ({"rope_parameters": {"rope_theta": 1.0}}, "expected an object for each of full_"),
    ({"rope_parameters": ROPE, "local_rope_theta": 5.0}, "are one setting: .* 5.0 and"),
    ({"layer_types": TYPES[1:]}, "layer_types: expected a list of .* of the 2 layers"),
    ({"layer_types": ["chunked_attention"] * 2}, "layer_types: expected a list of ful"),
    (
        {"layer_types": TYPES[::-1]},
        "layer_types and global_attn_every_n_layers",
    ),
    ({"global_attn_every_n_layers": 0}, "every_n_layers: expected a whole number >= 1"),
    ({"global_rope_theta": 0}, "global_rope_theta: expected a number > 0"),
    ({"local_attention": -1}, "local_attention: expected a whole number >= 0"),
    ({"mlp_dropout": 1.0}, "mlp_dropout: expected a number >= 0 and < 1"),
    ({"norm_eps": 1e-6}, "norm_eps are one setting: .* 1e-05 and 1e-06"),
    ({"num_attention_heads": 16}, "expected heads of even width, found 1, 16 for 16"),
    ({"pad_token_id": 50283}, "pad_token_id 50283 is none of the 30 tokens"),
    ({"pad_token_id": None}, "pad_token_id 50283 is none of the 30 tokens"),
    ({"model_type": "bert"}, "model_type is 'bert', the model to build is a 'modern"),
    ({"dropout_rate": 0.1}, "embedding_dropout and dropout_rate are one setting"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_another_model_is_refused(changes, message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        build(tmp_path, **changes)
    assert "\n" not in str(caught.value)


def test_a_null_that_versions_read_differently_is_refused(tmp_path):
    path = write_modern(tmp_path)
    path.write_text(path.read_text().replace("10000.0", "null", 1))
    with pytest.raises(
        InputError, match="local_rope_theta: expected a number, found n"
    ):
        build_bert(path, model="modernbert")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segment_vocab_size": 2}, "no option segment_vocab_size"),
        ({"with_pool": True}, "no option with_pool"),
        ({"embedding_size": 8}, "no option embedding_size"),
        ({"application": "lm"}, "'modernbert' model has no application 'lm'"),
        ({"keep_tokens": [0, 1]}, "pad_token_id 29 is none of the 2 tokens"),
    ],
)
def test_options_that_it_does_not_have_are_refused(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        build(tmp_path, options)


def test_its_file_tells_its_kind(tmp_path):
    assert kind_of(build_bert(write_modern(tmp_path))) == "modernbert"


def test_a_part_of_the_vocabulary(tmp_path):
    options = {"keep_tokens": [PAD, 3, 4, 5], "compound_tokens": [[1, 2]]}
    table = build(tmp_path, options).get_layer("Embedding-Token")
    assert (table.input_dim, table.pad_id) == (5, 0)
