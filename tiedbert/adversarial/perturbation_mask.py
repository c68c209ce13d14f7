"""Where a perturbation may be: not on padding, not on special tokens."""

import tensorflow as tf

from tiedbert import _keras
from tiedbert.errors import InputError
from tiedbert.layers import GatherPositions

TOKEN_INPUT = "Input-Token"
# bert4keras declares its ids as float32.
_TOKENS = [(TOKEN_INPUT,), ("token_ids", "padding_mask")]
ID_INPUTS = {TOKEN_INPUT, "Input-Segment", "Input-Position"}


def ordinary_tokens(token_ids, present=None):
    """True at tokens of the text, False at padding and at ``[CLS]`` and ``[SEP]``.

    A row that begins with ``[CLS]`` and ends, before the padding (id 0), with
    ``[SEP]``, as BERT's input does, tells these tokens itself; others with the same
    ids are special too. So no vocabulary is needed. For other rows give a function
    of your own, e.g. :func:`except_tokens`.

    Args:
        token_ids: ``[batch, time]``, any numeric dtype.
        present: False at padding, ``[batch, time]``; None: padding has the id 0.

    Returns:
        bool ``[batch, time]``.

    Example:
        >>> import tensorflow as tf
        >>> ordinary_tokens(tf.constant([[2, 7, 3, 9, 3, 0]])).numpy().tolist()
        [[False, True, False, True, False, False]]
    """
    token_ids = tf.cast(token_ids, tf.int32)
    present = token_ids != 0 if present is None else tf.cast(present, tf.bool)
    index = tf.range(tf.shape(token_ids)[1])[None, :]
    last = tf.reduce_max(tf.where(present, index, 0), axis=1, keepdims=True)
    final = tf.gather(token_ids, last, batch_dims=1)
    return present & (token_ids != token_ids[:, :1]) & (token_ids != final)


def except_tokens(special_ids):
    """A perturbation mask for models whose special tokens are known: all but these.

    Args:
        special_ids: token ids that are never perturbed, padding among them.

    Returns:
        A function of a model's inputs, by name or in order (token ids are the first
        of bert4keras) -> bool ``[batch, time]``.

    Example:
        >>> import tensorflow as tf
        >>> mask = except_tokens([0, 2, 3])
        >>> mask({"Input-Token": tf.constant([[2, 7, 3, 0]])}).numpy().tolist()
        [[False, True, False, False]]
    """
    special_ids = tf.constant(special_ids, tf.int32)

    def perturbation_mask(inputs):
        if isinstance(inputs, dict):
            names = [kind[0] for kind in _TOKENS if kind[0] in inputs]
            if not names:
                raise InputError(
                    f"except_tokens looks for an input {_TOKENS[0][0]!r} or "
                    f"{_TOKENS[1][0]!r}, and found {', '.join(inputs)}: give a "
                    "function of your own"
                )
            token_ids = inputs[names[0]]
        else:
            token_ids = _keras.flatten(inputs)[0]
        token_ids = tf.cast(token_ids, tf.int32)
        return tf.reduce_all(token_ids[..., None] != special_ids, axis=-1)

    return perturbation_mask


def token_ids_of(model, inputs):
    """The token ids among the inputs given to a BERT, or None.

    Returns:
        ``(token_ids,)`` for a model of bert4keras, ``(token_ids, padding_mask)`` for
        one of keras-hub, None for others.
    """
    names = [_keras.maker(tensor).name for tensor in model.inputs]
    wanted = next((kind for kind in _TOKENS if set(kind) <= set(names)), None)
    if wanted is None:
        return None
    return tuple(input_named(name, model, inputs) for name in wanted)


def input_named(name, model, inputs):
    """What was given to `model` for its input `name`."""
    if isinstance(inputs, dict):
        return inputs[name]
    names = [_keras.maker(tensor).name for tensor in model.inputs]
    return _keras.flatten(inputs)[names.index(name)]


def gathered_by(model, tensor):
    """The input that says which tokens a tensor holds, by name; None: all, in order.

    A masked language model gathers the masked ones.
    """
    behind = set(map(id, _keras.ancestors(tensor)))
    for call in _keras.calls(_keras.functional(model)):
        if isinstance(call.layer, GatherPositions) and id(call.layer) in behind:
            return _keras.maker(call.inputs[1]).name
    return None
