"""Masks that enter a nested model with its inputs, as inputs of their own."""

from collections.abc import Mapping
from typing import Any

from tensorflow import keras

from tiedbert import _keras
from tiedbert.surgery.call_arguments import flat_arguments, model_arguments
from tiedbert.surgery.calls import Call
from tiedbert.surgery.graph import Graph
from tiedbert.surgery.masks.explicit import DropMask, attach, mask_of
from tiedbert.surgery.masks.received import Masks
from tiedbert.surgery.masks.run import with_open_sizes
from tiedbert.surgery.replay import Substitution, outputs_of, replay


def entering_shapes(masks: Masks, call: Call) -> dict[int, tuple]:
    """Index of an input of a nested model -> shape of the mask with which it enters.

    Args:
        masks: those of the outer model.
        call: the call of the nested model.
    """
    inner = masks.graph.nested(call.layer)
    tensors, given, _ = flat_arguments(inner, call.args, call.kwargs)
    shapes = {}
    for i, (tensor, mask) in enumerate(zip(tensors, given, strict=True)):
        received = masks.received.get(tensor, {}).get(call)
        shape = received if mask is None else mask.shape
        if shape is not None:
            shapes[i] = with_open_sizes(shape, inner.input_tensors[i])
    return shapes


def with_mask_inputs(graph: Graph, shapes: Mapping[int, tuple]) -> Graph:
    """The graph of a nested model that takes masks of its inputs as more inputs.

    Its own symbolic tensors know nothing of masks that come from outside.

    Args:
        graph: the calls of the nested model.
        shapes: as `entering_shapes` gives them; without any it is `graph` itself.
    """
    if not shapes:
        return graph
    old = graph.input_tensors
    inputs = [_keras.input_like(t, _keras.maker(t).name) for t in old]
    masks = [
        keras.Input(shape[1:], dtype="bool", name=f"{inputs[i].name}_mask")
        for i, shape in shapes.items()
    ]
    substitution = Substitution(zip(old, inputs, strict=True))
    for i, mask in zip(shapes, masks, strict=True):
        masked = attach(inputs[i], mask)
        _keras.forget_mask(masked)
        substitution.new[old[i]] = masked
    replay(graph.calls, substitution, recorded_masks=True)
    outputs = outputs_of(graph, substitution)
    model = keras.Model([*inputs, *masks], outputs, name=graph.name)
    _keras.repeat_side_effects(model, graph.side_effects, substitution.new)
    return graph.in_another_form(model, substitution.new)


def with_mask_arguments(
    graph: Graph, shapes: Mapping[int, tuple], args: tuple, kwargs: dict
) -> tuple[Any, dict]:
    """The inputs for the model of `with_mask_inputs`, and the rest of the arguments.

    Args:
        graph: the calls of the nested model as it was.
        shapes: as given to `with_mask_inputs`.
        args: the positional arguments of a call of the nested model.
        kwargs: its keyword arguments.
    """
    inputs, given, options = flat_arguments(graph, args, kwargs)
    if not shapes:
        return model_arguments(graph, args, kwargs)[0], options
    masks = [
        mask_of(inputs[i], shape) if given[i] is None else given[i]
        for i, shape in shapes.items()
    ]
    # Keras warns of implicit masks that enter a model; they are explicit here.
    inputs = [DropMask()(x) if i in shapes else x for i, x in enumerate(inputs)]
    return [*inputs, *masks], options
