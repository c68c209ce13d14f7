"""The tied head: a dense layer whose kernel is the table of an Embedding layer."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError
from tiedbert.layers.restored_table import PendingTable, table_from_config


@keras.utils.register_keras_serializable("tiedbert")
class EmbeddingDense(keras.layers.Layer):
    """A dense layer whose kernel is the transposed table of an Embedding layer.

    The output head of a masked language model (Press and Wolf, "Using the output
    embedding to improve language models", 2017; Su Jianlin, kexue.fm/archives/6985).
    There is one variable, which the embedding layer looks up and this layer multiplies
    by: gradients of both uses add up. It stays one through saving, loading,
    `from_config`, `clone_model`, pickling and cutting.

    If Keras would untie head and table, an error is raised. That happens when they are
    in two nested models (the two parts of a cut, joined), or when the head stands
    alone: Keras makes each model again without the other. Then `from_config`,
    `clone_model`, HDF5 files and Keras 2's SavedModel raise; `tiedbert.surgery.clone`
    and ``.keras`` files keep the tie. :func:`check_tied` lists the ties of a model.

    To freeze the table for both uses, set ``embedding_layer.trainable = False``; the
    bias is still trained. ``trainable`` of the head is set for the table as well, as
    for every layer that holds another one.

    Args:
        embedding_layer: the layer that owns the table ``[vocab, width]``: Embedding or
            ReversibleEmbedding of Keras, Embedding of bert4keras, the
            ``token_embedding`` of keras-hub. This layer builds it if it is not built.
            The ``reverse_dtype`` and ``logit_soft_cap`` of a ReversibleEmbedding are
            not used.
        activation: as for `keras.layers.Dense`, ``"softmax"`` by default; ``"linear"``
            gives logits.
        use_bias: whether to add a bias ``[vocab]``, the default.
        bias_initializer: as for `keras.layers.Dense`, ``"zeros"`` by default.
        bias_regularizer: as for `keras.layers.Dense`, None by default.
        **kwargs: ``name``, ``trainable`` and ``dtype`` of any layer. In a model of
            mixed precision, ``dtype="float32"`` makes this layer compute its logits in
            float32; a mixed policy computes them in half precision. The table keeps the
            dtype of the embedding layer in either case.

    Call: float ``[..., width]`` -> float ``[..., vocab]`` of this layer's compute
    dtype; the mask is passed on.

    Raises:
        InputError: the layer has no table, or one that is not in floating point, or
            another kernel for its reverse; the table's width is not the input's; the
            size of the table was changed after this layer was built; a copy that Keras
            makes would be untied.

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> from tensorflow import keras
        >>> table = keras.layers.Embedding(3, 2, name="tokens")
        >>> head = EmbeddingDense(table, activation="linear", use_bias=False)
        >>> table.build((None,))
        >>> table.set_weights([np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 3.0]])])
        >>> head(tf.constant([[10.0, 1.0]])).numpy().tolist()
        [[10.0, 1.0, 23.0]]
    """

    def __init__(
        self,
        embedding_layer: keras.layers.Layer,
        activation: str | Callable | None = "softmax",
        use_bias: bool = True,
        bias_initializer: Any = "zeros",
        bias_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.bias = None
        if isinstance(embedding_layer, PendingTable):
            self.pending_table = embedding_layer
        else:
            self._tie(embedding_layer)

    def _tie(self, embedding_layer):
        if not hasattr(embedding_layer, "input_dim"):
            raise InputError(
                "EmbeddingDense expected an Embedding layer that owns a table, "
                f"received {type(embedding_layer).__name__}{_hint(embedding_layer)}"
            )
        if not getattr(embedding_layer, "tie_weights", True):
            raise InputError(
                f"EmbeddingDense expected one table for both uses, but "
                f"{embedding_layer.name!r} was made with tie_weights=False and has "
                "another kernel for its reverse: make it with tie_weights=True"
            )
        self.embedding_layer = embedding_layer
        self.pending_table = None

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Find the table first, if this layer was made from a config."""
        if self.pending_table is not None:
            self._tie_at_first_call(inputs)
        return super().__call__(inputs, *args, **kwargs)

    def _tie_at_first_call(self, inputs):
        by_user = inputs is not None and _keras.called_by_user(inputs)
        pending = self.pending_table
        self._tie(pending.upstream(inputs) or pending.own(self.name, by_user))
        self.built = False  # Keras 3 takes a layer made from a config for built.

    def build(self, input_shape: Any) -> None:
        """Build the table if it is not built, and the bias."""
        pending = self.pending_table
        if pending is not None and not _keras.in_keras_file():
            self._add_bias(pending.layer.input_dim)
            return
        if pending is not None:
            self._tie(pending.own(self.name))
        layer = self.embedding_layer
        if not layer.built:
            with tf.name_scope(layer.name):
                layer.build((None, None))
        self._check_width(input_shape[-1])
        self._add_bias(layer.embeddings.shape[0])
        self.built = True

    def _add_bias(self, vocabulary):
        if self.use_bias and self.bias is None:
            self.bias = self.add_weight(
                name="bias",
                shape=(vocabulary,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
            )

    def build_from_config(self, config: dict) -> None:
        """Build when a file is loaded; a pending layer is built at its first call."""
        if self.pending_table is None:
            with tf.name_scope(self.name):
                super().build_from_config(config)

    def _check_tied(self):
        """InputError if this layer is pending, as when a wrapper runs only `call`."""
        if self.pending_table is not None:
            self.pending_table.own(self.name)

    def _check_width(self, received):
        layer = self.embedding_layer
        width = layer.embeddings.shape[-1]
        if received != width:
            raise InputError(
                f"EmbeddingDense {self.name!r} expected inputs as wide as the table "
                f"of {layer.name!r}, {width}, received {received}: add a Dense "
                f"layer of {width} units before it"
            )

    def _table(self):
        """The table as a tensor in the dtype of the embedding layer, checked."""
        self._check_tied()
        layer = self.embedding_layer
        table = tf.convert_to_tensor(layer.embeddings)
        if not table.dtype.is_floating:
            raise InputError(
                f"EmbeddingDense {self.name!r}: the table of {layer.name!r} is "
                f"quantized to {table.dtype.name}; a tied head needs it in floating "
                "point"
            )
        if self.use_bias and self.bias.shape[0] != table.shape[0]:
            raise InputError(
                f"EmbeddingDense {self.name!r} was built for the {self.bias.shape[0]} "
                f"tokens that {layer.name!r} had, which now has {table.shape[0]}: "
                "resize a table before its head is built, or make a new head"
            )
        return table

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Multiply by the transposed table, without making a transposed copy."""
        table = self._table()
        self._check_width(inputs.shape[-1])
        vocabulary, width = table.shape
        # Two dimensions: a broadcast product would give the table a gradient per row.
        flat = tf.reshape(inputs, [-1, width])
        logits = tf.matmul(flat, tf.cast(table, inputs.dtype), transpose_b=True)
        if self.use_bias:
            logits += tf.cast(tf.convert_to_tensor(self.bias), logits.dtype)
        logits = tf.reshape(logits, tf.concat([tf.shape(inputs)[:-1], [vocabulary]], 0))
        logits.set_shape([*inputs.shape[:-1], vocabulary])
        return self.activation(logits)

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """``[..., width]`` -> ``[..., vocab]``."""
        self._check_tied()
        layer = self.embedding_layer
        size = layer.embeddings.shape[0] if layer.built else layer.input_dim
        return (*input_shape[:-1], size)

    def get_config(self) -> dict:
        """The arguments of the constructor, with the config of the embedding layer."""
        pending = self.pending_table
        layer = self.embedding_layer if pending is None else pending.layer
        return {
            **super().get_config(),
            "embedding_layer": keras.utils.serialize_keras_object(layer),
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
        }

    @classmethod
    def from_config(cls, config: dict) -> "EmbeddingDense":
        """A layer that finds its table when it is first called, if not before."""
        table = table_from_config(config["embedding_layer"])
        return cls(**{**config, "embedding_layer": table})


def _hint(layer) -> str:
    """Names the attributes of a layer that hold a layer with a table."""
    if not isinstance(layer, keras.layers.Layer):
        return ""
    held = [
        name
        for name, value in _keras.sublayers(layer).items()
        if hasattr(value, "input_dim") and not name.startswith("_")
    ]
    return f": pass its .{' or .'.join(held)}" if held else ""
