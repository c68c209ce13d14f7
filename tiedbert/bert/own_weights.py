"""The weights that a layer has for itself, and the low-rank adapters added to them.

Source: Hu et al., "LoRA: Low-rank adaptation of large language models", 2021;
`enable_lora` of Keras 3.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError
from tiedbert.layers import EmbeddingDense

# A layer with an adapter has one of these, and two factors of names of their own.
_ADAPTED = {
    "_kernel": ("lora_kernel_a", "lora_kernel_b"),
    "_embeddings": ("lora_embeddings_a", "lora_embeddings_b"),
}


def own_weights(layer: keras.layers.Layer) -> list:
    """The weights to store for a layer, without the factors of adapters.

    Of a tied head that is the bias, without the table. A layer with `lends_weights`
    has none: another one counts them as its own.
    """
    if isinstance(layer, EmbeddingDense):
        return [layer.bias] if layer.use_bias else []
    if getattr(layer, "lends_weights", False):
        return []
    factors = {id(factor) for pair in _adapters(layer) for factor in pair}
    return [weight for weight in layer.weights if id(weight) not in factors]


def merged_values(model: keras.Model) -> Callable[[Any], np.ndarray]:
    """A function from a weight of a model to its numbers, an adapter added to them."""
    found = {}
    for layer in _keras.layers_within(model):
        for name, (first, second) in _factors(layer).items():
            scale = layer.lora_alpha / layer.lora_rank
            product = np.asarray(first) @ np.asarray(second)
            found[id(getattr(layer, name))] = scale * product

    def value(weight):
        numbers = weight.numpy()
        return numbers + found[id(weight)] if id(weight) in found else numbers

    return value


def check_no_adapters(model: keras.Model) -> None:
    """InputError if a model has adapters: what is loaded would be added to them."""
    names = [layer.name for layer in model.layers if _adapters(layer)]
    if names:
        raise InputError(
            f"the model has adapters (enable_lora) in {', '.join(names)}, and what is "
            "loaded would be added to them: load the weights first, then enable_lora"
        )


def _adapters(layer) -> list:
    """The two factors of every adapter within a layer."""
    parts = _keras.layers_within(layer)
    return [factors for part in parts for factors in _factors(part).values()]


def _factors(layer) -> dict:
    """Attribute of the base -> the two factors of the adapter of a layer itself."""
    if not getattr(layer, "lora_enabled", False):
        return {}
    found = {
        name: tuple(getattr(layer, factor) for factor in factors)
        for name, factors in _ADAPTED.items()
        if hasattr(layer, name)
    }
    if not found:  # else an adapter would be left out of what is written
        raise InputError(
            f'layer "{layer.name}" has an adapter (enable_lora), and this version of '
            f"Keras, {_keras.VERSION}, has none of {', '.join(_ADAPTED)} in it"
        )
    return found
