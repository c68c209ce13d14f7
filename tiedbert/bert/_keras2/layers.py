"""bert4keras' layers with additions."""

from typing import Any

import tensorflow as tf
from bert4keras.layers import Embedding, LayerNormalization, PositionEmbedding
from tensorflow import keras

from tiedbert.bert.position_checks import checked_ids, checked_length


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
            return super().call([hidden, checked_ids(ids, self._positions)])
        return super().call(checked_length(inputs, self._positions, self.name))

    @property
    def _positions(self) -> int:
        """The number of positions; a hierarchical table has its size squared."""
        return self.input_dim**2 if self.hierarchical else self.input_dim


@keras.utils.register_keras_serializable("tiedbert")
class ConfiguredNormalization(LayerNormalization):
    """A norm with the epsilon of the configuration; a head added later uses it too."""


def attended_by(graph: Any, call: Any, queries: Any) -> Any:
    """What an attention gives for other queries of the same text.

    Args:
        graph: the `Graph` of the model.
        call: the call of the attention in it.
        queries: float ``[batch, n, width]``.

    Returns:
        float ``[batch, n, out_dim]``, or None for an attention that has more inputs
        than queries, keys and values, or several outputs.
    """
    _, *keys_and_values = call.inputs
    if len(keys_and_values) != 2 or len(call.outputs) != 1:
        return None
    return call.layer([queries, *keys_and_values])
