"""bert4keras' layers, where a BERT needs more of them."""

import tensorflow as tf
from bert4keras.layers import Embedding, PositionEmbedding
from tensorflow import keras

from tiedbert.errors import InputError


@keras.utils.register_keras_serializable("tiedbert")
class PaddedEmbedding(Embedding):
    """The table of tokens where padding is not token 0, which bert4keras takes it for.

    As in bert4keras, the first position is never masked.

    Args:
        pad_id: the token that is padding.
        *args, **kwargs: of `Embedding`.
    """

    def __init__(self, *args, pad_id, **kwargs):
        super().__init__(*args, **kwargs)
        self.pad_id = pad_id

    def compute_mask(self, inputs, mask=None):
        """The mask that bert4keras makes where padding is 0."""
        if len(inputs.shape) == 2:
            inputs = tf.cast(tf.not_equal(inputs, self.pad_id), tf.int32)
        return super().compute_mask(inputs, mask)

    def get_config(self):
        """The padding too."""
        return {**super().get_config(), "pad_id": self.pad_id}


@keras.utils.register_keras_serializable("tiedbert")
class CheckedPositionEmbedding(PositionEmbedding):
    """The table of positions, which says so when a text is longer than it.

    A length that is known as the layer is called, eagerly or when `fit` or `predict`
    trace the model, raises InputError. One that only the running graph knows fails an
    assertion there, `tf.errors.InvalidArgumentError`; XLA leaves it out.
    """

    def call(self, inputs):
        """Check the length, then add the positions."""
        if self.custom_position_ids:
            self._check_ids(inputs[1])
        else:
            self._check_length(inputs)
        return super().call(inputs)

    @property
    def _positions(self):
        """How many there are; a hierarchical table stands for its square."""
        return self.input_dim**2 if self.hierarchical else self.input_dim

    def _check_length(self, inputs):
        length, positions = inputs.shape[1], self._positions
        if length is None:
            tf.debugging.assert_less_equal(
                tf.shape(inputs)[1], positions, self._too_long("more"), summarize=1
            )
        elif length > positions:
            raise InputError(self._too_long(length))

    def _check_ids(self, ids):
        tf.debugging.assert_less(
            tf.cast(ids, tf.int32), self._positions, self._too_long("more"), summarize=1
        )

    def _too_long(self, tokens) -> str:
        return (
            f"texts of {tokens} tokens, but {self.name!r} has {self._positions} "
            "positions: cut the texts, or build the model with more"
        )


@keras.utils.register_keras_serializable("tiedbert")
class FirstToken(keras.layers.Layer):
    """float ``[batch, time, width]`` -> ``[batch, width]``, the state of ``[CLS]``."""

    def call(self, inputs):
        """Take the first position."""
        return inputs[:, 0]
