"""Masked language model pretraining as ordinary Keras `fit`."""

import tensorflow as tf

from tiedbert.text.masking import mask_tokens
from tiedbert.text.records import corpus_dataset, read_manifest

SHUFFLE_BUFFER = 20_000


def masked_batches(
    corpus_dir, tokenizer, batch_size, *, rate=0.15, seed=0, held_out=0, start=0
):
    """Endless batches of a prepared corpus, masked anew each time.

    The batch of a step depends on the step and on the seeds alone (`seed`, and for the
    order TensorFlow's global one), so that a resumed run sees what the uninterrupted
    one would have seen. A second iteration over the same object shuffles anew.

    Args:
        corpus_dir: folder that ``tiedbert prepare-corpus`` wrote.
        tokenizer: the corpus' :class:`tiedbert.text.tokenizer.Tokenizer`.
        batch_size: sequences a batch.
        rate: share of the tokens to predict.
        seed: of shuffling and masking.
        held_out: number of sequences that :func:`held_out_batches` keeps for itself.
        start: first step.

    Returns:
        A `tf.data.Dataset` of the inputs, by name, of a model that
        :func:`tiedbert.bert.masked_lm` makes with its loss; labels and weights are
        among them. Each text has :func:`predictions_per_text` positions.
    """
    sequences = _part(corpus_dir, held_out, validation=False)
    batches = (
        sequences.shuffle(SHUFFLE_BUFFER, seed=seed)
        .repeat()
        .batch(batch_size, drop_remainder=True)
    )
    mask = _masker(corpus_dir, tokenizer, rate, seed)
    return _masked(batches.enumerate().skip(start), mask)


def held_out_batches(corpus_dir, tokenizer, batch_size, held_out, *, rate=0.15):
    """`held_out` sequences, evenly spread over a corpus, masked the same way each time.

    Returns:
        A `tf.data.Dataset` like that of :func:`masked_batches`, but finite.
    """
    batches = _part(corpus_dir, held_out, validation=True).batch(batch_size)
    mask = _masker(corpus_dir, tokenizer, rate, seed=-1)
    return _masked(batches.enumerate(), mask)


def predictions_per_text(corpus_dir, rate=0.15) -> int:
    """Positions to predict in each text of a corpus; weights say which are used."""
    length = read_manifest(corpus_dir)["config"]["sequence_length"]
    return max(1, round(rate * length))


def _part(corpus_dir, held_out, validation):
    """The sequences to validate on, or the others, in the order written."""
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
