"""Several texts in one row, which do not see each other, for Keras 3.

``Input-Pack``, int ``[batch, time]``, says which text of its row a token belongs to: 1,
2, 3 ... one after the other, and 0 for padding.
"""

from typing import Any

from tensorflow import keras

from tiedbert.bert._keras3.biases import listed, square

ops = keras.ops


@keras.utils.register_keras_serializable("tiedbert")
class PackBias(keras.layers.Layer):
    """A token sees those of its text: bool ``[batch, time, time]``.

    It is called on the pack ids, or on a list of them and another such tensor, which
    must allow a pair too.
    """

    def call(self, inputs: Any) -> Any:
        """From the pack ids, ``[batch, time]``."""
        ids, *bias = listed(inputs)
        within = same_text(ids)
        return ops.logical_and(within, bias[0]) if bias else within

    def compute_output_spec(self, inputs: Any) -> Any:
        """bool ``[batch, time, time]``."""
        return square(listed(inputs)[0])


@keras.utils.register_keras_serializable("tiedbert")
class PackPositions(keras.layers.Layer):
    """The positions within each text: int32 ``[batch, time]``.

    Args:
        first: that of the first token of a text.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, first: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first = first

    def call(self, inputs: Any) -> Any:
        """From the pack ids, ``[batch, time]``: how many of its text come before."""
        order = ops.arange(ops.shape(inputs)[1])
        before = ops.logical_and(same_text(inputs), order[None, :] < order[:, None])
        return ops.sum(ops.cast(before, "int32"), axis=-1) + self.first

    def compute_output_spec(self, inputs: Any) -> Any:
        """int32 ``[batch, time]``."""
        return keras.KerasTensor(inputs.shape, dtype="int32")

    def get_config(self) -> dict[str, Any]:
        """The configuration, with `first`."""
        return {**super().get_config(), "first": self.first}


def same_text(ids: Any) -> Any:
    """Which pairs of tokens are of one text, padding of none: bool."""
    same = ops.equal(ids[:, :, None], ids[:, None, :])
    return ops.logical_and(same, ops.not_equal(ids, 0)[:, None, :])
