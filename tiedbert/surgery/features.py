"""A model that gives the tensors in the middle of another."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert._identity import IdentitySet
from tiedbert.surgery.calls import Call
from tiedbert.surgery.graph import Graph, points_of
from tiedbert.surgery.masks.explicit import CopyMask
from tiedbert.surgery.masks.order import settled, settled_inside
from tiedbert.surgery.masks.received import Masks
from tiedbert.surgery.names import unique
from tiedbert.surgery.replay import Extended, Substitution, replay


def features(model: keras.Model, at: Any) -> keras.Model:
    """A model from the inputs of `model` to the tensors at some of its points.

    Args:
        model: a functional model; left as it is.
        at: cut points as in :func:`split`, in nested models too; here they may depend
            on each other.

    Returns:
        A model with the inputs of `model`. It gives the tensors with their implicit
        masks: a list in the order of `at`; for one point the tensor itself, even if
        `at` is a list. (The `front` of :func:`split` always gives a list.) Only the
        layers that they need run, each once.

    Raises:
        InputError: as :func:`split`.

    Example:
        >>> import tensorflow as tf
        >>> from tensorflow import keras
        >>> x = keras.Input((4,))
        >>> h = keras.layers.Dense(3, name="first")(x)
        >>> model = keras.Model(x, keras.layers.Dense(2, name="last")(h))
        >>> first, last = features(model, ["first", "last"])(tf.ones([5, 4]))
        >>> first.shape.as_list(), last.shape.as_list()
        ([5, 3], [5, 2])
    """
    points = points_of(at)
    masks = settled(Masks(Graph(model)), points)
    tensors = _tensors(masks, points)
    tensors = tensors[0] if len(tensors) == 1 else tensors
    graph = masks.graph
    return keras.Model(graph.inputs, tensors, name=f"{graph.name}_features")


def _tensors(masks: Masks, points: Sequence, more: Sequence = ()) -> list[tf.Tensor]:
    """The tensors at some points, then those that `more` of this graph became."""
    graph = masks.graph
    here, inside = graph.placed(points)
    read = [tensor for call, _ in inside for tensor in call.inputs]
    needed = graph.needed_for([*here.values(), *more, *read])
    names = set(graph.names)
    substitution = Substitution(
        layers={
            call: _exposed(masks, call, inner_points, call in needed, names)
            for call, inner_points in inside
        }
    )
    exposed = replay(graph.calls, substitution)
    found = {i: substitution.tensor(None, tensor) for i, tensor in here.items()}
    for call, inner_points in inside:
        found.update(zip(inner_points, exposed[call], strict=True))
    return [
        *(found[i] for i in range(len(points))),
        *(substitution.tensor(None, tensor) for tensor in more),
    ]


def _exposed(
    masks: Masks, call: Call, points: Mapping, outputs_too: bool, names: set[str]
) -> Callable[..., Extended]:
    """What takes the place of a nested model: one that gives the tensors inside of it.

    Returns:
        A function of the arguments of the nested model that gives its outputs (the old
        ones unless `outputs_too`) and, as additional tensors, those at the points.
    """
    inner = settled_inside(masks, call.layer, list(points.values()))
    graph = inner.graph
    outputs = graph.output_tensors if outputs_too else []
    tensors = _tensors(inner, list(points.values()), outputs)
    if _keras.returns_inputs_themselves():
        inputs = IdentitySet(graph.input_tensors)
        tensors = [CopyMask()([t, t]) if t in inputs else t for t in tensors]
    name = unique(f"{graph.name}_features", names)
    model = keras.Model(graph.inputs, tensors, name=name)

    def call_model(*args, **kwargs):
        made = _keras.flatten(model(*args, **kwargs))
        found, made = made[: len(points)], made[len(points) :]
        return Extended(made if outputs_too else call.outputs, found)

    return call_model
