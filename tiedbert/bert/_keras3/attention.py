"""The self-attention of bert4keras, for Keras 3."""

from collections.abc import Sequence
from typing import Any

from tensorflow import keras

from tiedbert import _keras
from tiedbert.bert._keras3.attention_probabilities import (
    AttentionProbabilities,
    by_heads,
)

ops = keras.ops


@keras.utils.register_keras_serializable("tiedbert")
class MultiHeadAttention(keras.layers.Layer):
    """Scaled dot-product attention with several heads, as bert4keras has it.

    It is the second half: it weighs the values by the probabilities that a layer of its
    own, :class:`AttentionProbabilities`, has made. Called on what that layer made, it
    counts its weights as its own, so that they are bert4keras': kernel and bias of
    queries, keys, values and output. In the rest of a cut between the two, loaded from
    a file, it has those of values and output alone.

    Its inputs are a list: queries and values, float ``[batch, time, width]``,
    probabilities, float ``[batch, heads, queries, time]``, and, if `relative`, vectors
    that are added to the values, float ``[time, time, head_size]`` (NEZHA). Of the
    queries it reads the mask alone.

    Args:
        heads: number of heads.
        head_size: width of the values of a head.
        out_dim: width of the output.
        use_bias: whether the projections have biases.
        attention_dropout: rate of dropout on the probabilities.
        relative: whether there is a fourth input.
        kernel_initializer: of the kernels.
        **kwargs: of `keras.layers.Layer`.

    Source: Vaswani et al., "Attention is all you need", 2017; bert4keras 0.11.5.
    """

    def __init__(
        self,
        heads: int,
        head_size: int,
        out_dim: int,
        use_bias: bool = True,
        attention_dropout: float = 0.0,
        relative: bool = False,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.heads, self.head_size, self.out_dim = heads, head_size, out_dim
        self.use_bias = use_bias
        self.attention_dropout = attention_dropout
        self.relative = relative
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True
        self.probabilities: AttentionProbabilities | None = None
        self.v_dense: Any = None
        self.o_dense: Any = None
        self.dropout: Any = None

    def __call__(self, inputs: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        """Call the layer; the first one, in a graph, tells who makes probabilities."""
        if not self.built and _keras.is_symbolic(inputs[2]):
            maker = _keras.maker(inputs[2])
            if isinstance(maker, AttentionProbabilities):
                self.probabilities = maker
        return super().__call__(inputs, *args, **kwargs)

    def build(self, input_shape: Sequence[tuple]) -> None:
        """Make the projections of values and output.

        Keras lists weights in the order in which their layers were set: those of
        queries and keys come first.
        """
        self.v_dense = self._dense(self.heads * self.head_size, "value")
        self.o_dense = self._dense(self.out_dim, "output")
        self.dropout = keras.layers.Dropout(
            self.attention_dropout, dtype=self.dtype_policy
        )
        values = input_shape[1]
        self.v_dense.build(values)
        self.o_dense.build((*values[:-1], self.heads * self.head_size))

    def get_build_config(self) -> None:
        """None: only when it is called it knows who makes the probabilities."""

    def _dense(self, units, name):
        return keras.layers.Dense(
            units,
            use_bias=self.use_bias,
            kernel_initializer=self.kernel_initializer,
            dtype=self.dtype_policy,
            name=name,
        )

    def call(self, inputs: Sequence[Any], training: bool | None = None) -> Any:
        """Attend: float ``[batch, queries, out_dim]``."""
        _, values, probabilities, *relative = inputs
        probabilities = self.dropout(probabilities, training=training)
        values = by_heads(self.v_dense(values), self.heads)
        attended = ops.transpose(ops.matmul(probabilities, values), (0, 2, 1, 3))
        if self.relative:
            pairs = ops.einsum("bhjk,jkd->bjhd", probabilities, *relative)
            attended = attended + pairs
        shape = (-1, ops.shape(attended)[1], self.heads * self.head_size)
        return self.o_dense(ops.reshape(attended, shape))

    @property
    def key_size(self) -> int | None:
        """Width of the queries and keys of a head; None where these are not known."""
        return None if self.probabilities is None else self.probabilities.key_size

    @property
    def q_dense(self) -> keras.layers.Dense:
        """The projection of the queries."""
        return self._of_probabilities("q_dense")

    @property
    def k_dense(self) -> keras.layers.Dense:
        """The projection of the keys."""
        return self._of_probabilities("k_dense")

    def _of_probabilities(self, name):
        if self.probabilities is None:
            raise AttributeError(
                f'"{self.name}" has no {name}: it is called on probabilities that no '
                f"{AttentionProbabilities.__name__} made"
            )
        return getattr(self.probabilities, name)

    def compute_output_shape(self, input_shape: Sequence[tuple]) -> tuple:
        """``[batch, queries, out_dim]``."""
        return (*input_shape[0][:-1], self.out_dim)

    def compute_mask(self, inputs: Sequence[Any], mask: Any = None) -> Any:
        """The mask of the queries."""
        return None if mask is None else mask[0]

    def get_config(self) -> dict[str, Any]:
        """All arguments."""
        return {
            **super().get_config(),
            "heads": self.heads,
            "head_size": self.head_size,
            "out_dim": self.out_dim,
            "use_bias": self.use_bias,
            "attention_dropout": self.attention_dropout,
            "relative": self.relative,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def attended_by(graph: Any, call: Any, queries: Any) -> Any:
    """What an attention gives for other queries of the same text.

    Args:
        graph: the `Graph` of the model.
        call: the call of the attention in it.
        queries: float ``[batch, n, width]``.

    Returns:
        float ``[batch, n, out_dim]``, or None for an attention that has more inputs
        than queries, keys and values, or whose probabilities are changed.
    """
    _, values, probabilities, *_ = call.inputs
    first = graph.producers.get(probabilities)
    makes = first is not None and isinstance(first.layer, AttentionProbabilities)
    if not makes or len(first.inputs) != 2:
        return None
    return call.layer([queries, values, first.layer([queries, first.inputs[1]])])
