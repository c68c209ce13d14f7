"""Sinusoidal positions, and queries and keys turned by them (RoFormer)."""

from typing import Any

from tensorflow import keras

from tiedbert.bert._keras3.normalization import in_single_precision

ops = keras.ops


def sinusoidal(positions: Any, width: int, base: float = 10000.0) -> Any:
    """Sines and cosines of positions, alternating: float32 ``[..., width]``.

    Args:
        positions: ``[...]``, any numeric dtype.
        width: an even number.
        base: the ratio of the longest wave length to the shortest.

    Source: Vaswani et al., "Attention is all you need", 2017, section 3.5.
    """
    waves = ops.power(base, -2.0 * ops.arange(width // 2, dtype="float32") / width)
    angles = ops.cast(positions, "float32")[..., None] * waves
    pairs = ops.stack([ops.sin(angles), ops.cos(angles)], axis=-1)
    return ops.reshape(pairs, (*ops.shape(angles)[:-1], width))


def rotated(x: Any, positions: Any) -> Any:
    """Turn each pair of numbers by the angle of its position.

    Args:
        x: float ``[batch, heads, time, size]``.
        positions: of :func:`sinusoidal`, float ``[batch, time, size]``.

    Source: Su et al., "RoFormer: Enhanced Transformer with rotary position embedding",
    2021.
    """
    positions = ops.cast(positions, x.dtype)[:, None]
    cosines = ops.repeat(positions[..., 1::2], 2, axis=-1)
    sines = ops.repeat(positions[..., ::2], 2, axis=-1)
    turned = ops.stack([-x[..., 1::2], x[..., ::2]], axis=-1)
    return x * cosines + ops.reshape(turned, ops.shape(x)) * sines


def rotated_halves(x: Any, positions: Any) -> Any:
    """As :func:`rotated`, with the pairs in another place: number i and i + size / 2.

    Half precision is computed in float32.

    Args:
        x: float ``[batch, heads, time, size]``.
        positions: of :func:`sinusoidal`, float ``[batch, time, size]``.

    Source: GPT-NeoX; ModernBERT, whose weights are for these pairs.
    """
    first, second = ops.split(in_single_precision(x), 2, axis=-1)
    positions = ops.cast(positions, first.dtype)[:, None]
    sines, cosines = positions[..., ::2], positions[..., 1::2]
    turned = [first * cosines - second * sines, second * cosines + first * sines]
    return ops.cast(ops.concatenate(turned, axis=-1), x.dtype)
