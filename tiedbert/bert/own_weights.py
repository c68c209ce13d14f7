"""The weights that a layer has for itself."""

from tiedbert.layers import EmbeddingDense


def own_weights(layer) -> list:
    """The weights to store for a layer.

    Of a tied head that is the bias, without the table. A layer with `lends_weights`
    has none: another one counts them as its own.
    """
    if isinstance(layer, EmbeddingDense):
        return [layer.bias] if layer.use_bias else []
    return [] if getattr(layer, "lends_weights", False) else layer.weights
