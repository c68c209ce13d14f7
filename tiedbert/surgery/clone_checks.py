"""What a clone must keep: an InputError for each tie or state that it would lose."""

from collections.abc import Iterable

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert._identity import IdentityMap, IdentitySet
from tiedbert.errors import InputError, reason
from tiedbert.surgery.calls import Call
from tiedbert.surgery.graph import Graph
from tiedbert.surgery.masks.run import SIZES, filled


def paired_variables(pairs: Iterable) -> IdentityMap:
    """Variable -> its one copy, for the variables of all (layer, copy) in `pairs`."""
    copies, owners = IdentityMap(), IdentityMap()
    for source, copy in pairs:
        old, new = _keras.own_variables(source), _keras.own_variables(copy)
        if [v.shape for v in old] != [v.shape for v in new]:
            raise InputError(
                f"clone expected the copy of layer {source.name!r} "
                f"({type(source).__name__}) to have variables of the shapes "
                f"{_shapes(old)}, received {_shapes(new)}: {_how_to_make(source)}"
            )
        for variable, twin in zip(old, new, strict=True):
            owner = owners.setdefault(variable, source)
            if copies.setdefault(variable, twin) is not twin:
                raise tie_error([owner.name, source.name], "variable")
    sources = IdentityMap()  # copy -> variable
    for variable, twin in copies.items():
        other = sources.setdefault(twin, variable)
        if other is not variable or twin in copies:
            names = {owners[v].name for v in (variable, other)}
            raise tie_error(sorted(names), "its copy is not one of its own")
    return copies


def _how_to_make(source) -> str:
    mode = _keras.quantization_mode(source)
    if mode is None:
        return "its config does not describe its variables"
    return (
        f"it is quantized ({mode}), and no config tells how its variables are made; "
        "clone the model first, then quantize the copy"
    )


def _shapes(variables) -> str:
    return " ".join(str(tuple(v.shape)) for v in variables) or "(none)"


def tie_error(names: list, what: str) -> InputError:
    """The error for a tie that a copy of the layers of these names would lose."""
    listed = " and ".join(repr(name) for name in names)
    return InputError(
        f"clone cannot keep a tie of layer(s) {listed} ({what}): their configs build "
        "two layers where the model has one; let one layer hold the other as an "
        "attribute"
    )


def check_complete(model: keras.Model, copies: IdentityMap) -> None:
    """Every variable of `model` must have a copy."""
    for layer in _keras.layers_within(model):
        if any(variable not in copies for variable in _keras.own_variables(layer)):
            raise InputError(
                f"clone does not reach layer {layer.name!r} "
                f"({type(layer).__name__}) of model {model.name!r}: no call of the "
                "graph uses it, or the layer that holds it does not make it again; "
                "hold it as an attribute that get_config tells of"
            )


def check_arguments(calls: list) -> None:
    """No call may be given a variable: that of the original would stay."""
    for call in calls:
        for leaf in _keras.leaves([call.args, call.kwargs]):
            if _keras.is_variable(leaf):
                raise InputError(
                    f"clone cannot keep the tie of {call.layer.name!r}, which is "
                    f"called on the variable {leaf.name!r} itself: write a layer that "
                    "holds its owner as an attribute, like EmbeddingDense"
                )


def check_functions(model: keras.Model, copy: keras.Model) -> None:
    """No function of a Lambda layer may read weights that the layer does not hold.

    Each call of such a layer in `copy` is traced, to see which variables it reads,
    wherever its function has them from: those would be the variables of `model`.
    """
    owners = IdentityMap(
        (_keras.tf_variable(variable), layer.name)
        for layer in _keras.layers_within(model)
        for variable in _keras.own_variables(layer)
    )
    for graph in filter(_keras.has_graph, _keras.layers_within(copy)):
        for call in Graph(graph).calls:
            if not _keras.has_graph(call.layer) and _holds_function(call.layer):
                _check_call(call, owners)


def _holds_function(layer) -> bool:
    parts = _keras.layers_within(layer)
    return any(isinstance(part, keras.layers.Lambda) for part in parts)


def _check_call(call, owners):
    own = IdentitySet(
        _keras.tf_variable(variable)
        for layer in _keras.layers_within(call.layer)
        for variable in _keras.own_variables(layer)
    )
    # All layers may share the random state of Keras itself, which holds integers.
    outside = [
        variable
        for variable in _variables_read(call)
        if variable not in own and (variable in owners or variable.dtype.is_floating)
    ]
    if outside:
        names = sorted({owners.get(variable, variable.name) for variable in outside})
        raise InputError(
            f"clone cannot keep what the function of Lambda layer {call.layer.name!r} "
            f"uses from outside: {', '.join(names)}; write a layer that holds it as an "
            "attribute (EmbeddingDense holds the table of an Embedding)"
        )


def _variables_read(call: Call) -> list:
    """The variables that a call reads when it runs, in inference and in training."""

    def run(values, training):
        new = IdentityMap(zip(call.inputs, values, strict=True))
        given = tuple(call.args), dict(call.kwargs)
        args, kwargs = _keras.map_structure(lambda leaf: new.get(leaf, leaf), given)
        if isinstance(call.layer, keras.layers.Lambda):
            kwargs["training"] = training
        return call.layer(*args, **kwargs)

    def both_modes(*values):
        for training in (False, True):
            _keras.call(run, values, training)

    why = ""
    for batch, size in SIZES:
        shapes = [filled(tensor.shape, batch, size) for tensor in call.inputs]
        specs = map(_keras.type_spec, call.inputs, shapes)
        traced = tf.function(both_modes, autograph=False)
        try:
            return list(traced.get_concrete_function(*specs).graph.variables)
        except Exception as error:  # whatever a user's function raises
            why = why or reason(error)
    raise InputError(
        f"clone cannot tell whether the function of Lambda layer {call.layer.name!r} "
        f"uses weights from outside: it fails on placeholders ({why}); write a layer "
        "class with a get_config instead"
    )


def check_state(source: keras.layers.Layer, copy: keras.layers.Layer) -> None:
    """What layers keep beside their variables must have come through the config."""
    if _keras.count_added_losses(source) != _keras.count_added_losses(copy):
        raise InputError(
            f"clone cannot keep a loss that was added to {source.name!r} from outside, "
            "as a function of the original's variables: use a regularizer"
        )
    words = getattr(source, "get_vocabulary", list)()
    if words != getattr(copy, "get_vocabulary", list)():
        raise InputError(
            f"clone cannot keep the vocabulary that {source.name!r} has learned: "
            "give it to its constructor"
        )
