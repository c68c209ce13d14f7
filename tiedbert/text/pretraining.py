"""Batches of a corpus for masked language models, for ordinary Keras `fit`."""

import os

import tensorflow as tf

from tiedbert.text.masking import mask_tokens
from tiedbert.text.records import corpus_dataset, read_manifest
from tiedbert.text.tokenizer import Tokenizer

SHUFFLE_BUFFER = 20_000


def masked_batches(
    corpus_dir: str | os.PathLike,
    tokenizer: Tokenizer,
    batch_size: int,
    *,
    rate: float = 0.15,
    seed: int = 0,
    held_out: int = 0,
    start: int = 0,
) -> tf.data.Dataset:
    """Endless batches of a prepared corpus, masked anew each time.

    The batch of a step depends only on the step, on `seed` and, for the order, on
    TensorFlow's global seed. So a resumed run gets the batches of an uninterrupted one.
    A second iteration over the same dataset has another order.

    Args:
        corpus_dir: folder that ``tiedbert prepare-corpus`` wrote.
        tokenizer: the tokenizer of the corpus.
        batch_size: number of sequences in a batch.
        rate: fraction of the tokens to predict.
        seed: seed of shuffling and masking.
        held_out: number of sequences left out, for :func:`held_out_batches`.
        start: first step.

    Returns:
        The inputs, by name, of ``tiedbert.bert.masked_lm(bert, with_loss=True)``:
        ``"Input-Token"`` and ``"Input-Segment"``, int32 ``[batch, time]``,
        ``"Masked-Positions"`` and ``"Masked-Labels"``, int32 ``[batch, n]``, and
        ``"Masked-Weights"``, float32 ``[batch, n]``, with n of
        :func:`predictions_per_text`.

    Raises:
        InputError: no such corpus.
    """
    sequences = _part(corpus_dir, held_out, validation=False)
    batches = (
        sequences.shuffle(SHUFFLE_BUFFER, seed=seed)
        .repeat()
        .batch(batch_size, drop_remainder=True)
    )
    mask = _masker(corpus_dir, tokenizer, rate, seed)
    return _masked(batches.enumerate().skip(start), mask)


def held_out_batches(
    corpus_dir: str | os.PathLike,
    tokenizer: Tokenizer,
    batch_size: int,
    held_out: int,
    *,
    rate: float = 0.15,
) -> tf.data.Dataset:
    """The sequences that :func:`masked_batches` leaves out, always masked alike.

    `held_out` sequences, evenly spread over the corpus; the other arguments are those
    of :func:`masked_batches`.

    Returns:
        A finite dataset of the same inputs.
    """
    sequences = _part(corpus_dir, held_out, validation=True)
    # A filtered dataset does not know its size, and Keras 3 warns where it ends.
    size = min(held_out, read_manifest(corpus_dir)["sequences"])
    sequences = sequences.apply(tf.data.experimental.assert_cardinality(size))
    mask = _masker(corpus_dir, tokenizer, rate, seed=-1)
    return _masked(sequences.batch(batch_size).enumerate(), mask)


def predictions_per_text(corpus_dir: str | os.PathLike, rate: float = 0.15) -> int:
    """Number of positions to predict in each sequence; weights tell which are used."""
    length = read_manifest(corpus_dir)["config"]["sequence_length"]
    return max(1, round(rate * length))


def _part(corpus_dir, held_out, validation):
    """The sequences to validate on, or the others, in their order."""
    total = read_manifest(corpus_dir)["sequences"]

    def belongs(index, _):
        chosen = (index + 1) * held_out // total > index * held_out // total
        return chosen == validation

    numbered = corpus_dataset(corpus_dir).enumerate()
    return numbered.filter(belongs).map(lambda _, sequence: sequence)


def _masked(numbered_batches, mask):
    masked = numbered_batches.map(mask, num_parallel_calls=2, deterministic=True)
    return masked.prefetch(tf.data.AUTOTUNE)


def _masker(corpus_dir, tokenizer, rate, seed):
    max_predictions = predictions_per_text(corpus_dir, rate)

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
        return {
            "Input-Token": masked["token_ids"],
            "Input-Segment": tf.zeros_like(token_ids),
            "Masked-Positions": masked["positions"],
            "Masked-Labels": masked["labels"],
            "Masked-Weights": masked["weights"],
        }

    return mask
