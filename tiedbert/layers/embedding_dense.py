"""The tied head: a dense layer whose kernel is the table of an Embedding layer."""

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError


@keras.utils.register_keras_serializable("tiedbert")
class EmbeddingDense(keras.layers.Layer):
    """A dense layer whose kernel is the transposed table of an Embedding layer.

    The output head of a masked language model (Press and Wolf, "Using the output
    embedding to improve language models", 2017; Su Jianlin, kexue.fm/archives/6985).
    There is one variable, looked up at each call: gradients of both uses add up, and
    the tie survives save, load, `from_config` and `clone_model`. (Keras rebuilds a
    nested model by itself: a head there, its table outside, gets a table of its own.
    `tiedbert.surgery.clone` keeps the tie there too.)

    Args:
        embedding_layer: the Embedding layer that owns the table ``[vocab, width]``;
            it may be unbuilt, then this layer builds it.
        activation: as for `keras.layers.Dense`; ``"linear"`` gives logits.
        use_bias: whether to add a bias ``[vocab]`` of this layer's own.

    Call: float ``[..., width]`` -> float ``[..., vocab]``; masks pass through.

    Raises:
        InputError: the layer has no table, or its width is not the input's.

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

    def __init__(self, embedding_layer, activation="softmax", use_bias=True, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        if isinstance(embedding_layer, _Restored):
            self._restored = embedding_layer
        else:
            self._restored = None
            self._tie(embedding_layer)

    def _tie(self, embedding_layer):
        if not hasattr(embedding_layer, "input_dim"):
            raise InputError(
                "EmbeddingDense expected an Embedding layer that owns a table, "
                f"received {type(embedding_layer).__name__}"
            )
        self.embedding_layer = embedding_layer

    def __call__(self, inputs, *args, **kwargs):
        """Find the table again after deserialization, then call the layer."""
        if self._restored is not None:
            restored, self._restored = self._restored, None
            self._tie(restored.find(inputs))
            self.built = False  # Keras 3 takes a restored layer for built.
        return super().__call__(inputs, *args, **kwargs)

    def build(self, input_shape):
        """Build the table if nobody has, and the bias."""
        layer = self.embedding_layer
        if not layer.built:
            with tf.name_scope(layer.name):
                layer.build((None, None))
        vocabulary, width = layer.embeddings.shape
        if input_shape[-1] != width:
            raise InputError(
                f"EmbeddingDense {self.name!r} expected inputs as wide as the table "
                f"of {layer.name!r}, {width}, received {input_shape[-1]}: add a Dense "
                f"layer of {width} units before it"
            )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(vocabulary,), initializer="zeros"
            )
        self.built = True

    def build_from_config(self, config):
        """Wait for the first call of a restored head: only then is its table known."""
        if self._restored is None:
            super().build_from_config(config)

    def call(self, inputs):
        """Multiply by the transposed table, without making a transposed copy."""
        table = tf.convert_to_tensor(self.embedding_layer.embeddings)
        if not table.dtype.is_floating:
            raise InputError(
                f"EmbeddingDense {self.name!r}: the table of "
                f"{self.embedding_layer.name!r} is quantized to {table.dtype.name}; a "
                "tied head needs it in floating point"
            )
        vocabulary, width = table.shape
        # Two dimensions: a broadcast product would give the table a gradient per row.
        flat = tf.reshape(inputs, [-1, width])
        logits = tf.matmul(flat, tf.cast(table, inputs.dtype), transpose_b=True)
        if self.use_bias:
            logits += tf.cast(tf.convert_to_tensor(self.bias), logits.dtype)
        logits = tf.reshape(logits, tf.concat([tf.shape(inputs)[:-1], [vocabulary]], 0))
        logits.set_shape([*inputs.shape[:-1], vocabulary])
        return self.activation(logits)

    def compute_output_shape(self, input_shape):
        """``[..., width]`` -> ``[..., vocab]``."""
        return (*input_shape[:-1], self.embedding_layer.input_dim)

    def get_config(self):
        """Settings, with the embedding layer's own settings inside."""
        embedding_layer = (
            self._restored.layer if self._restored else self.embedding_layer
        )
        return {
            **super().get_config(),
            "embedding_layer": keras.utils.serialize_keras_object(embedding_layer),
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
        }

    @classmethod
    def from_config(cls, config):
        """A layer that looks for its table when it is first called."""
        layer = keras.utils.deserialize_keras_object(config["embedding_layer"])
        return cls(**{**config, "embedding_layer": _Restored(layer)})


class _Restored:
    """The embedding layer that a config describes, until the real one is found.

    Keras rebuilds a graph layer by layer from configs and knows nothing of ties. The
    layer of the same name that made the head's input, in a nested model perhaps, is
    the one it was tied to; only a head that stands alone (the rest of a cut) owns the
    layer of its config.
    """

    def __init__(self, layer):
        self.layer = layer

    def find(self, inputs):
        name, kind = self.layer.name, type(self.layer)
        found = {
            id(layer): layer
            for ancestor in _keras.ancestors(inputs)
            for layer in _keras.layers_within(ancestor)
            if layer.name == name and type(layer) is kind
        }
        if len(found) > 1:
            raise InputError(
                f"EmbeddingDense was tied to a layer named {name!r}, and its input "
                f"comes from {len(found)} of that name: give each table its own name"
            )
        return next(iter(found.values()), self.layer)
