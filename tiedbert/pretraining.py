"""Masked language model pretraining as ordinary Keras `fit`."""

import tensorflow as tf
from tensorflow import keras

from tiedbert.text.masking import mask_tokens
from tiedbert.text.records import corpus_dataset, read_manifest

SHUFFLE_BUFFER = 20_000


def masked_batches(
    corpus_dir, tokenizer, batch_size, *, rate=0.15, seed=0, skip_sequences=0, start=0
):
    """Endless batches of a prepared corpus, masked anew each time.

    The batch of a step depends on the step and on the seeds alone (`seed`, and for the
    order TensorFlow's global one), so that a resumed run sees what the uninterrupted
    one would have seen. A second iteration over the same object shuffles anew.

    Args:
        corpus_dir: what ``scripts/prepare_corpus.py`` wrote.
        tokenizer: the corpus' :class:`tiedbert.text.tokenizer.Tokenizer`.
        batch_size: sequences a batch.
        rate: share of the tokens to predict.
        seed: of shuffling and masking.
        skip_sequences: sequences at the start that are held out.
        start: first step.

    Returns:
        A `tf.data.Dataset` of ``(inputs, labels, weights)``: inputs by name, labels
        int32 ``[batch, n]``, weights float32 ``[batch, n]`` with mean 1.
    """
    sequences = corpus_dataset(corpus_dir).skip(skip_sequences)
    batches = (
        sequences.shuffle(SHUFFLE_BUFFER, seed=seed)
        .repeat()
        .batch(batch_size, drop_remainder=True)
    )
    mask = _masker(corpus_dir, tokenizer, rate, seed)
    return _masked(batches.enumerate().skip(start), mask)


def held_out_batches(corpus_dir, tokenizer, batch_size, sequences, *, rate=0.15):
    """The first `sequences` of a corpus, masked the same way each time."""
    batches = corpus_dataset(corpus_dir).take(sequences).batch(batch_size)
    mask = _masker(corpus_dir, tokenizer, rate, seed=-1)
    return _masked(batches.enumerate(), mask)


def compile_masked_lm(model, optimizer, **options):
    """Compile a model of :func:`tiedbert.bert.masked_lm` for such batches.

    The loss is the mean cross-entropy of the masked positions in nats, ``accuracy``
    their share that is guessed right.
    """
    model.compile(
        optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        **options,
    )


def _masked(numbered_batches, mask):
    masked = numbered_batches.map(mask, num_parallel_calls=2, deterministic=True)
    return masked.prefetch(tf.data.AUTOTUNE)


def _masker(corpus_dir, tokenizer, rate, seed):
    length = read_manifest(corpus_dir)["config"]["sequence_length"]
    max_predictions = max(1, round(rate * length))

    def mask(step, token_ids):
        masked = mask_tokens(
            token_ids,
            tf.stack([tf.constant(seed, tf.int64), step]),
            vocab_size=tokenizer.vocab_size,
            mask_id=tokenizer.mask_id,
            special_ids=tokenizer.special_ids,
            max_predictions=max_predictions,
            rate=rate,
        )
        inputs = {
            "Input-Token": masked["token_ids"],
            "Input-Segment": tf.zeros_like(token_ids),
            "Masked-Positions": masked["positions"],
        }
        weights = masked["weights"]
        # Keras divides by the number of slots, used or not.
        weights = tf.math.divide_no_nan(weights, tf.reduce_mean(weights))
        return inputs, masked["labels"], weights

    return mask
