"""Masking for masked language models, drawn anew for each batch."""

from collections.abc import Sequence

import tensorflow as tf

from tiedbert.errors import InputError

# Named, because the default differs between devices and under XLA.
_GENERATOR = "philox"


def mask_tokens(
    token_ids: tf.Tensor,
    seed: tf.Tensor,
    *,
    vocab_size: int,
    mask_id: int,
    special_ids: Sequence[int],
    max_predictions: int,
    rate: float = 0.15,
    first_ordinary_id: int = 5,
) -> dict[str, tf.Tensor]:
    """Choose tokens to predict and mask them (Devlin et al. 2018, section 3.1).

    In each row min(max_predictions, max(1, round(rate * ordinary tokens))) distinct
    positions are drawn among the ordinary tokens, those not in `special_ids`. Of the
    tokens there 80 % become `mask_id`, 10 % a random ordinary id and 10 % stay. It
    works on a batch, in `Dataset.map` and inside `tf.function`; shapes are static where
    those of `token_ids` are.

    Args:
        token_ids: `int32 [B, T]`.
        seed: `int [2]`; the same seed gives the same result, so pass another one in
            each step.
        vocab_size: ids run from 0 to vocab_size - 1.
        mask_id: the id of `[MASK]`.
        special_ids: ids that are never chosen, those of `[PAD]`, `[CLS]`, ...
        max_predictions: P, the number of slots a row; at most T.
        rate: fraction of the ordinary tokens to predict.
        first_ordinary_id: the smallest random id.

    Returns:
        dict of
        `token_ids`: `int32 [B, T]`, masked;
        `positions`: `int32 [B, P]`, where to predict;
        `labels`: `int32 [B, P]`, the original ids there;
        `weights`: `float32 [B, P]`, 1 for a slot in use; for others all three are 0.

    Raises:
        InputError: `max_predictions` is not within 1 to T, if T is known.

    Example:
        >>> batch = mask_tokens(
        ...     tf.constant([[2, 7, 7, 7, 7, 7, 7, 3, 0, 0]]), [0, 0], vocab_size=9,
        ...     mask_id=4, special_ids=(0, 2, 3, 4), max_predictions=4, rate=0.5)
        >>> batch["weights"].numpy(), batch["labels"].numpy()
        (array([[1., 1., 1., 0.]], dtype=float32), array([[7, 7, 7, 0]], dtype=int32))
    """
    token_ids = tf.convert_to_tensor(token_ids, tf.int32)
    _check_slots(max_predictions, token_ids.shape[1])
    position_seed, action_seed, id_seed = tf.unstack(
        tf.random.split(seed, 3, alg=_GENERATOR)
    )
    ordinary = _ordinary(token_ids, special_ids)
    counts = _counts(ordinary, rate, max_predictions)
    positions = _draw_positions(ordinary, max_predictions, position_seed)
    used = tf.range(max_predictions) < counts[:, None]
    originals = tf.gather(token_ids, positions, batch_dims=1)
    masked = _masked(
        originals, action_seed, id_seed, mask_id, first_ordinary_id, vocab_size
    )
    # Each slot has another position, so no two writes collide; an unused slot writes
    # back the original token.
    written = tf.where(used, masked, originals)
    return {
        "token_ids": _scatter(token_ids, positions, written),
        "positions": tf.where(used, positions, 0),
        "labels": tf.where(used, originals, 0),
        "weights": tf.cast(used, tf.float32),
    }


def _check_slots(slots, length):
    if slots < 1 or (length is not None and slots > length):
        raise InputError(
            f"max_predictions is {slots}: expected 1 to {length or 'the length'}, "
            "the length of the sequences"
        )


def _ordinary(token_ids, special_ids):
    """Which tokens may be chosen: `bool [B, T]`."""
    special = tf.zeros_like(token_ids, tf.bool)
    for special_id in special_ids:
        special |= token_ids == special_id
    return ~special


def _counts(ordinary, rate, slots):
    """How many tokens to predict, `int32 [B]`."""
    found = tf.reduce_sum(tf.cast(ordinary, tf.int32), axis=1)
    wanted = tf.cast(tf.round(rate * tf.cast(found, tf.float32)), tf.int32)
    return tf.minimum(found, tf.clip_by_value(wanted, 1, slots))


def _draw_positions(ordinary, slots, seed):
    """Distinct positions in random order, the ordinary ones first: `int32 [B, P]`."""
    draws = _random_integers(tf.shape(ordinary), seed, 0, tf.int32.max)
    return tf.math.top_k(tf.where(ordinary, draws, -1), slots).indices


def _masked(originals, action_seed, id_seed, mask_id, first_ordinary_id, vocab_size):
    shape = tf.shape(originals)
    action = _random_integers(shape, action_seed, 0, 10)
    random_ids = _random_integers(shape, id_seed, first_ordinary_id, vocab_size)
    changed = tf.where(action < 8, mask_id, random_ids)
    return tf.where(action < 9, changed, originals)


def _random_integers(shape, seed, low, high):
    # Integers, because XLA makes other floats from the same bits.
    return tf.random.stateless_uniform(shape, seed, low, high, tf.int32, alg=_GENERATOR)


def _scatter(token_ids, positions, values):
    rows = tf.broadcast_to(
        tf.range(tf.shape(positions)[0])[:, None], tf.shape(positions)
    )
    return tf.tensor_scatter_nd_update(
        token_ids, tf.stack([rows, positions], axis=-1), values
    )
