"""The option --max_length, checked against the positions of a model."""

from tensorflow import keras

from tiedbert.errors import InputError


def check_max_length(model: keras.Model, max_length: int) -> None:
    """InputError if texts of `max_length` tokens are longer than a BERT can take."""
    positions = model.get_layer("Embedding-Position").input_dim
    if max_length > positions:
        raise InputError(
            f"--max_length {max_length}: the model has {positions} positions; "
            f"choose {positions} or less"
        )
