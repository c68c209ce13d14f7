"""The self-attention of bert4keras, for Keras 3."""

from collections.abc import Sequence
from typing import Any

from tensorflow import keras

from tiedbert.bert._keras3.normalization import in_single_precision
from tiedbert.bert._keras3.rotary import rotated

ops = keras.ops

# What a layer may be given beside queries, keys and values, in this order.
_EXTRAS = "bias", "relative", "rotary"


@keras.utils.register_keras_serializable("tiedbert")
class MultiHeadAttention(keras.layers.Layer):
    """Scaled dot-product attention with several heads, as bert4keras has it.

    Its inputs are a list: queries, keys and values, float ``[batch, time, width]``, and
    what `extras` says. The softmax is computed in float32 where the policy is of half
    precision. Keys that the mask of the values calls padding get the weight 0.

    Args:
        heads: number of heads.
        head_size: width of the values of a head.
        out_dim: width of the output; None for ``heads * head_size``.
        key_size: width of the queries and keys of a head; None for `head_size`.
        use_bias: whether the four projections have biases.
        attention_dropout: rate of dropout on the probabilities.
        extras: names of the further inputs, in this order: ``"bias"``, bool
            ``[batch, time, time]``, False where a query must not see a key;
            ``"relative"``, float ``[time, time, key_size]``, vectors added to keys and
            values (NEZHA); ``"rotary"``, float ``[batch, time, key_size]``, sines and
            cosines that turn queries and keys (RoFormer).
        kernel_initializer: of the four kernels.
        **kwargs: of `keras.layers.Layer`.

    Source: Vaswani et al., "Attention is all you need", 2017; bert4keras 0.11.5.
    """

    def __init__(
        self,
        heads: int,
        head_size: int,
        out_dim: int | None = None,
        key_size: int | None = None,
        use_bias: bool = True,
        attention_dropout: float = 0.0,
        extras: Sequence[str] = (),
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.heads, self.head_size = heads, head_size
        self.out_dim = out_dim or heads * head_size
        self.key_size = key_size or head_size
        self.use_bias = use_bias
        self.attention_dropout = attention_dropout or 0.0
        self.extras = [name for name in _EXTRAS if name in extras]
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True
        self.q_dense = self._dense(heads * self.key_size, "query")
        self.k_dense = self._dense(heads * self.key_size, "key")
        self.v_dense = self._dense(heads * head_size, "value")
        self.o_dense = self._dense(self.out_dim, "output")
        self.dropout = keras.layers.Dropout(
            self.attention_dropout, dtype=self.dtype_policy
        )

    def _dense(self, units, name):
        return keras.layers.Dense(
            units,
            use_bias=self.use_bias,
            kernel_initializer=self.kernel_initializer,
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, input_shape: Sequence[tuple]) -> None:
        """Make the four projections."""
        queries, keys, values = input_shape[:3]
        self.q_dense.build(queries)
        self.k_dense.build(keys)
        self.v_dense.build(values)
        self.o_dense.build((*queries[:-1], self.heads * self.head_size))

    def call(
        self, inputs: Sequence[Any], mask: Any = None, training: bool | None = None
    ) -> Any:
        """Attend: float ``[batch, queries, out_dim]``."""
        extras = dict(zip(self.extras, inputs[3:], strict=True))
        queries, keys, values = self._projected(*inputs[:3])
        if "rotary" in extras:
            queries, keys = (rotated(x, extras["rotary"]) for x in (queries, keys))
        scores = self._scores(queries, keys, extras.get("relative"))
        allowed = _allowed(None if mask is None else mask[2], extras.get("bias"))
        probabilities = self._probabilities(scores, allowed)
        probabilities = self.dropout(probabilities, training=training)
        return self._attended(probabilities, values, extras.get("relative"))

    def _projected(self, queries, keys, values):
        """Queries, keys and values by heads, ``[batch, heads, time, size]``."""
        if queries is keys is values and not self._has_adapters():
            made = self._in_one_product(queries)
        else:
            made = self.q_dense(queries), self.k_dense(keys), self.v_dense(values)
        sizes = self.key_size, self.key_size, self.head_size
        return tuple(
            self._by_heads(x, size) for x, size in zip(made, sizes, strict=True)
        )

    def _has_adapters(self):
        return any(d.lora_enabled for d in (self.q_dense, self.k_dense, self.v_dense))

    def _in_one_product(self, x):
        """One product with the three kernels side by side: the larger, the faster."""
        parts = self.q_dense, self.k_dense, self.v_dense
        made = ops.matmul(x, ops.concatenate([part.kernel for part in parts], -1))
        if self.use_bias:
            made = made + ops.concatenate([part.bias for part in parts], -1)
        width = self.heads * self.key_size
        return ops.split(made, [width, 2 * width], axis=-1)

    def _by_heads(self, x, size):
        time = ops.shape(x)[1]
        return ops.transpose(ops.reshape(x, (-1, time, self.heads, size)), (0, 2, 1, 3))

    def _scores(self, queries, keys, relative):
        scores = ops.matmul(queries, ops.transpose(keys, (0, 1, 3, 2)))
        if relative is not None:
            scores = scores + ops.einsum("bhjd,jkd->bhjk", queries, relative)
        return in_single_precision(scores) / self.key_size**0.5

    def _probabilities(self, scores, allowed):
        if allowed is not None:
            # As small as minus infinity beside any score, and a row that may see
            # nothing is no NaN.
            scores = ops.where(allowed, scores, -1e30)
        return ops.cast(ops.softmax(scores), self.compute_dtype)

    def _attended(self, probabilities, values, relative):
        attended = ops.transpose(ops.matmul(probabilities, values), (0, 2, 1, 3))
        if relative is not None:
            attended = attended + ops.einsum("bhjk,jkd->bjhd", probabilities, relative)
        time = ops.shape(attended)[1]
        width = self.heads * self.head_size
        return self.o_dense(ops.reshape(attended, (-1, time, width)))

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
            "key_size": self.key_size,
            "use_bias": self.use_bias,
            "attention_dropout": self.attention_dropout,
            "extras": self.extras,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def _allowed(mask, bias):
    """Where a query may see a key, bool ``[batch, 1, queries, keys]``, or None."""
    allowed = None if mask is None else ops.cast(mask, "bool")[:, None, None, :]
    if bias is None:
        return allowed
    bias = ops.cast(bias, "bool")[:, None]
    return bias if allowed is None else ops.logical_and(allowed, bias)
