"""A layer exchanged for another, or taken out."""

import inspect
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert._identity import IdentityMap
from tiedbert.errors import InputError
from tiedbert.surgery.calls import Call
from tiedbert.surgery.fitting import (
    check_fits,
    check_layer,
    describe,
    free_to_change,
    only_tensor,
)
from tiedbert.surgery.graph import Graph
from tiedbert.surgery.masks.explicit import CopyMask
from tiedbert.surgery.masks.received import has_masks
from tiedbert.surgery.masks.unaware import (
    passes_mask_on,
    symbolic_argument,
    without_its_mask,
)
from tiedbert.surgery.rebuild import edited
from tiedbert.surgery.replay import Substitution


def replace(
    model: keras.Model, name: str, layer: keras.layers.Layer, keep_mask: bool = True
) -> keras.Model:
    """Put another layer in the place of one.

    Args:
        model: a functional model; left as it is.
        name: the name of a layer: each of its calls; or ``"name:k"``, the k-th call
            alone; or a path into a nested model, as in :func:`split`.
        layer: a Keras layer or model of one output, called with the arguments of the
            old one. Its output must have the same shape and dtype, unless it is an
            output of the model that nothing else uses.
        keep_mask: as in :func:`insert`, where the old layer passed its mask on.

    Returns:
        A new model of the same name that shares the weights of all other layers.

    Raises:
        InputError: as :func:`insert`; or the old or the new layer has several outputs.

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
    whole = Graph(model)
    masked = has_masks(whole) and not _keras.supports_masking(layer)

    def change(graph, point):
        calls = graph.calls_at(point)
        for call in calls:
            output = _only_output(call)
            if not free_to_change(graph, output):
                args, kwargs = _arguments_for(layer, call.args, _given(call))
                args = _keras.map_structure(lambda t: symbolic_argument(layer, t), args)
                check_fits(layer, args, kwargs, output)
        return Substitution(
            layers={call: _Exchanged(call, layer, masked, keep_mask) for call in calls}
        )

    return edited(whole, [_one_name(name)], change)


def remove(model: keras.Model, name: str) -> keras.Model:
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
    points = [_one_name(name)]

    def change(graph, point):
        return Substitution(
            layers={call: _stand_in(call) for call in graph.calls_at(point)}
        )

    return edited(Graph(model), points, change)


def _one_name(name) -> str:
    if not isinstance(name, str):
        raise InputError(
            "expected the name of one layer, as a string, received "
            f"{type(name).__name__}"
        )
    return name


class _Exchanged:
    """A call of `layer` in the place of `call`.

    `masked`: a mask may arrive that `layer` does not know.
    """

    def __init__(self, call, layer, masked, keep_mask):
        self._layer, self._masked = layer, masked
        self._keep_mask = keep_mask and masked and passes_mask_on(call)

    def __call__(self, *args: Any, **kwargs: Any) -> tf.Tensor:
        args, kwargs = _arguments_for(self._layer, args, kwargs)
        first = next(filter(_keras.is_symbolic, _keras.flatten((args, kwargs))))
        if self._masked:
            args, kwargs = _keras.map_structure(
                lambda value: without_its_mask(self._layer, value), (args, kwargs)
            )
        output = only_tensor(self._layer, self._layer(*args, **kwargs))
        return CopyMask()([output, first]) if self._keep_mask else output


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


def _only_output(call) -> tf.Tensor:
    if len(call.outputs) != 1:
        raise InputError(
            f'layer "{call.layer.name}" gives {len(call.outputs)} tensors; only a '
            "layer of one output can be replaced or removed"
        )
    return call.outputs[0]


def _stand_in(call: Call) -> Callable[..., tf.Tensor]:
    """A function of the arguments of `call`: the one that can stand for its output."""
    output = _only_output(call)
    places = _keras.flatten((call.args, _given(call)))
    fitting = IdentityMap(
        (t, i)
        for i, t in reversed(list(enumerate(places)))
        if _keras.is_symbolic(t) and describe(t) == describe(output)
    )
    if len(fitting) != 1:
        shapes = ", ".join(describe(t) for t in places if _keras.is_symbolic(t))
        raise InputError(
            f'layer "{call.layer.name}" gives {describe(output)} from {shapes}: '
            + ("none of them" if not fitting else f"{len(fitting)} of them")
            + " can stand for the output, and one must"
        )
    (index,) = fitting.values()
    return lambda *args, **kwargs: _keras.flatten((args, kwargs))[index]
