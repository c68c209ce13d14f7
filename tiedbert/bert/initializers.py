"""How the weights of a BERT start."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow import keras


@keras.utils.register_keras_serializable("tiedbert")
class FreshTruncatedNormal(keras.initializers.Initializer):
    """Truncated normal that draws new values at each call.

    One initializer object is passed to the query, key, value and output kernels of a
    layer, and Keras draws the same values from the same object: all four kernels, and
    each pair of feed-forward kernels, would start identical.
    """

    def __init__(self, stddev: float = 0.02) -> None:
        self.stddev = stddev

    def __call__(
        self, shape: Sequence[int], dtype: Any = None, **kwargs: Any
    ) -> tf.Tensor:
        """Draw with a new initializer."""
        fresh = keras.initializers.TruncatedNormal(stddev=self.stddev)
        return fresh(shape, dtype=dtype, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """The standard deviation."""
        return {"stddev": self.stddev}


@keras.utils.register_keras_serializable("tiedbert")
class DeepTruncatedNormal(keras.initializers.Initializer):
    """The initializer of RoFormer v2: the more blocks, the smaller the deviation.

    In bert4keras it is a method of the model, which cannot be saved in a file.

    Source: `RoFormerV2.initializer` of bert4keras.
    """

    def __init__(self, num_hidden_layers: int) -> None:
        self.num_hidden_layers = num_hidden_layers

    def __call__(
        self, shape: Sequence[int], dtype: Any = None, **kwargs: Any
    ) -> tf.Tensor:
        """Draw new values; a table is recognized by its length, as in bert4keras."""
        width = shape[0] if 10 <= shape[0] <= 10_000 else shape[1]
        stddev = 1.13684723 / (width * self.num_hidden_layers) ** 0.5
        return FreshTruncatedNormal(stddev)(shape, dtype=dtype, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """The number of blocks."""
        return {"num_hidden_layers": self.num_hidden_layers}
