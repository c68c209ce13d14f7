"""Operations of graphs: those of Keras 3 that are no layers, those of TensorFlow."""

from typing import Any

import tensorflow as tf

from tiedbert._keras.internals import internal
from tiedbert._keras.layer_state import sublayers
from tiedbert.errors import InputError


def copy_operation(operation: Any) -> Any:
    """A copy of an operation of a Keras 3 graph, as if it had not been called.

    Raises:
        InputError: the operation holds layers.
    """
    operation_class: Any = type(operation)
    copy = operation_class.__new__(operation_class)
    vars(copy).update(vars(operation), _inbound_nodes=[], _outbound_nodes=[])
    if sublayers(copy):
        raise InputError(
            f"the operation {operation.name!r} ({operation_class.__name__}) holds "
            "layers: call a model instead"
        )
    return copy


def rewire(operation: tf.Operation, index: int, tensor: tf.Tensor) -> None:
    """Let an operation of a TensorFlow graph read another tensor as its input."""
    internal(operation, "_update_input")(index, tensor)
