"""Refuses positions that a table does not have."""

from typing import Any

import tensorflow as tf

from tiedbert.errors import InputError


def checked_length(hidden: tf.Tensor, positions: int, name: str) -> tf.Tensor:
    """Hidden states, if a table has enough positions for them.

    Args:
        hidden: float ``[batch, time, width]``.
        positions: the number of positions.
        name: of the layer that has the table, for the message.

    Raises:
        InputError: the length is known, and too large. A length that only the running
            graph knows is checked by an assertion in it.
    """
    length, too_many = hidden.shape[1], _too_many(name, positions)
    if length is None:
        length = tf.shape(hidden)[1]
        fits = length <= positions
        return _asserted(hidden, fits, ["texts of", length, too_many])
    if length > positions:
        raise InputError(f"texts of {length} {too_many}")
    return hidden


def checked_count(order: tf.Tensor, positions: int, name: str) -> tf.Tensor:
    """The order of tokens in their texts, if a table has enough positions for them.

    Args:
        order: int32 ``[batch, time]``, from 1 on, without a step at padding.
        positions: the number of positions.
        name: of the layer, for the message.

    Raises:
        InputError: a text is too long, and the call is eager. Otherwise an assertion
            in the graph checks it.
    """
    time = order.shape[1]
    if time is not None and time <= positions:
        return order
    longest, too_many = tf.reduce_max(order), _too_many(name, positions)
    if tf.executing_eagerly() and longest > positions:
        raise InputError(f"texts of {int(longest)} {too_many}")
    return _asserted(order, longest <= positions, ["texts of", longest, too_many])


def checked_ids(ids: tf.Tensor, positions: int) -> tf.Tensor:
    """Position ids as int32, from 0 on and fewer than `positions`, by an assertion."""
    ids = tf.cast(ids, tf.int32)
    first, last = tf.reduce_min(ids), tf.reduce_max(ids)
    return _asserted(
        ids,
        (first >= 0) & (last < positions),
        [f"position ids from 0 to {positions - 1} expected, found", first]
        + ["to", last],
    )


def _too_many(name, positions):
    return (
        f"tokens, but {name!r} has {positions} positions: cut the texts, or build the "
        "model with more (max_position)"
    )


def _asserted(tensor: tf.Tensor, condition: Any, message: list[Any]) -> tf.Tensor:
    """`tensor`, computed only after an assertion of the condition."""
    with tf.control_dependencies([tf.debugging.Assert(condition, message)]):
        return tf.identity(tensor)
