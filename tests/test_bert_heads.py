"""The heads on a BERT: the tied masked language model and the classifier."""

import numpy as np
import pytest
import tensorflow as tf
from bert_samples import BATCH, CONFIG, TOKENS, scramble, write_config
from tensorflow import keras

from tiedbert.bert import build_bert, classifier, masked_lm

POSITIONS = np.array([[1, 3], [5, 0]], np.int32)
LABELS = np.array([[7, 9], [12, 2]], np.int32)
INPUTS = [*BATCH, POSITIONS]


@pytest.fixture
def bert(tmp_path):
    return build_bert(write_config(tmp_path))


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


def test_the_logits_are_those_of_all_positions_gathered(bert, model):
    hidden = bert(BATCH)
    for name in ("MLM-Dense", "MLM-Norm", "MLM-Bias"):
        hidden = model.get_layer(name)(hidden)
    expected = tf.gather(hidden, POSITIONS, batch_dims=1)
    np.testing.assert_allclose(model(INPUTS), expected, atol=1e-5)


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


def test_padding_does_not_change_the_logits(model):
    longer = [np.pad(array, [(0, 0), (0, 5)]) for array in BATCH]
    found = model([*longer, POSITIONS])
    np.testing.assert_allclose(found, model(INPUTS), atol=1e-5)


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


@pytest.mark.parametrize("head", [masked_lm, lambda bert: classifier(bert, 3)])
def test_the_kernels_of_a_head_start_apart_from_each_other(bert, head):
    kernels = [w.numpy() for w in head(bert).weights if "kernel" in w.name]
    assert len({kernel.tobytes() for kernel in kernels}) == len(kernels)
