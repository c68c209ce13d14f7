"""How an `EmbeddingDense` that Keras makes from a config finds its table again.

Keras makes a model layer by layer from configs, and the config of a head holds only a
description of its embedding layer, not the layer. So a head has two states::

    EmbeddingDense(layer) --------------------------------------------------> tied
    from_config, in a .keras file, the layer is made already ---------------> tied
    from_config, otherwise ----------------------------------> pending
        pending, called on what a layer of that name made ------------------> tied
        pending, called elsewhere, by a user or in a .keras file -----------> tied (1)
        pending, built in a .keras file before it is called ----------------> tied (1)
        pending, built outside of a file before it is called -> pending (2)
        pending, called elsewhere in a graph -----------------> InputError (3)

1. The head stands alone, like that of the rest of a cut: it owns the layer made from
   its config.
2. A layer around it builds it. The bias is made; the table is found at the first call.
3. The table may lie elsewhere in a model that Keras copies: the tie would be lost.
"""

from typing import Any

from tensorflow import keras

from tiedbert import _keras
from tiedbert._identity import IdentitySet
from tiedbert.errors import InputError


class PendingTable:
    """The table of a head in the state "pending".

    Args:
        layer: the embedding layer made from the head's config.
    """

    def __init__(self, layer: keras.layers.Layer) -> None:
        self.layer = layer

    def upstream(self, inputs: Any) -> keras.layers.Layer | None:
        """The layer of the same name from which `inputs` come, or None."""
        found = _alike(self.layer, _keras.ancestors(inputs))
        return _only(found, self.layer.name, "its input comes from")

    def own(self, head: str, by_user: bool = False) -> keras.layers.Layer:
        """The layer made from the config; InputError where this may lose a tie.

        Args:
            head: the name of the head.
            by_user: whether a user calls the head on numbers.
        """
        if not (by_user or _keras.in_keras_file()):
            raise InputError(
                f"EmbeddingDense {head!r} was tied to {self.layer.name!r}, which "
                "nothing before it in its model looks up: a copy by Keras would have a "
                "table of its own; use tiedbert.surgery.clone, or save and load a "
                ".keras file"
            )
        return self.layer


def table_from_config(config: dict) -> keras.layers.Layer | PendingTable:
    """The embedding layer of a head's config, if it is made already.

    A ``.keras`` file says which objects are one, by number, but Keras does not find
    those in nested models or in layers that it has written before. The number in the
    config of the head tells that there is such a layer among those made so far.
    """
    layer = _keras.deserialize_layer(config)
    if not (_keras.in_keras_file() and "shared_object_id" in config):
        return PendingTable(layer)
    made = _keras.layers_being_loaded()
    # Another head with the same config may be pending too: then they share its layer.
    pending = _only(_alike(layer, _pending_layers(made)), layer.name, "its file has")
    if pending is not None:
        return PendingTable(pending)
    found = _alike(layer, made)
    if layer in found:
        return layer
    return _only(found, layer.name, "its file has") or PendingTable(layer)


def _pending_layers(made) -> list:
    """The layers of all pending heads within some layers."""
    parts = IdentitySet(p for layer in made for p in _keras.layers_within(layer))
    pending = [getattr(part, "pending_table", None) for part in parts]
    return [table.layer for table in pending if table is not None]


def _alike(layer, others) -> IdentitySet:
    """The layers within `others` of the name and the class of `layer`."""
    return IdentitySet(
        part
        for other in others
        for part in _keras.layers_within(other)
        if part.name == layer.name and type(part) is type(layer)
    )


def _only(found, name, place) -> keras.layers.Layer | None:
    if len(found) > 1:
        raise InputError(
            f"EmbeddingDense was tied to a layer named {name!r}, and {place} "
            f"{len(found)} of that name: give each table its own name"
        )
    return next(iter(found), None)
