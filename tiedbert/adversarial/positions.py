"""Where a perturbation may be: not on padding, not on special tokens."""

import tensorflow as tf

from tiedbert import _keras

TOKEN_INPUT = "Input-Token"


def ordinary_tokens(token_ids):
    """True at tokens of the text, False at padding and at ``[CLS]`` and ``[SEP]``.

    BERT's input tells its special tokens itself: a row begins with ``[CLS]`` and ends,
    before the padding (id 0), with ``[SEP]``; other tokens with the same ids are
    special too. So no vocabulary is needed.

    Args:
        token_ids: ``[batch, time]``, any numeric dtype.

    Returns:
        bool ``[batch, time]``.

    Example:
        >>> import tensorflow as tf
        >>> ordinary_tokens(tf.constant([[2, 7, 3, 9, 3, 0]])).numpy().tolist()
        [[False, True, False, True, False, False]]
    """
    token_ids = tf.cast(token_ids, tf.int32)
    present = token_ids != 0
    index = tf.range(tf.shape(token_ids)[1])[None, :]
    last = tf.reduce_max(tf.where(present, index, 0), axis=1, keepdims=True)
    final = tf.gather(token_ids, last, batch_dims=1)
    return present & (token_ids != token_ids[:, :1]) & (token_ids != final)


def token_ids_of(model, inputs):
    """The token ids among the inputs given to a bert4keras model, or None."""
    names = [_keras.maker(tensor).name for tensor in model.inputs]
    if TOKEN_INPUT not in names:
        return None
    if isinstance(inputs, dict):
        return inputs[TOKEN_INPUT]
    return _keras.flatten(inputs)[names.index(TOKEN_INPUT)]
