"""bert4keras' layers with additions."""

from typing import Any

import tensorflow as tf
from bert4keras.layers import Embedding, LayerNormalization, PositionEmbedding
from tensorflow import keras

from tiedbert.errors import InputError


@keras.utils.register_keras_serializable("tiedbert")
class PaddedEmbedding(Embedding):
    """The table of tokens for an id of padding other than 0, the one of bert4keras.

    As in bert4keras, the first position is never masked.

    Args:
        pad_id: the id of padding.
        *args, **kwargs: of `Embedding`.
    """

    def __init__(self, *args: Any, pad_id: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pad_id = pad_id

    def compute_mask(
        self, inputs: tf.Tensor, mask: tf.Tensor | None = None
    ) -> tf.Tensor | None:
        """The mask that bert4keras makes if padding is 0."""
        if len(inputs.shape) == 2:
            inputs = tf.cast(tf.not_equal(inputs, self.pad_id), tf.int32)
        return super().compute_mask(inputs, mask)

    def get_config(self) -> dict[str, Any]:
        """The configuration, with `pad_id`."""
        return {**super().get_config(), "pad_id": self.pad_id}


@keras.utils.register_keras_serializable("tiedbert")
class CheckedPositionEmbedding(PositionEmbedding):
    """The table of positions, which refuses texts that are longer than it.

    If the length is known when the layer is called, eagerly or while `fit` or `predict`
    trace the model, it raises InputError. Otherwise an assertion in the graph raises
    `tf.errors.InvalidArgumentError`; XLA leaves assertions out.
    """

    def call(self, inputs: Any) -> tf.Tensor:
        """Check the length, then add the positions."""
        if self.custom_position_ids:
            hidden, ids = inputs
            return super().call([hidden, self._checked_ids(ids)])
        return super().call(self._checked(inputs))

    @property
    def _positions(self) -> int:
        """The number of positions; a hierarchical table has its size squared."""
        return self.input_dim**2 if self.hierarchical else self.input_dim

    def _checked(self, hidden: tf.Tensor) -> tf.Tensor:
        length = hidden.shape[1]
        too_many = (
            f"tokens, but {self.name!r} has {self._positions} positions: cut the "
            "texts, or build the model with more (max_position)"
        )
        if length is None:
            length = tf.shape(hidden)[1]
            fits = length <= self._positions
            return _asserted(hidden, fits, ["texts of", length, too_many])
        if length > self._positions:
            raise InputError(f"texts of {length} {too_many}")
        return hidden

    def _checked_ids(self, ids: tf.Tensor) -> tf.Tensor:
        ids = tf.cast(ids, tf.int32)
        first, last = tf.reduce_min(ids), tf.reduce_max(ids)
        return _asserted(
            ids,
            (first >= 0) & (last < self._positions),
            [f"position ids from 0 to {self._positions - 1} expected, found", first]
            + ["to", last],
        )


@keras.utils.register_keras_serializable("tiedbert")
class ConfiguredNormalization(LayerNormalization):
    """A norm with the epsilon of the configuration; a head added later uses it too."""


def _asserted(tensor: tf.Tensor, condition: Any, message: list[Any]) -> tf.Tensor:
    """`tensor`, computed only after an assertion of the condition."""
    with tf.control_dependencies([tf.debugging.Assert(condition, message)]):
        return tf.identity(tensor)


@keras.utils.register_keras_serializable("tiedbert")
class FirstToken(keras.layers.Layer):
    """float ``[batch, time, width]`` -> ``[batch, width]``, the state of ``[CLS]``."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Take the first position."""
        return inputs[:, 0]
