"""Batches of masked language model pretraining, and what a model makes of them."""

import math

import numpy as np
import pytest
import tensorflow as tf
from bert_samples import names_of, write_config
from tensorflow import keras
from text_samples import VOCAB_SIZE, documents, tokenizer

from tiedbert.bert import build_bert, masked_lm
from tiedbert.jobs.optimization import adamw
from tiedbert.text.pretraining import (
    held_out_batches,
    masked_batches,
    predictions_per_text,
)
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
    rows = batch["Input-Token"].copy()
    masked = [batch[f"Masked-{name}"] for name in ("Positions", "Labels", "Weights")]
    for row, positions, ids, used in zip(rows, *masked, strict=True):
        used = used > 0
        row[positions[used]] = ids[used]
    return [tuple(row.tolist()) for row in rows]


def assert_equal_batches(first, second):
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        for x, y in zip(tf.nest.flatten(a), tf.nest.flatten(b), strict=True):
            np.testing.assert_array_equal(x, y)


def test_a_batch_has_the_models_inputs(corpus):
    inputs, *_ = batches(corpus, 1)
    slots = round(0.15 * LENGTH)
    assert predictions_per_text(corpus) == slots
    assert {name: (x.shape, str(x.dtype)) for name, x in inputs.items()} == {
        "Input-Token": ((BATCH, LENGTH), "int32"),
        "Input-Segment": ((BATCH, LENGTH), "int32"),
        "Masked-Positions": ((BATCH, slots), "int32"),
        "Masked-Labels": ((BATCH, slots), "int32"),
        "Masked-Weights": ((BATCH, slots), "float32"),
    }


def test_the_same_seed_gives_the_same_batches(corpus):
    assert_equal_batches(batches(corpus, 5, seed=3), batches(corpus, 5, seed=3))


@pytest.mark.cases(1)
@pytest.mark.parametrize("start", [1, 7, 40])
def test_to_start_later_is_to_skip(corpus, sequences, start):
    """Also after the first pass over the corpus."""
    assert 7 < len(sequences) / BATCH < 40
    whole = batches(corpus, start + 3, seed=3)
    assert_equal_batches(batches(corpus, 3, seed=3, start=start), whole[start:])


def test_another_seed_gives_another_order_and_other_masks(corpus):
    (first, *_), (second, *_) = (batches(corpus, 1, seed=seed) for seed in (3, 4))
    assert set(originals(first)) != set(originals(second))
    assert np.any(first["Masked-Positions"] != second["Masked-Positions"])


def test_a_sequence_is_masked_anew_in_each_pass(corpus, sequences):
    masked = {}
    for batch in batches(corpus, 3 * len(sequences) // BATCH):
        positions = map(tuple, np.sort(batch["Masked-Positions"]).tolist())
        for row, where in zip(originals(batch), positions, strict=True):
            masked.setdefault(row, set()).add(where)
    assert np.mean([len(found) for found in masked.values()]) > 2


def test_the_weights_tell_which_slots_are_in_use(corpus):
    for batch in batches(corpus, 20, rate=0.3):
        weights = batch["Masked-Weights"]
        assert set(np.unique(weights)) <= {0.0, 1.0}
        assert (weights.sum(axis=1) >= 1).all()


def test_the_labels_are_the_tokens_that_were_masked(corpus, sequences):
    for batch in batches(corpus, 20):
        assert set(originals(batch)) <= set(sequences)
        labels, weights = batch["Masked-Labels"], batch["Masked-Weights"]
        assert (labels[weights == 0] == 0).all()
        assert not np.isin(labels[weights > 0], tokenizer().special_ids).any()


def test_most_masked_tokens_are_hidden(corpus):
    hidden = []
    for batch in batches(corpus, 20):
        found = np.take_along_axis(
            batch["Input-Token"], batch["Masked-Positions"], axis=1
        )
        hidden.extend(found[batch["Masked-Weights"] > 0] == tokenizer().mask_id)
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
def bert(tmp_path):
    return build_bert(write_config(tmp_path, vocab_size=VOCAB_SIZE))


def test_the_metrics_are_means_over_the_masked_positions(corpus, bert):
    """The oracle is the same head without its loss, in NumPy from its logits."""
    plain, model = masked_lm(bert), masked_lm(bert, with_loss=True)
    model.compile(keras.optimizers.AdamW(0.0))
    dataset = held_out_batches(corpus, tokenizer(), BATCH, BATCH, rate=0.3)
    (batch,) = dataset.as_numpy_iterator()
    some = batch["Masked-Weights"] * np.float32([1, 1, 0, 1, 0])
    batch = {**batch, "Masked-Weights": some}  # some more do not count
    labels, used = batch["Masked-Labels"], batch["Masked-Weights"] > 0
    expected = labels[used]
    guess = np.eye(VOCAB_SIZE)[expected[0]]  # always the same one
    model.get_layer("MLM-Bias").bias.assign(guess)
    plain.set_weights(model.get_weights())
    logits = plain([batch[name] for name in names_of(plain.inputs)]).numpy()[used]
    accuracy = (expected == expected[0]).mean()
    assert 0 < accuracy != (labels == expected[0]).mean()
    log_odds = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    loss = -log_odds[np.arange(len(expected)), expected].mean()
    found = model.evaluate(batch, verbose=0, return_dict=True)
    told = {"loss": loss, "accuracy": accuracy, "perplexity": np.exp(loss)}
    assert found == pytest.approx(told, rel=1e-5)


@pytest.mark.slow
def test_the_loss_falls(corpus, bert):
    model = masked_lm(
        bert,
        predictions=predictions_per_text(corpus),
        early_gather=True,
        with_loss=True,
    )
    model.compile(adamw(2e-2, 120))
    history = model.fit(
        masked_batches(corpus, tokenizer(), BATCH, held_out=HELD_OUT),
        validation_data=held_out_batches(corpus, tokenizer(), BATCH, HELD_OUT),
        steps_per_epoch=40,
        epochs=3,
        shuffle=False,
        verbose=0,
    ).history
    guess = np.log(VOCAB_SIZE)
    assert history["loss"][0] < guess + 0.1
    assert history["loss"][-1] < guess - 0.5
    assert history["val_loss"][-1] < guess - 0.5
