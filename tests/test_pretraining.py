"""Batches and loss of masked language model pretraining."""

import math

import numpy as np
import pytest
import tensorflow as tf
from bert_samples import write_config
from tensorflow import keras
from text_samples import VOCAB_SIZE, documents, tokenizer

from tiedbert.bert import build_bert, masked_lm
from tiedbert.optimization import adamw
from tiedbert.pretraining import compile_masked_lm, held_out_batches, masked_batches
from tiedbert.text.records import corpus_dataset, write_corpus

LENGTH = 16
BATCH = 8
HELD_OUT = 24


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(documents(100), tokenizer(), folder, LENGTH, shards=2)
    return folder


@pytest.fixture(scope="module")
def sequences(corpus):
    return [tuple(row.tolist()) for row in corpus_dataset(corpus).as_numpy_iterator()]


def batches(corpus, count, **options):
    dataset = masked_batches(corpus, tokenizer(), BATCH, **options)
    return list(dataset.take(count).as_numpy_iterator())


def held_out(corpus, sequences=HELD_OUT):
    dataset = held_out_batches(corpus, tokenizer(), BATCH, sequences)
    return list(dataset.as_numpy_iterator())


def originals(batch):
    """The sequences of a batch before they were masked."""
    inputs, labels, weights = batch
    rows = inputs["Input-Token"].copy()
    for row, positions, ids, used in zip(
        rows, inputs["Masked-Positions"], labels, weights > 0, strict=True
    ):
        row[positions[used]] = ids[used]
    return [tuple(row.tolist()) for row in rows]


def assert_equal_batches(first, second):
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        for x, y in zip(tf.nest.flatten(a), tf.nest.flatten(b), strict=True):
            np.testing.assert_array_equal(x, y)


def test_a_batch_has_the_models_inputs(corpus):
    (inputs, labels, weights), *_ = batches(corpus, 1)
    slots = round(0.15 * LENGTH)
    assert {name: (x.shape, str(x.dtype)) for name, x in inputs.items()} == {
        "Input-Token": ((BATCH, LENGTH), "int32"),
        "Input-Segment": ((BATCH, LENGTH), "int32"),
        "Masked-Positions": ((BATCH, slots), "int32"),
    }
    assert (labels.shape, str(labels.dtype)) == ((BATCH, slots), "int32")
    assert (weights.shape, str(weights.dtype)) == ((BATCH, slots), "float32")


def test_the_same_seed_gives_the_same_batches(corpus):
    assert_equal_batches(batches(corpus, 5, seed=3), batches(corpus, 5, seed=3))


@pytest.mark.parametrize("start", [1, 7, 40])
def test_to_start_later_is_to_skip(corpus, sequences, start):
    """Also after the first pass over the corpus."""
    assert 7 < len(sequences) / BATCH < 40
    whole = batches(corpus, start + 3, seed=3)
    assert_equal_batches(batches(corpus, 3, seed=3, start=start), whole[start:])


def test_another_seed_gives_another_order_and_other_masks(corpus):
    (first, *_), (second, *_) = (batches(corpus, 1, seed=seed) for seed in (3, 4))
    assert set(originals(first)) != set(originals(second))
    assert np.any(first[0]["Masked-Positions"] != second[0]["Masked-Positions"])


def test_a_sequence_is_masked_anew_in_each_pass(corpus, sequences):
    masked = {}
    for batch in batches(corpus, 3 * len(sequences) // BATCH):
        positions = map(tuple, np.sort(batch[0]["Masked-Positions"]).tolist())
        for row, where in zip(originals(batch), positions, strict=True):
            masked.setdefault(row, set()).add(where)
    assert np.mean([len(found) for found in masked.values()]) > 2


def test_the_weights_have_mean_1_where_slots_are_in_use(corpus):
    for _, _, weights in batches(corpus, 20, rate=0.3):
        assert weights.mean() == pytest.approx(1, abs=1e-6)
        assert len(set(weights[weights > 0].tolist())) == 1


def test_the_labels_are_the_tokens_that_were_masked(corpus, sequences):
    for batch in batches(corpus, 20):
        assert set(originals(batch)) <= set(sequences)
        inputs, labels, weights = batch
        assert (labels[weights == 0] == 0).all()
        assert not np.isin(labels[weights > 0], tokenizer().special_ids).any()


def test_most_masked_tokens_are_hidden(corpus):
    hidden = []
    for inputs, _, weights in batches(corpus, 20):
        found = np.take_along_axis(
            inputs["Input-Token"], inputs["Masked-Positions"], axis=1
        )
        hidden.extend(found[weights > 0] == tokenizer().mask_id)
    assert 0.7 < np.mean(hidden) < 0.9


def evenly_spread(count, sequences):
    """The last sequence of each of `count` parts of equal size."""
    total = len(sequences)
    return [sequences[math.ceil(k * total / count) - 1] for k in range(1, count + 1)]


def test_held_out_sequences_are_spread_evenly_and_never_trained_on(corpus, sequences):
    validated = [row for batch in held_out(corpus) for row in originals(batch)]
    assert validated == evenly_spread(HELD_OUT, sequences)
    passes = 2 * len(sequences) // BATCH
    trained = batches(corpus, passes, held_out=HELD_OUT)
    trained = {row for batch in trained for row in originals(batch)}
    assert trained == set(sequences) - set(validated)


def test_held_out_sequences_are_masked_the_same_each_time(corpus):
    assert_equal_batches(held_out(corpus), held_out(corpus))


def test_held_out_sequences_need_not_fill_a_batch(corpus, sequences):
    found = [row for batch in held_out(corpus, 11) for row in originals(batch)]
    assert found == evenly_spread(11, sequences)


@pytest.fixture
def model(tmp_path):
    config = write_config(tmp_path, vocab_size=VOCAB_SIZE)
    return masked_lm(build_bert(config))


def test_loss_and_accuracy_are_means_over_the_masked_positions(corpus, model):
    compile_masked_lm(model, keras.optimizers.AdamW(0.0))
    dataset = held_out_batches(corpus, tokenizer(), BATCH, BATCH, rate=0.3)
    ((inputs, labels, weights),) = dataset.as_numpy_iterator()
    weights = np.where([1, 1, 0, 1, 0], weights, 0)  # some more do not count
    weights = weights / weights.mean()
    expected = labels[weights > 0]
    guess = np.eye(VOCAB_SIZE)[expected[0]]  # always the same one
    model.get_layer("MLM-Bias").bias.assign(guess)
    logits = model(inputs).numpy()[weights > 0]
    accuracy = (expected == expected[0]).mean()
    assert 0 < accuracy != (labels == expected[0]).mean()
    log_odds = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    loss = -log_odds[np.arange(len(expected)), expected].mean()
    found = model.evaluate(inputs, labels, sample_weight=weights, verbose=0)
    assert found == pytest.approx([loss, accuracy], abs=1e-5)


def test_the_loss_falls(corpus, model):
    compile_masked_lm(model, adamw(2e-2, 120))
    history = model.fit(
        masked_batches(corpus, tokenizer(), BATCH, held_out=HELD_OUT),
        validation_data=held_out_batches(corpus, tokenizer(), BATCH, HELD_OUT),
        steps_per_epoch=40,
        epochs=3,
        verbose=0,
    ).history
    guess = np.log(VOCAB_SIZE)
    assert history["loss"][0] < guess + 0.1
    assert history["loss"][-1] < guess - 0.5
    assert history["val_loss"][-1] < guess - 0.5
