"""Which keys each query of a self-attention looks at, for Keras 3."""

from collections.abc import Sequence
from typing import Any

from tensorflow import keras

from tiedbert.bert._keras3.normalization import in_single_precision
from tiedbert.bert._keras3.rotary import rotated, rotated_halves

ops = keras.ops

# What the layer may be given beside queries and keys, in this order.
_EXTRAS = "bias", "relative", "rotary", "rotary_halves"
_TURNS = {"rotary": rotated, "rotary_halves": rotated_halves}


@keras.utils.register_keras_serializable("tiedbert")
class AttentionProbabilities(keras.layers.Layer):
    """The first half of an attention: the softmax of the scores of queries and keys.

    Its inputs are a list: queries and keys, float ``[batch, time, width]``, and what
    `extras` says. The softmax is computed in float32 where the policy is of half
    precision. Keys that their mask calls padding get the probability 0. Dropout comes
    after it, in the second half.

    Args:
        heads: number of heads.
        key_size: width of the queries and keys of a head.
        use_bias: whether the two projections have biases.
        extras: names of the further inputs, in this order: ``"bias"``, bool
            ``[batch, time, time]``, False where a query must not see a key;
            ``"relative"``, float ``[time, time, key_size]``, vectors added to keys
            (NEZHA); ``"rotary"``, float ``[batch, time, key_size]``, sines and cosines
            that turn queries and keys (RoFormer); ``"rotary_halves"``, the same for
            pairs of numbers half a head apart (ModernBERT).
        kernel_initializer: of the two kernels.
        **kwargs: of `keras.layers.Layer`.

    Source: Vaswani et al., "Attention is all you need", 2017; bert4keras 0.11.5.
    """

    lends_weights = True  # to the second half, which has bert4keras' name

    def __init__(
        self,
        heads: int,
        key_size: int,
        use_bias: bool = True,
        extras: Sequence[str] = (),
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.heads, self.key_size = heads, key_size
        self.use_bias = use_bias
        self.extras = [name for name in _EXTRAS if name in extras]
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True
        self.q_dense, self.k_dense = (
            keras.layers.Dense(
                heads * key_size,
                use_bias=use_bias,
                kernel_initializer=self.kernel_initializer,
                dtype=self.dtype_policy,
                name=name,
            )
            for name in ("query", "key")
        )

    def build(self, input_shape: Sequence[tuple]) -> None:
        """Make the two projections."""
        queries, keys = input_shape[:2]
        self.q_dense.build(queries)
        self.k_dense.build(keys)

    def call(self, inputs: Sequence[Any], mask: Any = None) -> Any:
        """float ``[batch, heads, queries, keys]``; a row sums up to 1."""
        extras = dict(zip(self.extras, inputs[2:], strict=True))
        queries, keys = self._projected(*inputs[:2])
        for name in _TURNS.keys() & extras.keys():
            turn, positions = _TURNS[name], extras[name]
            queries, keys = turn(queries, positions), turn(keys, positions)
        scores = ops.matmul(queries, ops.transpose(keys, (0, 1, 3, 2)))
        if "relative" in extras:
            pairs = ops.einsum("bhjd,jkd->bhjk", queries, extras["relative"])
            scores = scores + pairs
        scores = in_single_precision(scores) / self.key_size**0.5
        allowed = _allowed(None if mask is None else mask[1], extras.get("bias"))
        if allowed is not None:
            # As small as minus infinity beside any score, and a row that may see
            # nothing is no NaN.
            scores = ops.where(allowed, scores, -1e30)
        return ops.cast(ops.softmax(scores), self.compute_dtype)

    def _projected(self, queries, keys):
        """Queries and keys by heads, ``[batch, heads, time, key_size]``."""
        if queries is keys and not any(map(_has_own_product, self._parts())):
            made = self._in_one_product(queries)
        else:
            made = self.q_dense(queries), self.k_dense(keys)
        return [by_heads(x, self.heads) for x in made]

    def _parts(self):
        return self.q_dense, self.k_dense

    def _in_one_product(self, x):
        """One product with the kernels side by side: the larger, the faster."""
        parts = self._parts()
        made = ops.matmul(x, ops.concatenate([part.kernel for part in parts], -1))
        if self.use_bias:
            made = made + ops.concatenate([part.bias for part in parts], -1)
        return ops.split(made, 2, axis=-1)

    def compute_output_shape(self, input_shape: Sequence[tuple]) -> tuple:
        """``[batch, heads, queries, keys]``."""
        queries, keys = input_shape[:2]
        return (queries[0], self.heads, queries[1], keys[1])

    def compute_mask(self, inputs: Sequence[Any], mask: Any = None) -> None:
        """Pairs of positions have no padding mask."""

    def get_config(self) -> dict[str, Any]:
        """All arguments."""
        return {
            **super().get_config(),
            "heads": self.heads,
            "key_size": self.key_size,
            "use_bias": self.use_bias,
            "extras": self.extras,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def by_heads(x: Any, heads: int) -> Any:
    """``[batch, time, heads * size]`` -> ``[batch, heads, time, size]``."""
    shape = (-1, ops.shape(x)[1], heads, x.shape[-1] // heads)
    return ops.transpose(ops.reshape(x, shape), (0, 2, 1, 3))


def _has_own_product(dense) -> bool:
    """Whether a layer does more than to multiply: with an adapter, or quantized."""
    return dense.lora_enabled or dense.quantization_mode is not None


def _allowed(mask, bias):
    """Where a query may see a key, bool ``[batch, 1, queries, keys]``, or None."""
    allowed = None if mask is None else ops.cast(mask, "bool")[:, None, None, :]
    if bias is None:
        return allowed
    bias = ops.cast(bias, "bool")[:, None]
    return bias if allowed is None else ops.logical_and(allowed, bias)
