"""The weights that a layer has for itself."""

from tiedbert.layers import EmbeddingDense


def own_weights(layer) -> list:
    """The weights to store for a layer: of a tied head the bias, without the table."""
    if isinstance(layer, EmbeddingDense):
        return [layer.bias] if layer.use_bias else []
    return layer.weights
