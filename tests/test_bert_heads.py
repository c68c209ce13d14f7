"""The heads on a BERT: the tied masked language model and the classifier."""

import warnings

import bert_mlm
import numpy as np
import pytest
import tensorflow as tf
from bert_samples import BATCH, CONFIG, TOKENS, build_theirs, scramble, write_config
from generation import IS_LEGACY
from tensorflow import keras
from variants import legacy, others_slow

from tiedbert.bert import build_bert, classifier, masked_lm
from tiedbert.bert.backend import FeedForward
from tiedbert.bert.early_gather import last_attention
from tiedbert.errors import InputError
from tiedbert.layers import EmbeddingDense, check_tied
from tiedbert.surgery import inject, insert, split
from tiedbert.surgery.graph import Graph

FEED_FORWARD = "Transformer-0-FeedForward"
POSITIONS = np.array([[1, 3], [5, 0]], np.int32)
LABELS = np.array([[7, 9], [12, 2]], np.int32)
INPUTS = [*BATCH, POSITIONS]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """An encoder, which no test changes but for its weights, and these."""
    bert = build_bert(write_config(tmp_path_factory.mktemp("bert")))
    return bert, bert.get_weights()


@pytest.fixture
def bert(built):
    bert, weights = built
    bert.set_weights(weights)
    return bert


@pytest.fixture
def model(bert):
    return scramble(masked_lm(bert))


def table_of(model):
    return model.get_layer("Embedding-Token").embeddings


def cross_entropy(logits):
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, logits)
    )


def weights_as_large_as_the_table(model):
    shape = (CONFIG["vocab_size"], CONFIG["hidden_size"])
    return [w for w in model.weights if tuple(w.shape) == shape]


def assert_tied(model):
    """One table, and the logits move with it."""
    (table,) = weights_as_large_as_the_table(model)
    assert table is table_of(model)
    before = model(INPUTS)
    row = np.zeros(table.shape, np.float32)
    row[29] = 1.0  # a token that is in no text: the inputs do not change
    table.assign_add(row)
    change = np.abs(model(INPUTS) - before)
    table.assign_sub(row)
    assert change[..., 29].min() > 1e-3
    assert change[..., :29].max() == 0.0


def test_input_and_output_share_one_table(model):
    assert_tied(model)


def test_only_the_masked_positions_reach_the_transform(model):
    before = keras.Model(model.inputs, model.get_layer("MLM-Dense").input)
    assert before(INPUTS).shape == (2, 2, CONFIG["hidden_size"])


def test_the_gradient_of_the_table_is_the_sum_of_both_sides(model):
    table, head = table_of(model), model.get_layer("MLM-Bias")
    below = keras.Model(model.inputs, model.get_layer("MLM-Norm").output)
    with tf.GradientTape() as tape:
        loss = cross_entropy(model(INPUTS))
    whole = tf.convert_to_tensor(tape.gradient(loss, table))
    with tf.GradientTape() as tape:
        kernel = tf.transpose(tf.constant(table.numpy()))
        loss = cross_entropy(below(INPUTS) @ kernel + head.bias)
    from_input = tf.convert_to_tensor(tape.gradient(loss, table))
    hidden = tf.constant(below(INPUTS).numpy())
    with tf.GradientTape() as tape:
        loss = cross_entropy(head(hidden))
    from_output = tf.convert_to_tensor(tape.gradient(loss, table))
    assert np.abs(from_input).max() > 1e-3
    assert np.abs(from_output).max() > 1e-3
    np.testing.assert_allclose(whole, from_input + from_output, atol=1e-6)


@pytest.mark.slow
def test_the_tie_holds_after_training(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-2), loss)
    before = table_of(model).numpy()
    first, *_, last = model.fit(INPUTS, LABELS, epochs=20, verbose=0).history["loss"]
    assert last < first / 2
    moved = np.abs(table_of(model).numpy() - before).max(axis=1)
    assert moved.min() > 0.0  # rows of every token: the output side trains them all
    assert_tied(model)


def test_the_tie_survives_save_and_load(model, tmp_path):
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(INPUTS), model(INPUTS))
    assert len(again.weights) == len(model.weights)
    assert_tied(again)


def test_the_tie_survives_a_clone(model):
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(clone(INPUTS), model(INPUTS))
    assert_tied(clone)
    assert table_of(clone) is not table_of(model)


def test_any_number_of_positions_fits(model):
    one = model([*BATCH, POSITIONS[:, :1]])
    np.testing.assert_allclose(one, model(INPUTS)[:, :1], atol=1e-5)


# The classifier.


def test_the_classifier_reads_the_first_token(bert):
    model = scramble(classifier(bert, num_labels=3))
    hidden = bert(BATCH).numpy()[:, 0]
    for name, function in (("Pooler-Dense", np.tanh), ("Classifier", np.asarray)):
        kernel, bias = model.get_layer(name).get_weights()
        hidden = function(hidden @ kernel + bias)
    assert model.output_shape == (None, 3)
    np.testing.assert_allclose(model(BATCH), hidden, atol=1e-5)


def test_the_classifier_drops_out_in_training_only(bert):
    model = classifier(bert, num_labels=3, dropout=0.5)
    np.testing.assert_array_equal(model(BATCH), model(BATCH))
    assert np.any(model(BATCH, training=True) != model(BATCH, training=True))


def test_the_classifier_ignores_padding(bert):
    model = scramble(classifier(bert, num_labels=3))
    short = [array[:1, :5] for array in BATCH]
    np.testing.assert_allclose(model(short), model(BATCH)[:1], atol=1e-5)
    assert TOKENS[0, 5:].max() == 0


def test_a_pooler_that_an_encoder_has_is_used(tmp_path):
    bert = scramble(build_bert(write_config(tmp_path), with_pool=True))
    model = classifier(bert, num_labels=3)
    pooler = bert.get_layer("Pooler-Dense")
    assert [x for x in model.layers if "Pooler-Dense" in x.name] == [pooler]
    kernel, bias = model.get_layer("Classifier").get_weights()
    np.testing.assert_allclose(model(BATCH), bert(BATCH) @ kernel + bias, atol=1e-6)
    model.save(tmp_path / "model.keras")  # no code in it: it is read in safe mode
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(BATCH), model(BATCH))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (masked_lm, r"gives \(None, None, 30\) and has MLM-Bias, "),
        (lambda bert: classifier(bert, 2), r"gives \(None, 2\) and has Classifier"),
        (
            lambda bert: split(bert, "Embedding-Norm")[0],
            "encoder of bert4keras' layers",
        ),
    ],
)
def test_a_classifier_takes_encoders_alone(bert, build, message):
    with pytest.raises(InputError, match=f"classifier expected an .*{message}"):
        classifier(build(bert), 2)


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"with_nsp": True}, r"\(None, 2\) and has NSP-Proba"),
        # As wide as the hidden states: the shape does not tell it.
        ({"with_mlm": True, "vocab_size": 16}, r"\(None, None, 16\) and has MLM-"),
        legacy({"model": "gpt"}, r"\(None, None, 30\) and has LM-Activation"),
    ],
)
@pytest.mark.parametrize("head", [masked_lm, lambda bert: classifier(bert, 2)])
def test_a_head_is_put_on_no_other(tmp_path, options, message, head):
    with pytest.raises(InputError, match=f"an encoder without a head.*{message}"):
        head(build_bert(write_config(tmp_path), **options))


@pytest.mark.parametrize("number", [0, "2", 2.0, True])
def test_a_number_of_classes_is_one(bert, number):
    with pytest.raises(InputError, match="num_labels: expected .* received"):
        classifier(bert, number)
    with pytest.raises(InputError, match="dropout: expected 0 <= dropout < 1"):
        classifier(bert, 2, dropout=number or "none")


@pytest.mark.cases(1)
@pytest.mark.parametrize("head", [masked_lm, lambda bert: classifier(bert, 3)])
def test_the_kernels_of_a_head_start_apart_from_each_other(bert, head):
    kernels = [w.numpy() for w in head(bert).weights if "kernel" in w.name]
    assert len({kernel.tobytes() for kernel in kernels}) == len(kernels)


# Every kind that has such a head. The oracle is bert4keras' own model with its head on
# every position; where it has none (ELECTRA), the BERT of the same layers.

KINDS = {**bert_mlm.KINDS, "bert-scores": {"residual_attention_scores": True}}
KINDS["roformer_v2-narrow"] = {"embedding_size": 8}


@pytest.fixture(scope="module", params=others_slow(bert_mlm.BY_DEFAULT, KINDS))
def pair(request, tmp_path_factory):
    """Encoder of a kind, and bert4keras' model with its head and the same weights."""
    config = write_config(tmp_path_factory.mktemp("kind"), num_hidden_layers=2)
    kind, options = bert_mlm.kind_of(request.param), KINDS[request.param]
    theirs = bert_mlm.theirs(kind, config, **options).model
    return build_bert(config, model=kind, **options), theirs


def with_weights_of(theirs, model):
    """`model` with the weights of bert4keras' model, layer by layer."""
    for layer in model.layers:
        if isinstance(layer, EmbeddingDense):
            if layer.use_bias:
                layer.bias.assign(theirs.get_layer("MLM-Bias").get_weights()[0])
        elif layer.weights:
            layer.set_weights(theirs.get_layer(layer.name).get_weights())
    return model


def gradients(model, logits_of):
    """Name of a layer and place of the weight in it -> gradient of a loss."""
    layers = [layer for layer in model.layers if not isinstance(layer, EmbeddingDense)]
    places = {
        (layer.name, i): weight
        for layer in layers
        for i, weight in enumerate(layer.trainable_weights)
    }
    heads = [x for x in model.layers if isinstance(x, EmbeddingDense) and x.use_bias]
    places.update({(head.name, 0): head.bias for head in heads})
    with tf.GradientTape() as tape:
        loss = cross_entropy(logits_of(model))
    found = tape.gradient(loss, list(places.values()))
    return {
        place: tf.convert_to_tensor(gradient)
        for place, gradient in zip(places, found, strict=True)
        if gradient is not None
    }


@pytest.mark.cases(2)
@pytest.mark.parametrize("early", [False, True])
def test_every_kind_has_the_logits_and_gradients_of_bert4keras(pair, early):
    bert, theirs = pair
    model = with_weights_of(theirs, masked_lm(bert, early_gather=early))

    def gathered(theirs):
        everywhere = theirs(bert_mlm.inputs_of(theirs))
        return tf.gather(everywhere, POSITIONS, batch_dims=1)

    def ours(model):
        return model(bert_mlm.inputs_of(model))

    expected = gathered(theirs)
    assert np.ptp(expected) > 0.3
    np.testing.assert_allclose(ours(model), expected, atol=1e-6, rtol=0)
    expected, found = gradients(theirs, gathered), gradients(model, ours)
    assert found.keys() == expected.keys()
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for place, gradient in expected.items():
        # That of the bias of keys is 0 but for rounding.
        scale = max(np.abs(gradient).max(), 1e-3 * largest)
        np.testing.assert_allclose(
            found[place] / scale, gradient / scale, atol=1e-4, err_msg=str(place)
        )


@pytest.mark.cases(2)
@pytest.mark.parametrize("early", [False, True])
def test_padding_changes_no_logit_of_any_kind(pair, early):
    bert, theirs = pair
    model = with_weights_of(theirs, masked_lm(bert, early_gather=early))
    padded = model(bert_mlm.inputs_of(model, pad=5))
    found = model(bert_mlm.inputs_of(model))
    np.testing.assert_allclose(padded, found, atol=1e-6, rtol=0)


@pytest.mark.cases(2)
def test_the_last_block_of_every_kind_sees_the_positions_alone(pair):
    bert, _ = pair
    model = masked_lm(bert, predictions=2, early_gather=True)
    graph = Graph(model)
    blocks = [call for call in graph.calls if isinstance(call.layer, FeedForward)]
    assert [call.inputs[0].shape[1] for call in blocks] == [None, 2]
    shared = blocks[0].layer is blocks[-1].layer  # ALBERT's one block
    assert [call.index for call in blocks] == [0, 1 if shared else 0]
    assert model.output_shape == (None, 2, CONFIG["vocab_size"])
    assert model.get_layer("Embedding-Token") is bert.get_layer("Embedding-Token")


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("kind", "queries"), [("bert", 2), ("albert", 2), ("electra", 2), ("nezha", None)]
)
def test_queries_are_gathered_where_the_attention_can_choose(tmp_path, kind, queries):
    bert = build_bert(write_config(tmp_path, num_hidden_layers=2), model=kind)
    graph = Graph(masked_lm(bert, predictions=2, early_gather=True))
    query, key, value, *_ = last_attention(graph).inputs
    if not IS_LEGACY:  # a layer of its own makes the probabilities
        value, first = key, graph.producers[value]
        assert first.inputs[0] is query or queries is None
        key = first.inputs[1]
    assert [tensor.shape[1] for tensor in (query, key, value)] == [queries, None, None]


@pytest.mark.slow
def test_an_early_gather_trains_with_dropout_and_keeps_the_tie(tmp_path):
    config = write_config(tmp_path, hidden_dropout_prob=0.1)
    model = scramble(masked_lm(build_bert(config), predictions=2, early_gather=True))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-2), loss)
    first, *_, last = model.fit(INPUTS, LABELS, epochs=30, verbose=0).history["loss"]
    assert last < first / 2
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(INPUTS), model(INPUTS))
    assert_tied(again)


def test_the_encoder_is_left_as_it_was(bert):
    before = bert(BATCH)
    masked_lm(bert, early_gather=True)
    np.testing.assert_array_equal(bert(BATCH), before)
    assert "MLM-Gather" not in {layer.name for layer in bert.layers}


def test_every_shape_is_static_when_all_sizes_are_known(tmp_path):
    bert = build_bert(write_config(tmp_path), sequence_length=7)
    model = masked_lm(bert, predictions=2, early_gather=True)
    shapes = [t.shape[1:] for call in Graph(model).calls for t in call.outputs]
    assert all(None not in tuple(shape) for shape in shapes)
    compiled = tf.function(model, jit_compile=True)
    found = compiled([tf.constant(array) for array in INPUTS])
    np.testing.assert_allclose(found, model(INPUTS), atol=1e-5)


def test_another_number_of_positions_is_refused(bert):
    model = masked_lm(bert, predictions=3)
    with pytest.raises(ValueError, match="expected shape=\\(None, 3\\)"):
        model(INPUTS)


@pytest.mark.cases(1)
@pytest.mark.parametrize("head", [masked_lm, lambda bert: classifier(bert, 3)])
def test_a_head_starts_as_wide_as_the_configuration_says(tmp_path, head):
    config = write_config(tmp_path, hidden_size=64, initializer_range=0.05)
    model = head(build_bert(config))
    name = "MLM-Dense" if model.name == "masked_lm" else "Pooler-Dense"
    # Cut at two standard deviations, which Keras does not make up for.
    spread = np.std(model.get_layer(name).get_weights()[0])
    assert spread == pytest.approx(0.88 * 0.05, rel=0.05)


def test_a_head_on_bert4keras_own_model_starts_apart_too(tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The initializer .* is unseeded")
        model = classifier(build_theirs(write_config(tmp_path)), 16)
    first, second = (
        model.get_layer(name).get_weights()[0]
        for name in ("Pooler-Dense", "Classifier")
    )
    assert np.any(first != second)


def test_the_head_has_the_activation_of_the_configuration(tmp_path):
    bert = build_bert(write_config(tmp_path, hidden_act="relu"))
    assert masked_lm(bert).get_layer("MLM-Dense").activation is keras.activations.relu


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({"with_mlm": True}, r"\(None, None, 30\)"),
        ({"with_pool": True}, r"\(None, 16\)"),
        ({"with_nsp": True, "with_mlm": True}, r"\(None, 2\), \(None, None, 30\)"),
        ({"application": "lm"}, r"\(None, None, 30\)"),
        legacy({"model": "gpt"}, r"\(None, None, 30\)"),
        ({"model": "electra", "with_discriminator": True}, r"\(None, None, 1\)"),
    ],
)
def test_what_has_a_head_already_is_refused(tmp_path, options, given):
    model = build_bert(write_config(tmp_path), **options)
    with pytest.raises(
        InputError, match=f"without a head.* gives {given}( and has |$)"
    ):
        masked_lm(model)


def test_what_is_no_bert_is_refused():
    tokens = keras.Input((None,))
    model = keras.Model(tokens, keras.layers.Embedding(3, 2)(tokens), name="plain")
    with pytest.raises(InputError, match="layers with an input .* received model 'pl"):
        masked_lm(model)


@pytest.mark.legacy_keras
def test_a_t5_has_no_such_head(tmp_path):
    encoder = build_bert(write_config(tmp_path), model="t5_encoder")
    with pytest.raises(InputError, match='layers with an input "Input-Token"'):
        masked_lm(encoder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk": 3}, "no option chunk: expected .* of the loss chunk_size, "),
        ({"with_loss": True, "use_bias": False}, "no option use_bias: "),
        ({"z_loss": 0.1}, "received z_loss, of the loss: that needs with_loss=True"),
    ],
)
def test_options_that_do_not_exist_are_refused(bert, options, message):
    with pytest.raises(InputError, match=message):
        masked_lm(bert, **options)


@pytest.mark.cases(1)
@pytest.mark.parametrize("kind", ["bert", "albert", "nezha", "roformer_v2"])
def test_a_model_of_every_initializer_survives_a_file(tmp_path, kind):
    model = scramble(masked_lm(build_bert(write_config(tmp_path), model=kind)))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(INPUTS), model(INPUTS))
    (tie,) = check_tied(again)
    assert tie.embedding is again.get_layer("Embedding-Token")


@pytest.mark.cases(1)
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("model", ["bert", "roformer_v2"])
def test_the_loss_inside_is_that_of_the_logits(tmp_path, model, early):
    """Of every position, and the gradients of every weight; smoothing arrives."""
    config = write_config(tmp_path)
    bert = build_bert(config, model=model)
    inside = scramble(masked_lm(bert, early_gather=early, with_loss=True, z_loss=0.01))
    outside = with_weights_of(inside, masked_lm(build_bert(config, model=model)))
    labels = np.array([[4, 9], [17, 0]], np.int32)
    weights = np.array([[1.0, 0.5], [2.0, 0.0]], np.float32)
    with tf.GradientTape(persistent=True) as tape:
        each = inside([*INPUTS, labels, weights])
        loss = tf.add_n(inside.losses)
        logits = outside(INPUTS)
        plain = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        penalty = 0.01 * tf.reduce_logsumexp(logits, -1) ** 2
        expected = tf.reduce_sum(weights * (plain + penalty)) / weights.sum()
    np.testing.assert_allclose(each, plain, rtol=1e-5)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    found, right = (
        tape.gradient(value, made.trainable_weights)
        for value, made in ((loss, inside), (expected, outside))
    )
    for ours, theirs in zip(found, right, strict=True):
        ours, theirs = map(tf.convert_to_tensor, (ours, theirs))
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_positions_that_meet_behind_the_last_attention_are_refused(bert):
    mixed = insert(bert, FEED_FORWARD, keras.layers.Conv1D(16, 1, name="mixer"))
    with pytest.raises(InputError, match="position-wise layers .* found .*mixer"):
        masked_lm(mixed, early_gather=True)
    perturbed = inject(bert, FEED_FORWARD)
    with pytest.raises(InputError, match="early_gather expected .* found "):
        masked_lm(perturbed, early_gather=True)
    perturbed_before = inject(bert, "Embedding-Norm")
    model = scramble(masked_lm(perturbed_before, early_gather=True))
    delta = np.zeros([*TOKENS.shape, 16], np.float32)
    late = with_weights_of(model, masked_lm(bert))
    found = model([*BATCH, delta, POSITIONS])
    np.testing.assert_allclose(found, late(INPUTS), atol=1e-6)
