"""Activations that Keras 3 has under no name of their own."""

from typing import Any

from tensorflow import keras


@keras.utils.register_keras_serializable("tiedbert")
def gelu_tanh(x: Any) -> Any:
    """Gelu by its approximation with tanh, as in Google's ALBERT (``gelu_new``)."""
    return keras.activations.gelu(x, approximate=True)


ACTIVATIONS = {"gelu_tanh": gelu_tanh, "gelu_erf": keras.activations.gelu}
