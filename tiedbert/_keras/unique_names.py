"""Keeps the names in a graph unique when a model from a file is edited.

Keras numbers new layers and operations from the start in each process, and a loaded
model has the names of its file: what an edit adds could get a name that is taken.
"""

from collections.abc import Iterator

from tensorflow import keras

from tiedbert._identity import IdentitySet
from tiedbert._keras.choice import generation
from tiedbert._keras.graphs import ancestors, calls, maker
from tiedbert._keras.tensor_metadata import implicit_mask


def keep_names_unique(model: keras.Model) -> None:
    """Let nothing that joins the graph of a functional model get a name from there."""
    made = calls(model)
    own = IdentitySet(call.layer for call in made)
    own.update(map(maker, model.inputs))
    names = {layer.name for layer in own}
    for name in names:
        generation.reserve_name(name)
    outputs = [tensor for call in made for tensor in call.outputs]
    for operation in _mask_operations([*model.inputs, *outputs], own):
        if operation.name in names:
            generation.rename_operation(operation)


def _mask_operations(tensors: list, own: IdentitySet) -> Iterator:
    """The operations outside of a graph that compute masks of its tensors.

    Keras 3 makes them when it loads a model: those of the file are in the graph.
    """
    masks = [implicit_mask(tensor) for tensor in tensors]
    for operation in ancestors(masks, known=own):
        if not isinstance(operation, keras.layers.Layer):
            yield operation
