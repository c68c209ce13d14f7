"""The embeddings of bert4keras: of tokens, segments and positions, for Keras 3."""

from typing import Any

from tensorflow import keras

from tiedbert.bert._keras3.rotary import sinusoidal
from tiedbert.bert.position_checks import checked_count, checked_ids, checked_length

ops = keras.ops


@keras.utils.register_keras_serializable("tiedbert")
class TokenEmbedding(keras.layers.Embedding):
    """A table of tokens whose mask says which tokens are padding.

    Args:
        input_dim: number of tokens.
        output_dim: width.
        pad_id: the id of padding.
        kind: that of the encoder, for its heads and files.
        masks_first: whether the first position is masked like others; by default it
            never is, as in bert4keras: no text is empty.
        **kwargs: of `keras.layers.Embedding`.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        pad_id: int = 0,
        kind: str = "bert",
        masks_first: bool = False,
        **kwargs: Any,
    ) -> None:
        kwargs["mask_zero"] = True
        super().__init__(input_dim, output_dim, **kwargs)
        self.pad_id, self.kind, self.masks_first = pad_id, kind, masks_first

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """bool ``[batch, time]``, True at tokens."""
        present = ops.not_equal(inputs, ops.cast(self.pad_id, inputs.dtype))
        if self.masks_first:
            return present
        return ops.concatenate([ops.ones_like(present[:, :1]), present[:, 1:]], axis=1)

    def get_config(self) -> dict[str, Any]:
        """The configuration, with the arguments that Keras' layer does not have."""
        return {
            **super().get_config(),
            "pad_id": self.pad_id,
            "kind": self.kind,
            "masks_first": self.masks_first,
        }


@keras.utils.register_keras_serializable("tiedbert")
class AddSegments(keras.layers.Add):
    """Adds to the token embeddings, whose mask goes on.

    Keras 3 would drop it, as segments have none.
    """

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The mask of the first input."""
        return None if mask is None else mask[0]


@keras.utils.register_keras_serializable("tiedbert")
class OneSegment(keras.layers.Layer):
    """Adds the vector of the one segment that all tokens are of.

    Args:
        output_dim: width.
        embeddings_initializer: of the table, ``[1, width]``.
        **kwargs: of `keras.layers.Layer`.

    Source: `RobertaEmbeddings` of transformers, when it is given no segments.
    """

    input_dim = 1

    def __init__(
        self, output_dim: int, embeddings_initializer: Any = "zeros", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.output_dim = output_dim
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.supports_masking = True
        self.embeddings: Any = None

    def build(self, input_shape: tuple) -> None:
        """Make the table."""
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.input_dim, self.output_dim),
            initializer=self.embeddings_initializer,
        )

    def call(self, inputs: Any) -> Any:
        """float ``[batch, time, width]`` -> the same shape."""
        return inputs + self.embeddings[0]

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """That of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """All arguments."""
        initializer = keras.initializers.serialize(self.embeddings_initializer)
        return {
            **super().get_config(),
            "output_dim": self.output_dim,
            "embeddings_initializer": initializer,
        }


@keras.utils.register_keras_serializable("tiedbert")
class CountedPositions(keras.layers.Layer):
    """Positions counted over the tokens that are no padding (RoBERTa).

    A text has the same positions wherever its padding is. Longer texts are refused: an
    eager call raises InputError, an assertion in a graph
    `tf.errors.InvalidArgumentError`.

    Args:
        pad_id: the id of padding.
        padding_position: the position of padding; those of tokens are the next ones.
        positions: the number of positions in the table, those up to that of padding
            included.
        **kwargs: of `keras.layers.Layer`.

    Source: `make_positions` of fairseq; `RobertaEmbeddings` of transformers.
    """

    def __init__(
        self, pad_id: int, padding_position: int, positions: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.pad_id = pad_id
        self.padding_position, self.positions = padding_position, positions

    def call(self, inputs: Any) -> Any:
        """int ``[batch, time]`` -> int32, the same shape."""
        present = ops.cast(
            ops.not_equal(inputs, ops.cast(self.pad_id, inputs.dtype)), "int32"
        )
        order = ops.cumsum(present, axis=1)
        order = checked_count(order, self.room, self.name)
        return order * present + self.padding_position

    @property
    def room(self) -> int:
        """The number of positions for tokens."""
        return self.positions - self.padding_position - 1

    def compute_output_spec(self, inputs: Any) -> Any:
        """int32, the shape of the input."""
        return keras.KerasTensor(inputs.shape, dtype="int32")

    def get_config(self) -> dict[str, Any]:
        """All arguments."""
        return {
            **super().get_config(),
            "pad_id": self.pad_id,
            "padding_position": self.padding_position,
            "positions": self.positions,
        }


@keras.utils.register_keras_serializable("tiedbert")
class PositionEmbedding(keras.layers.Layer):
    """Adds a learned vector for each position; longer texts are refused.

    If the length is known when the layer is called, eagerly or while `fit` or `predict`
    trace the model, it raises InputError. Otherwise an assertion in the graph raises
    `tf.errors.InvalidArgumentError`; XLA leaves assertions out.

    Args:
        input_dim: number of positions in the table.
        output_dim: width.
        hierarchical: the share of the first digit, or True for 0.4, if a position is
            written with two digits of base `input_dim`; None for one vector a position.
        custom_position_ids: whether positions, ``[batch, time]``, are a second input.
        embeddings_initializer: of the table.
        **kwargs: of `keras.layers.Layer`.

    Source: bert4keras 0.11.5; hierarchical positions: https://kexue.fm/archives/7947.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        hierarchical: bool | float | None = None,
        custom_position_ids: bool = False,
        embeddings_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.input_dim, self.output_dim = input_dim, output_dim
        self.hierarchical = hierarchical
        self.custom_position_ids = custom_position_ids
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.supports_masking = True
        self.embeddings: Any = None

    def build(self, input_shape: Any) -> None:
        """Make the table."""
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.input_dim, self.output_dim),
            initializer=self.embeddings_initializer,
        )

    def call(self, inputs: Any) -> Any:
        """float ``[batch, time, width]``, with the vectors of the positions."""
        if self.custom_position_ids:
            hidden, ids = inputs
            return hidden + self._vectors(checked_ids(ids, self.positions))
        hidden = checked_length(inputs, self.positions, self.name)
        time = ops.shape(hidden)[1]
        if self.hierarchical:
            return hidden + self._vectors(ops.arange(time)[None])
        return hidden + self.embeddings[None, :time]

    @property
    def positions(self) -> int:
        """The number of positions; a hierarchical table has its size squared."""
        return self.input_dim**2 if self.hierarchical else self.input_dim

    def _vectors(self, ids):
        if not self.hierarchical:
            return ops.take(self.embeddings, ids, axis=0)
        share = 0.4 if self.hierarchical is True else self.hierarchical
        table = (self.embeddings - share * self.embeddings[:1]) / (1 - share)
        first = ops.take(table, ids // self.input_dim, axis=0)
        second = ops.take(table, ids % self.input_dim, axis=0)
        return share * first + (1 - share) * second

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """That of the hidden states."""
        return input_shape[0] if self.custom_position_ids else input_shape

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The mask of the hidden states."""
        return mask[0] if isinstance(mask, (list, tuple)) else mask

    def get_config(self) -> dict[str, Any]:
        """All arguments."""
        initializer = keras.initializers.serialize(self.embeddings_initializer)
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "hierarchical": self.hierarchical,
            "custom_position_ids": self.custom_position_ids,
            "embeddings_initializer": initializer,
        }


@keras.utils.register_keras_serializable("tiedbert")
class RotaryPositions(keras.layers.Layer):
    """Sines and cosines of the positions 0, 1, 2 ..., or of those given.

    Args:
        output_dim: width of a head's queries and keys, even.
        custom_position_ids: whether positions, ``[batch, time]``, are a second input.
        base: the ratio of the longest wave length to the shortest.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(
        self,
        output_dim: int,
        custom_position_ids: bool = False,
        base: float = 10000.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.output_dim, self.base = output_dim, base
        self.custom_position_ids = custom_position_ids
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """float ``[batch, time, output_dim]``."""
        if self.custom_position_ids:
            positions = inputs[1]
        else:
            positions = ops.cumsum(ops.ones_like(inputs[..., 0], "float32"), axis=1) - 1
        made = sinusoidal(positions, self.output_dim, self.base)
        return ops.cast(made, self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """``[batch, time, output_dim]``."""
        shape = input_shape[0] if self.custom_position_ids else input_shape
        return (*shape[:2], self.output_dim)

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """Positions have no padding."""

    def get_config(self) -> dict[str, Any]:
        """All arguments."""
        return {
            **super().get_config(),
            "output_dim": self.output_dim,
            "custom_position_ids": self.custom_position_ids,
            "base": self.base,
        }


@keras.utils.register_keras_serializable("tiedbert")
class RelativePositions(keras.layers.Layer):
    """A fixed sinusoidal vector for each distance, at most 64 (NEZHA).

    Args:
        output_dim: width of a head's queries and keys.
        max_distance: farther tokens count as so far.
        **kwargs: of `keras.layers.Layer`.

    Source: Wei et al., "NEZHA: Neural contextualized representation for Chinese
    language understanding", 2019.
    """

    def __init__(self, output_dim: int, max_distance: int = 64, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.output_dim, self.max_distance = output_dim, max_distance
        self.supports_masking = True
        self.embeddings: Any = None

    def build(self, input_shape: Any) -> None:
        """Make the table of distances, which is not trained."""
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(2 * self.max_distance + 1, self.output_dim),
            initializer=lambda shape, dtype=None: ops.cast(
                sinusoidal(ops.arange(shape[0]), shape[1]), dtype
            ),
            trainable=False,
        )

    def call(self, inputs: Any) -> Any:
        """float ``[batch, time, width]`` -> ``[time, time, output_dim]``."""
        positions = ops.arange(ops.shape(inputs)[1])
        distances = positions[None, :] - positions[:, None]
        distances = ops.clip(distances, -self.max_distance, self.max_distance)
        return ops.take(self.embeddings, distances + self.max_distance, axis=0)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """``[time, time, output_dim]``."""
        return (input_shape[1], input_shape[1], self.output_dim)

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """Positions have no padding."""

    def get_config(self) -> dict[str, Any]:
        """All arguments."""
        return {
            **super().get_config(),
            "output_dim": self.output_dim,
            "max_distance": self.max_distance,
        }
