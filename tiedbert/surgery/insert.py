"""A layer put in, exchanged or taken out."""

import inspect

from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError
from tiedbert.surgery.edit import (
    Changes,
    check_fits,
    check_layer,
    describe,
    edited,
    free_to_change,
)
from tiedbert.surgery.graph import Graph, points_of
from tiedbert.surgery.masks.explicit import CopyMask, DropMask, without_mask
from tiedbert.surgery.masks.received import has_masks


def insert(model, at, layer, keep_mask=True):
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
            are shown; nothing was built), or its name is taken.

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
    masked = has_masks(Graph(model)) and not _keras.supports_masking(layer)
    return edited(model, points_of(at), _Insertion(layer, masked, keep_mask))


def replace(model, name, layer, keep_mask=True):
    """Put another layer in the place of one.

    Args:
        model: a functional model; left as it is.
        name: the name of a layer: each of its calls; or ``"name:k"``, the k-th call
            alone; or a path into a nested model, as in :func:`split`.
        layer: a Keras layer or model, called with the arguments of the old one. Its
            output must have the same shape and dtype, unless it is an output of the
            model that nothing else uses.
        keep_mask: as in :func:`insert`, where the old layer passed its mask on.

    Returns:
        A new model of the same name that shares the weights of all other layers.

    Raises:
        InputError: as :func:`insert`; or the old layer has several outputs.

    Example:
        >>> from tensorflow import keras
        >>> x = keras.Input((4,))
        >>> h = keras.layers.Dense(3, activation="relu", name="middle")(x)
        >>> model = keras.Model(x, keras.layers.Dense(2)(h))
        >>> smooth = keras.layers.Dense(3, activation="gelu", name="middle")
        >>> replaced = replace(model, "middle", smooth)
        >>> replaced.get_layer("middle") is smooth
        True
    """
    check_layer(layer)
    masked = has_masks(Graph(model)) and not _keras.supports_masking(layer)

    def change(graph, point):
        calls = graph.calls_at(point)
        for call in calls:
            output = _only_output(call)
            if not free_to_change(graph, output):
                args, kwargs = _arguments_for(layer, call.args, _given(call))
                args = _keras.map_structure(lambda t: _as_known(layer, t), args)
                check_fits(layer, args, kwargs, output)
        return Changes(
            instead={
                id(call): _Exchanged(call, layer, masked, keep_mask) for call in calls
            }
        )

    return edited(model, [_one_name(name)], change)


def remove(model, name):
    """Take out a layer whose input can stand for its output.

    Args:
        model: a functional model; left as it is.
        name: as in :func:`replace`. Among the tensors that the layer is called with,
            exactly one must have the shape and dtype of its output: that one takes
            its place (the query of an attention, the input of a normalization).

    Returns:
        A new model of the same name without the layer.

    Raises:
        InputError: as :func:`split`; or no tensor, or more than one, can stand for the
            output (shapes are shown).

    Example:
        >>> from tensorflow import keras
        >>> x = keras.Input((4,))
        >>> h = keras.layers.Dropout(0.5, name="dropout")(x)
        >>> model = keras.Model(x, keras.layers.Dense(2, name="last")(h))
        >>> [layer.name for layer in remove(model, "dropout").layers][1:]
        ['last']
    """

    def change(graph, point):
        return Changes(
            instead={id(call): _stand_in(call) for call in graph.calls_at(point)}
        )

    return edited(model, [_one_name(name)], change)


def _one_name(name) -> str:
    if not isinstance(name, str):
        raise InputError(
            "expected the name of one layer, as a string, received "
            f"{type(name).__name__}"
        )
    return name


class _Insertion:
    """What `insert` changes; `masked`: a mask may arrive that `layer` does not know."""

    def __init__(self, layer, masked, keep_mask):
        self._layer, self._masked, self._keep_mask = layer, masked, keep_mask

    def __call__(self, graph, point):
        tensors = graph.tensors_at(point)
        for tensor in tensors:
            if not free_to_change(graph, tensor):
                check_fits(self._layer, [_as_known(self._layer, tensor)], {}, tensor)
        return Changes(after={id(tensor): self._applied for tensor in tensors})

    def _applied(self, tensor):
        """`layer(tensor)`, with the mask of the tensor if the layer would lose it.

        In a nested model only the run can tell whether there is a mask.
        """
        if not self._masked:
            return self._layer(tensor)
        output = self._layer(_as_taken(self._layer, tensor))
        return CopyMask()([output, tensor]) if self._keep_mask else output


class _Exchanged:
    """A call of `layer` in the place of `call`; `masked` as in :class:`_Insertion`."""

    def __init__(self, call, layer, masked, keep_mask):
        self._layer, self._masked = layer, masked
        self._keep_mask = keep_mask and masked and _passes_mask_on(call)

    def __call__(self, *args, **kwargs):
        args, kwargs = _arguments_for(self._layer, args, kwargs)
        first = next(filter(_keras.is_symbolic, _keras.flatten((args, kwargs))))
        if self._masked:
            args, kwargs = _keras.map_structure(
                lambda value: _as_taken(self._layer, value), (args, kwargs)
            )
        output = self._layer(*args, **kwargs)
        return CopyMask()([output, first]) if self._keep_mask else output


def _as_taken(layer, value):
    """`value` for a layer that does not know masks; the tensor itself keeps its mask.

    A model that Keras 3 says does not know them passes them on to its layers.
    """
    if not _keras.is_symbolic(value):
        return value
    return CopyMask()([value, value]) if _keras.has_graph(layer) else DropMask()(value)


def _passes_mask_on(call):
    """Whether the layer of `call` gives its output the mask of its first input.

    The output itself may not tell: a mask may come from outside of a nested model.
    """
    if _keras.implicit_mask(call.outputs[0]) is not None:
        return True
    first = call.args[0] if call.args else next(iter(call.kwargs.values()))
    tensors = [t for t in _keras.flatten(first) if _keras.is_symbolic(t)]
    # A mask is [batch, time]: what has no time has none.
    if not _keras.supports_masking(call.layer) or any(
        len(t.shape) < 3 for t in tensors
    ):
        return False
    masks = _keras.map_structure(
        lambda t: keras.Input(t.shape[1:2], dtype="bool"), first
    )
    return call.layer.compute_mask(first, masks) is not None


def _as_known(layer, value):
    """`value` as a layer takes it: without a mask if it does not know masks."""
    if not _keras.is_symbolic(value) or _keras.supports_masking(layer):
        return value
    return without_mask(value)


def _given(call) -> dict:
    """The keyword arguments that the user gave."""
    implicit = _keras.masks_filled_in(call)
    return {name: value for name, value in call.kwargs.items() if name not in implicit}


def _arguments_for(layer, args, kwargs):
    """The arguments of another layer's call; InputError if `layer` lacks one of them.

    What only steers the old layer (``training``, a mask) is left out where `layer` has
    no use for it.
    """
    parameters = inspect.signature(layer.call).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    lacking = [name for name in kwargs if name not in parameters and not takes_all]
    refused = [n for n in lacking if n != "training" and not n.endswith("mask")]
    if refused:
        raise InputError(
            f'the call is made with {", ".join(refused)}, which layer "{layer.name}" '
            f"({type(layer).__name__}) does not take"
        )
    return args, {name: kwargs[name] for name in kwargs if name not in lacking}


def _only_output(call):
    if len(call.outputs) != 1:
        raise InputError(
            f'layer "{call.layer.name}" gives {len(call.outputs)} tensors; only a '
            "layer of one output can be replaced or removed"
        )
    return call.outputs[0]


def _stand_in(call):
    """A function of the arguments of `call`: the one that can stand for its output."""
    output = _only_output(call)
    places = _keras.flatten((call.args, _given(call)))
    fitting = {
        id(t): i
        for i, t in reversed(list(enumerate(places)))
        if _keras.is_symbolic(t) and describe(t) == describe(output)
    }
    if len(fitting) != 1:
        shapes = ", ".join(describe(t) for t in places if _keras.is_symbolic(t))
        raise InputError(
            f'layer "{call.layer.name}" gives {describe(output)} from {shapes}: '
            + ("none of them" if not fitting else f"{len(fitting)} of them")
            + " can stand for the output, and one must"
        )
    (index,) = fitting.values()
    return lambda *args, **kwargs: _keras.flatten((args, kwargs))[index]
