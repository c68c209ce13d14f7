"""The option --max_length, checked against the positions of a model."""

from tensorflow import keras

from tiedbert.errors import InputError


def check_max_length(model: keras.Model, max_length: int) -> None:
    """InputError if texts of `max_length` tokens are longer than a BERT can take."""
    positions = _positions({layer.name: layer for layer in model.layers})
    if positions is not None and max_length > positions:
        raise InputError(
            f"--max_length {max_length}: the model has {positions} positions; "
            f"choose {positions} or less"
        )


def _positions(layers):
    """The number of positions for tokens; None where it has no limit (RoFormer)."""
    if "Embedding-Counted-Position" in layers:
        return layers["Embedding-Counted-Position"].room
    table = layers.get("Embedding-Position")
    return None if table is None else table.input_dim
