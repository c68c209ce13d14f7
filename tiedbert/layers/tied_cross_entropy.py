"""The tied head and its loss as one layer, which never holds all logits."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError
from tiedbert.layers.embedding_dense import EmbeddingDense
from tiedbert.losses.tied_cross_entropy import (
    check_options,
    tied_cross_entropy_by_position,
)


@keras.utils.register_keras_serializable("tiedbert")
class TiedCrossEntropy(EmbeddingDense):
    """An :class:`EmbeddingDense` that can compute its own loss, a chunk at a time.

    Called on ``[hidden, labels, weights]`` (or ``[hidden, labels]``) it adds the mean
    cross-entropy to the losses of the model, and ``accuracy`` and ``perplexity`` to its
    metrics. The model needs no other loss: use ``model.compile(optimizer)``, and
    ``fit(inputs)`` with the labels among the inputs. Called on `hidden` alone it is an
    `EmbeddingDense`. See :func:`tiedbert.losses.tied_cross_entropy` for the
    computation and its sources.

    Args:
        embedding_layer: the Embedding layer that owns the table ``[vocab, width]``.
        activation: applied to the logits of `hidden` alone; the loss does not use it.
        use_bias: whether there is a bias ``[vocab]``.
        chunk_size: the largest number of positions whose logits are in memory at a
            time; None chooses it from the size of the vocabulary.
        label_smoothing: part of the target that is spread evenly over the vocabulary.
        z_loss: factor of the squared logarithm of the softmax denominator.
        ignore_index: label of the positions that do not count.
        **kwargs: what `EmbeddingDense` and every layer take.

    Call: float ``[..., width]``, integers ``[...]`` and float ``[...]`` -> the
    cross-entropy of each position in nats, float32 ``[...]``, without a gradient. A
    masked position does not count. A label is correct if no logit is larger than its
    own, also where half precision makes several logits equal. In `tf.distribute`, each
    replica divides by the weights of its own positions. The metrics count every call
    that has labels, those of ``predict`` too. If a model has two such layers, Keras
    reports the metrics of one. ``sample_weight`` of ``fit`` does not reach this loss.

    Raises:
        InputError: as `EmbeddingDense` and `tied_cross_entropy` do.

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> from tensorflow import keras
        >>> ids = keras.Input((2,), dtype="int32")
        >>> labels = keras.Input((2,), dtype="int32")
        >>> table = keras.layers.Embedding(4, 3, embeddings_initializer="zeros")
        >>> model = keras.Model(
        ...     [ids, labels], TiedCrossEntropy(table)([table(ids), labels])
        ... )
        >>> model.compile("sgd")
        >>> one = np.array([[1, 2]])
        >>> round(model.evaluate([one, one], verbose=0, return_dict=True)["loss"], 4)
        1.3863
    """

    def __init__(
        self,
        embedding_layer: keras.layers.Layer,
        activation: str | Callable | None = "linear",
        use_bias: bool = True,
        chunk_size: int | None = None,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        ignore_index: int = -100,
        **kwargs: Any,
    ):
        # The weights of the positions keep their precision under a mixed policy.
        kwargs = {"autocast": False, **kwargs}
        super().__init__(embedding_layer, activation, use_bias, **kwargs)
        check_options(chunk_size, label_smoothing, z_loss)
        self.options: dict[str, Any] = {
            "chunk_size": chunk_size,
            "label_smoothing": label_smoothing,
            "z_loss": z_loss,
            "ignore_index": ignore_index,
        }
        _keras.track_metric(self, "_accuracy", keras.metrics.Mean(name="accuracy"))
        _keras.track_metric(self, "_perplexity", _Perplexity(name="perplexity"))

    def build(self, input_shape: Any) -> None:
        """Check the number of inputs; build as `EmbeddingDense` does."""
        several = _are_several(input_shape)
        if several and len(input_shape) not in (2, 3):
            raise InputError(
                f"{self.name!r} expected hidden, or [hidden, labels], or [hidden, "
                f"labels, weights], received {len(input_shape)} tensors"
            )
        super().build(input_shape[0] if several else input_shape)

    def call(self, inputs: Any, mask: Any = None) -> tf.Tensor:
        """Logits of `hidden`, or the loss of ``[hidden, labels, weights]``."""
        several = isinstance(inputs, list | tuple)
        hidden, *terms = inputs if several else [inputs]
        hidden = tf.cast(hidden, self.compute_dtype)
        if not several:
            return super().call(hidden)
        labels = terms[0]
        weights = terms[1] if len(terms) > 1 else None
        if mask is not None and mask[0] is not None:
            counted = tf.cast(mask[0], tf.float32)
            weights = counted * (
                1.0 if weights is None else tf.cast(weights, tf.float32)
            )
        with _keras.without_autocast():
            table = self._table()
            bias = tf.convert_to_tensor(self.bias) if self.use_bias else None
        found = tied_cross_entropy_by_position(
            hidden, table, bias, labels, weights, **self.options
        )
        self.add_loss(found.loss)
        # Keras 2 calls a layer once in no replica, while the model is being made.
        if not tf.distribute.in_cross_replica_context():
            self._accuracy.update_state(found.correct, found.weights)
            self._perplexity.update_state(found.cross_entropy, found.weights)
        return found.cross_entropy

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The mask of `hidden`."""
        return mask[0] if isinstance(inputs, list | tuple) and mask else mask

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """``[..., width]`` -> ``[...]``, or ``[..., vocab]`` for `hidden` alone."""
        if _are_several(input_shape):
            return tuple(input_shape[0])[:-1]
        return super().compute_output_shape(input_shape)

    def get_config(self) -> dict:
        """The settings, with those of the loss."""
        return {**super().get_config(), **self.options}


def _are_several(input_shape) -> bool:
    return isinstance(input_shape[0], list | tuple | tf.TensorShape)


class _Perplexity(keras.metrics.Mean):
    """``exp`` of the mean of the cross-entropies that were counted, in nats."""

    def result(self):
        return tf.exp(super().result())
