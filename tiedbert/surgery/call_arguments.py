"""The arguments of a call of a nested model, as its graph declares them."""

from typing import Any

from tiedbert import _keras
from tiedbert.surgery.graph import Graph


def model_arguments(graph: Graph, args: tuple, kwargs: dict) -> tuple[Any, dict]:
    """The inputs of a call of a nested model, as its graph declares them, and the rest.

    Keras takes a list for a dict and a dict for a list.
    """
    names = ("inputs", "training", "mask")
    options = {**dict(zip(names, args, strict=False)), **kwargs}
    inputs = options.pop("inputs")
    if isinstance(graph.inputs, dict):
        if isinstance(inputs, dict):
            return {name: inputs[name] for name in graph.inputs}, options
        given = zip(sorted(graph.inputs), _keras.flatten(inputs), strict=True)
        return dict(given), options
    if isinstance(inputs, dict):
        inputs = [inputs[_keras.maker(t).name] for t in graph.input_tensors]
    return inputs, options


def flat_arguments(graph: Graph, args: tuple, kwargs: dict) -> tuple[list, list, dict]:
    """The inputs of such a call in a flat list, the masks given with them, the rest."""
    inputs, options = model_arguments(graph, args, kwargs)
    inputs = _keras.flatten(inputs)
    masks = _keras.flatten(options.pop("mask", None))
    if len(masks) != len(inputs):
        masks = [None] * len(inputs)
    return inputs, masks, options
