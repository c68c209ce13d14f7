"""The tied head: a dense layer whose kernel is the table of an Embedding layer."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError


@keras.utils.register_keras_serializable("tiedbert")
class EmbeddingDense(keras.layers.Layer):
    """A dense layer whose kernel is the transposed table of an Embedding layer.

    The output head of a masked language model (Press and Wolf, "Using the output
    embedding to improve language models", 2017; Su Jianlin, kexue.fm/archives/6985).
    There is one variable, which the head asks for at each call: the gradients of both
    uses add up. It stays one through save, load, `from_config`, `clone_model`, pickles
    and cuts.

    If Keras would untie head and table, this layer raises an error. That happens when
    they are in two nested models, such as both parts of a cut, joined: Keras rebuilds
    each without the other in `from_config`, `clone_model`, HDF5 and Keras 2's
    SavedModel. It also happens for a head that is copied alone.
    `tiedbert.surgery.clone` and ``.keras`` files keep both. :func:`check_tied` lists
    the ties of a model.

    ``embedding_layer.trainable = False`` freezes the table for both uses; the bias is
    still trained. As with every layer that holds another one, setting ``trainable`` of
    the head sets that of the table.

    Args:
        embedding_layer: the layer that owns the table ``[vocab, width]``: Embedding or
            ReversibleEmbedding of Keras, Embedding of bert4keras, the
            ``token_embedding`` of keras-hub. If it is not built, this layer builds it.
            Options of a ReversibleEmbedding for its reverse (``reverse_dtype``,
            ``logit_soft_cap``) have no effect here.
        activation: as for `keras.layers.Dense`; ``"linear"`` gives logits.
        use_bias: whether to add a bias ``[vocab]``, a variable of this layer.
        bias_initializer: as for `keras.layers.Dense`.
        bias_regularizer: as for `keras.layers.Dense`.
        **kwargs: ``name``, ``trainable`` and ``dtype`` of any layer. In a model of
            mixed precision, ``dtype="float32"`` makes this layer compute its logits in
            float32; a mixed policy computes them in half precision. The table is the
            same variable, of the embedding layer's dtype, in either case.

    Call: float ``[..., width]`` -> float ``[..., vocab]`` of this layer's compute
    dtype; masks pass through.

    Raises:
        InputError: the layer has no table (or one that is not in floating point), has
            another kernel for its reverse, or its width is not the input's; the table
            was given another vocabulary after this layer was built; a copy that Keras
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
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.bias = None
        if isinstance(embedding_layer, _Restored):
            self._restored = embedding_layer
        else:
            self._restored = None
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

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Find the table again after deserialization, then call the layer."""
        if self._restored is not None:
            self._find(inputs)
            self.built = False  # Keras 3 takes a restored layer for built.
        return super().__call__(inputs, *args, **kwargs)

    def _find(self, inputs):
        by_hand = inputs is not None and _keras.called_by_user(inputs)
        table = self._restored.find(inputs) or self._restored.own(self.name, by_hand)
        self._tie(table)
        self._restored = None

    def build(self, input_shape: Any) -> None:
        """Build the table, if it is not built, and the bias."""
        if self._restored is not None:
            if not _keras.in_keras_file():  # The first call tells where the table is.
                self._add_bias(self._restored.layer.input_dim)
                return
            self._find(None)
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
        """Wait for the first call of a restored head: only then is its table known."""
        if self._restored is None:
            with tf.name_scope(self.name):
                super().build_from_config(config)

    def _check_found(self):
        if self._restored is not None:  # a layer around it leaves out `__call__`
            self._restored.own(self.name, by_hand=False)

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
        """The table as it is now, checked: a tensor in the embedding's own dtype."""
        self._check_found()
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
        self._check_found()
        layer = self.embedding_layer
        size = layer.embeddings.shape[0] if layer.built else layer.input_dim
        return (*input_shape[:-1], size)

    def get_config(self) -> dict:
        """The settings, with the embedding layer's own settings inside."""
        layer = self._restored.layer if self._restored else self.embedding_layer
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
        """A layer that looks for its table when it is first called."""
        given = config["embedding_layer"]
        layer = _keras.deserialize_layer(given)
        return cls(**{**config, "embedding_layer": _restored(layer, given)})


def _hint(layer) -> str:
    """What to pass instead of a layer that only holds one with a table."""
    if not isinstance(layer, keras.layers.Layer):
        return ""
    held = [
        name
        for name, value in _keras.sublayers(layer).items()
        if hasattr(value, "input_dim") and not name.startswith("_")
    ]
    return f": pass its .{' or .'.join(held)}" if held else ""


def _restored(layer, config):
    """The layer that a config inside a file stands for, or the wish to find it.

    Keras writes into a file which objects are one, but loses it for those in a nested
    model or a layer that it has written before. That there was one is left in the
    config of this head.
    """
    if not (_keras.in_keras_file() and "shared_object_id" in config):
        return _Restored(layer)
    made = _keras.layers_being_loaded()
    # Another head, that waits for its first call too, may have read the one config.
    waiting = _the_one(_of_name(layer, _waiting(made)), layer.name, "its file has")
    if waiting is not None:
        return _Restored(waiting)
    same = _of_name(layer, made)
    if any(other is layer for other in same):
        return layer
    return _the_one(same, layer.name, "its file has") or _Restored(layer)


def _waiting(made) -> list:
    """The layers of the configs of heads that have not found their tables yet."""
    heads = {
        id(part): part
        for layer in made
        for part in _keras.layers_within(layer)
        if isinstance(part, EmbeddingDense) and part._restored
    }
    return [head._restored.layer for head in heads.values()]


def _of_name(layer, others) -> list:
    """The distinct layers within `others` of the name and the class of `layer`."""
    found = {
        id(part): part
        for other in others
        for part in _keras.layers_within(other)
        if part.name == layer.name and type(part) is type(layer)
    }
    return list(found.values())


def _the_one(found, name, where):
    if len(found) > 1:
        raise InputError(
            f"EmbeddingDense was tied to a layer named {name!r}, and {where} "
            f"{len(found)} of that name: give each table its own name"
        )
    return found[0] if found else None


class _Restored:
    """The embedding layer that a config describes, until the real one is found.

    Keras rebuilds a graph layer by layer from configs and knows nothing of ties. The
    layer of the same name that made the head's input, in a nested model perhaps, is
    the one it was tied to. A head that stands alone (the rest of a cut) owns the layer
    of its config if it comes from a file or is called on numbers. In a graph it may as
    well be in a copy of a model whose table lies elsewhere.
    """

    def __init__(self, layer):
        self.layer = layer

    def find(self, inputs):
        """The layer that made the inputs, or None."""
        found = _of_name(self.layer, _keras.ancestors(inputs))
        return _the_one(found, self.layer.name, "its input comes from")

    def own(self, head, by_hand):
        """The layer of the config, where no copy can lose a tie by that."""
        if not (by_hand or _keras.in_keras_file()):
            raise InputError(
                f"EmbeddingDense {head!r} was tied to {self.layer.name!r}, which "
                "nothing before it in its model looks up: a copy by Keras would have a "
                "table of its own; use tiedbert.surgery.clone, or save and load a "
                ".keras file"
            )
        return self.layer
