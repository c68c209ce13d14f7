"""The graphs of models: which model has one, and the calls that it consists of."""

from collections.abc import Container, Iterator, Sequence
from typing import Any, NamedTuple

from tensorflow import keras

from tiedbert._identity import IdentityMap
from tiedbert._keras.choice import generation
from tiedbert._keras.internals import internal
from tiedbert._keras.user_code import class_with_own_call
from tiedbert.errors import InputError


def has_graph(layer: Any) -> bool:
    """Whether calling `layer` runs a graph of calls that can be followed."""
    return generation.graph_of(layer) is not None


def functional(model: Any) -> keras.Model:
    """The functional model inside `model`, mostly `model` itself.

    Raises:
        InputError: `model` has no graph of calls that can be followed.
    """
    graph = generation.graph_of(model)
    if graph is None:
        raise InputError(
            "expected a functional model (or a built Sequential), received "
            f"{_description(model)}: {_why_no_graph(model)}"
        )
    return graph


def _description(model) -> str:
    name = getattr(model, "name", None)
    return type(model).__name__ + (f" {name!r}" if isinstance(name, str) else "")


def _why_no_graph(model) -> str:
    if not isinstance(model, keras.Model):
        return "only a model has a graph to cut"
    definer, sequential = (
        class_with_own_call(model),
        isinstance(model, keras.Sequential),
    )
    if definer is not None and (sequential or getattr(model, "inputs", None)):
        return (
            f"its class {definer.__name__} overrides `call`, so its graph is not what "
            "runs"
        )
    if sequential:
        return "it is not built; call it once, or give it an Input first"
    return (
        "a subclassed or unbuilt model has no graph to cut: build it with inputs = "
        "keras.Input(...), its layers called on them, keras.Model(inputs, outputs)"
    )


def output_names(model: keras.Model) -> list[str]:
    """The names of the outputs of a functional model, as `compile` takes them."""
    return list(internal(functional(model), "output_names"))


def name_outputs(model: keras.Model, names: Sequence[str]) -> None:
    """Let `compile` take these names for the outputs of a functional model."""
    # A plain list: the setter of a model may wrap it in a class of its own.
    object.__setattr__(functional(model), "output_names", list(names))


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


def calls(model: keras.Model) -> list[RawCall]:
    """The model's own calls in topological order, its inputs left out.

    Other models that share a layer add nodes to that layer; `_nodes_by_depth` holds
    only those of this model.
    """
    by_depth = internal(model, "_nodes_by_depth")
    depths = sorted(by_depth, reverse=True)
    nodes = [node for depth in depths for node in by_depth[depth]]
    return [raw_call(node) for node in nodes if not internal(node, "is_input")]


def raw_call(node: Any) -> RawCall:
    """The call that a node of Keras stands for."""
    # Not `_inbound_nodes.index`: the list grows with every model that shares a layer.
    output = generation.flatten(internal(node, "outputs"))[0]
    order = internal(internal(output, "_keras_history"), "node_index")
    layer = internal(node, generation.LAYER)
    return RawCall(layer, order, *generation.arguments_and_outputs(node))


def maker(tensor: Any) -> Any:
    """The layer (or operation) that made a symbolic tensor."""
    return internal(internal(tensor, "_keras_history"), generation.LAYER)


def ancestors(tensors: Any, known: Container = ()) -> Iterator:
    """The layers that a symbolic tensor (or structure of them) comes from.

    Neither those that are `known` nor what is before them.
    """
    pending = [t for t in generation.flatten(tensors) if generation.is_symbolic(t)]
    seen = IdentityMap()  # layer -> the indices of its nodes that were met
    while pending:
        history = internal(pending.pop(), "_keras_history")
        layer, node_index = history[0], history[1]
        if layer is None or layer in known:
            continue
        if node_index in seen.setdefault(layer, set()):
            continue
        seen[layer].add(node_index)
        yield layer
        node = internal(layer, "_inbound_nodes")[node_index]
        pending.extend(raw_call(node).inputs)
