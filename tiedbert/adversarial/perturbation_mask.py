"""Which tokens may be perturbed: not padding, not special tokens."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert._identity import IdentitySet
from tiedbert.errors import InputError
from tiedbert.layers import GatherPositions

TOKEN_INPUT = "Input-Token"
# bert4keras declares its ids as float32.
_TOKENS = [(TOKEN_INPUT,), ("token_ids", "padding_mask")]
ID_INPUTS = {TOKEN_INPUT, "Input-Segment", "Input-Position"}


def ordinary_tokens(
    token_ids: tf.Tensor, present: tf.Tensor | None = None
) -> tf.Tensor:
    """True at tokens of the text, False at padding and at ``[CLS]`` and ``[SEP]``.

    The first token of a text is taken for ``[CLS]`` and the last for ``[SEP]``, as in
    the input of BERT; all tokens with their ids are special. So no vocabulary is
    needed. For other rows use a function of your own, e.g. :func:`except_tokens`.

    Args:
        token_ids: ``[batch, time]``, any numeric dtype.
        present: False at padding, ``[batch, time]``; None (the default): padding has
            the id 0.

    Returns:
        bool ``[batch, time]``.

    Example:
        >>> import tensorflow as tf
        >>> ordinary_tokens(tf.constant([[2, 7, 3, 9, 3, 0]])).numpy().tolist()
        [[False, True, False, True, False, False]]
    """
    token_ids = tf.cast(token_ids, tf.int32)
    present = token_ids != 0 if present is None else tf.cast(present, tf.bool)
    length = tf.shape(token_ids)[1]
    index = tf.range(length)[None, :]
    first = tf.reduce_min(tf.where(present, index, length - 1), axis=1, keepdims=True)
    last = tf.reduce_max(tf.where(present, index, 0), axis=1, keepdims=True)
    begin = tf.gather(token_ids, first, batch_dims=1)
    final = tf.gather(token_ids, last, batch_dims=1)
    return present & (token_ids != begin) & (token_ids != final)


def except_tokens(special_ids: Sequence[int]) -> Callable[[Any], tf.Tensor]:
    """A perturbation mask that excludes the tokens with some ids.

    Args:
        special_ids: ids of tokens that are never perturbed; include that of padding.

    Returns:
        A function of a model's inputs -> bool ``[batch, time]``. The inputs are a dict
        by name, or a list whose first element is the token ids. The function raises
        InputError for a dict without token ids.

    Example:
        >>> import tensorflow as tf
        >>> mask = except_tokens([0, 2, 3])
        >>> mask({"Input-Token": tf.constant([[2, 7, 3, 0]])}).numpy().tolist()
        [[False, True, False, False]]
    """
    special_ids = tf.constant(special_ids, tf.int32)

    def perturbation_mask(inputs):
        if isinstance(inputs, dict):
            names = [known[0] for known in _TOKENS if known[0] in inputs]
            if not names:
                raise InputError(
                    f"except_tokens looks for an input {_TOKENS[0][0]!r} or "
                    f"{_TOKENS[1][0]!r}, and found {', '.join(inputs)}: give a "
                    "perturbation_mask function of your own"
                )
            token_ids = inputs[names[0]]
        else:
            token_ids = _keras.flatten(inputs)[0]
        token_ids = tf.cast(token_ids, tf.int32)
        return tf.reduce_all(token_ids[..., None] != special_ids, axis=-1)

    return perturbation_mask


def token_ids_of(model: keras.Model, inputs: Any) -> tuple | None:
    """The token ids among the inputs given to a BERT, or None.

    Returns:
        ``(token_ids, present)``, the second False at padding, for models of bert4keras
        and keras-hub; None for others.
    """
    names = [_keras.maker(tensor).name for tensor in model.inputs]
    wanted = next((known for known in _TOKENS if set(known) <= set(names)), None)
    if wanted is None:
        return None
    found = tuple(input_named(name, model, inputs) for name in wanted)
    if len(found) == 2:
        return found
    pad_ids = (layer.pad_id for layer in model.layers if hasattr(layer, "pad_id"))
    return *found, tf.cast(found[0], tf.int32) != next(pad_ids, 0)


def input_named(name: str, model: keras.Model, inputs: Any) -> Any:
    """The value among `inputs` for the input `name` of `model`."""
    if isinstance(inputs, dict):
        return inputs[name]
    names = [_keras.maker(tensor).name for tensor in model.inputs]
    return _keras.flatten(inputs)[names.index(name)]


def gathered_by(model: keras.Model, tensors: list) -> str | None:
    """The input with the indices of the tokens that are gathered for `tensors`.

    A masked language model gathers the masked tokens.

    Args:
        model: a functional model.
        tensors: symbolic tensors of it.

    Returns:
        the name of the input; None: no tokens are gathered before `tensors`.
    """
    before = IdentitySet(_keras.ancestors(tensors))
    for call in _keras.calls(_keras.functional(model)):
        if isinstance(call.layer, GatherPositions) and call.layer in before:
            return _keras.maker(call.inputs[1]).name
    return None
