"""A layer put in behind a cut point."""

from typing import Any

from tensorflow import keras

from tiedbert import _keras
from tiedbert.surgery.fitting import (
    check_fits,
    check_layer,
    free_to_change,
    only_tensor,
)
from tiedbert.surgery.graph import Graph, points_of
from tiedbert.surgery.masks.explicit import CopyMask
from tiedbert.surgery.masks.received import has_masks
from tiedbert.surgery.masks.unaware import symbolic_argument, without_its_mask
from tiedbert.surgery.rebuild import edited
from tiedbert.surgery.replay import Substitution


def insert(
    model: keras.Model, at: Any, layer: keras.layers.Layer, keep_mask: bool = True
) -> keras.Model:
    """Put a layer behind a cut point: all that used the tensor uses the layer's output.

    Args:
        model: a functional model; left as it is.
        at: a cut point as in :func:`split`, or a list of them. The bare name of a
            layer that is called several times means each of its calls.
        layer: a Keras layer or model of one input and one output; behind several
            points it is shared. Its output must have the shape and dtype of the
            tensor, unless that is an output of the model that nothing else uses.
        keep_mask: whether the padding mask of the tensor goes on behind a layer that
            does not know masks. What a layer that knows masks makes of it, stays.

    Returns:
        A new model of the same name with the same weights and those of `layer`.

    Raises:
        InputError: as :func:`split`; or the layer gives another shape or dtype (both
            are shown; nothing was built) or several tensors, or its name is taken.

    Example:
        >>> import numpy as np
        >>> from tensorflow import keras
        >>> x = keras.Input((4,))
        >>> h = keras.layers.Dense(3, name="middle")(x)
        >>> model = keras.Model(x, keras.layers.Dense(2)(h))
        >>> dropout = keras.layers.Dropout(0.5, name="dropout")
        >>> dropped = insert(model, "middle", dropout)
        >>> [layer.name for layer in dropped.layers][1:3]
        ['middle', 'dropout']
    """
    check_layer(layer)
    graph = Graph(model)
    masked = has_masks(graph) and not _keras.supports_masking(layer)
    return edited(graph, points_of(at), _Insertion(layer, masked, keep_mask))


class _Insertion:
    """What `insert` changes; `masked`: a mask may arrive that `layer` does not know."""

    def __init__(self, layer, masked, keep_mask):
        self._layer, self._masked, self._keep_mask = layer, masked, keep_mask

    def __call__(self, graph: Graph, point: Any) -> Substitution:
        tensors = graph.tensors_at(point)
        for tensor in tensors:
            if not free_to_change(graph, tensor):
                argument = symbolic_argument(self._layer, tensor)
                check_fits(self._layer, [argument], {}, tensor)
        return Substitution(after=[(tensor, self._applied) for tensor in tensors])

    def _applied(self, tensor):
        """`layer(tensor)`, with the mask of the tensor if the layer would lose it.

        In a nested model it is known only during a run whether there is a mask.
        """
        if not self._masked:
            return only_tensor(self._layer, self._layer(tensor))
        argument = without_its_mask(self._layer, tensor)
        output = only_tensor(self._layer, self._layer(argument))
        return CopyMask()([output, tensor]) if self._keep_mask else output
