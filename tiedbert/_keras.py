"""The only module that knows that two generations of Keras exist.

TensorFlow decides which one a program gets: ``tf.keras`` is Keras 3, or Keras 2
(``tf_keras``) when ``TF_USE_LEGACY_KERAS=1``. What is below answers in the same words
for both. Much of it reads what Keras calls private; every such read passes through
:func:`_internal`, which turns a moved attribute into one clear line.
"""

import sys
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow import keras

from tiedbert.errors import InputError

LEGACY = keras.Model.__module__.startswith("tf_keras")
VERSION = sys.modules["tf_keras" if LEGACY else "keras"].__version__

if not LEGACY and keras.config.backend() != "tensorflow":
    raise ImportError(
        f"tiedbert runs on TensorFlow, but Keras {VERSION} was set to the "
        f"{keras.config.backend()!r} backend: set KERAS_BACKEND=tensorflow"
    )


class RawCall(NamedTuple):
    """One use of a layer (Keras: a node): what it was called on and what it gave.

    `order` grows with each use of the layer, those in other models included.
    """

    layer: Any
    order: int
    args: tuple
    kwargs: dict
    inputs: list
    outputs: list


def _internal(owner, name):
    try:
        return getattr(owner, name)
    except AttributeError:
        raise RuntimeError(
            f"Keras {VERSION} has no {type(owner).__name__}.{name}, which "
            "tiedbert reads to follow a model's graph; use a Keras that tiedbert's "
            "README lists, or report it"
        ) from None


def is_symbolic(value) -> bool:
    """Whether `value` is a tensor of a functional graph."""
    if LEGACY:
        return hasattr(value, "_keras_history")
    return isinstance(value, keras.KerasTensor)


def map_structure(function, structure):
    """Apply `function` to every leaf of nested lists, tuples and dicts."""
    if LEGACY:
        return tf.nest.map_structure(function, structure)
    return keras.tree.map_structure(function, structure)


def flatten(structure) -> list:
    """The leaves of nested lists, tuples and dicts, in Keras' own order."""
    if LEGACY:
        return tf.nest.flatten(structure)
    return keras.tree.flatten(structure)


def functional(model):
    """The functional graph inside `model`; InputError when there is none."""
    if isinstance(model, keras.Sequential) and not LEGACY:
        model = _internal(model, "_functional") if model.built else None
    if not hasattr(model, "_nodes_by_depth") or not getattr(model, "inputs", None):
        raise InputError(
            "expected a functional model (or a built Sequential), received "
            f"{type(model).__name__}: a subclassed or unbuilt model has no graph to cut"
        )
    return model


def structures(model) -> tuple:
    """The nested inputs and outputs of a functional model, as its user gave them."""
    if LEGACY:
        return _internal(model, "_nested_inputs"), _internal(model, "_nested_outputs")
    return _internal(model, "_inputs_struct"), _internal(model, "_outputs_struct")


def calls(model) -> list:
    """The model's own calls in topological order, its inputs left out.

    Other models that share a layer add nodes to that layer; `_nodes_by_depth` holds
    only those of this model.
    """
    by_depth = _internal(model, "_nodes_by_depth")
    depths = sorted(by_depth, reverse=True)
    nodes = [node for depth in depths for node in by_depth[depth]]
    return [_raw_call(node) for node in nodes if not _internal(node, "is_input")]


def _raw_call(node) -> RawCall:
    layer = _internal(node, "layer" if LEGACY else "operation")
    order = _internal(layer, "_inbound_nodes").index(node)
    if LEGACY:
        return RawCall(
            layer,
            order,
            tuple(_internal(node, "call_args")),
            dict(_internal(node, "call_kwargs")),
            list(_internal(node, "keras_inputs")),
            flatten(_internal(node, "outputs")),
        )
    arguments = _internal(node, "arguments")
    return RawCall(
        layer,
        order,
        arguments.args,
        arguments.kwargs,
        list(_internal(node, "input_tensors")),
        list(_internal(node, "output_tensors")),
    )


def maker(tensor):
    """The layer (or operation) that made a symbolic tensor."""
    history = _internal(tensor, "_keras_history")
    return _internal(history, "layer" if LEGACY else "operation")


def symbolic_mask(tensor):
    """What Keras keeps as the implicit mask of a symbolic tensor, or None.

    Keras 3 keeps a tensor of the graph; Keras 2 keeps a bare placeholder that says
    only that there is a mask.
    """
    return getattr(tensor, "_keras_mask", None)


def input_like(tensor, name):
    """A new Input with the shape, batch size and dtype of a symbolic tensor."""
    shape = tuple(tensor.shape)
    kind = {} if LEGACY else {"sparse": tensor.sparse}
    return keras.Input(
        shape=shape[1:], batch_size=shape[0], dtype=tensor.dtype, name=name, **kind
    )


def ancestors(tensors):
    """The layers that a symbolic tensor (or structure of them) comes from."""
    pending = [t for t in flatten(tensors) if is_symbolic(t)]
    seen = set()
    while pending:
        history = _internal(pending.pop(), "_keras_history")
        layer, node_index = history[0], history[1]
        if layer is None or (id(layer), node_index) in seen:
            continue
        seen.add((id(layer), node_index))
        yield layer
        node = _internal(layer, "_inbound_nodes")[node_index]
        pending.extend(_raw_call(node).inputs)


def layers_within(layer) -> list:
    """`layer` itself and every layer nested in it, at any depth."""
    if not isinstance(layer, keras.layers.Layer):
        return [layer]  # an operation of Keras 3
    return list(_internal(layer, "_flatten_layers")())


def is_compiled(model) -> bool:
    """Whether `model.compile` was called."""
    return _internal(model, "_is_compiled") if LEGACY else model.compiled


def scale_loss(optimizer, loss):
    """`loss` as `optimizer` wants it differentiated: scaled in half precision."""
    if LEGACY:
        scale = getattr(optimizer, "get_scaled_loss", lambda loss: loss)
        return scale(loss)
    return optimizer.scale_loss(loss)


def apply_gradients(optimizer, gradients, variables):
    """Apply the gradients of a loss that :func:`scale_loss` gave."""
    if LEGACY and hasattr(optimizer, "get_unscaled_gradients"):
        gradients = optimizer.get_unscaled_gradients(gradients)
    optimizer.apply_gradients(zip(gradients, variables, strict=True))
