"""What a layer holds beside its graph: sublayers, variables, flags."""

from typing import Any

from tensorflow import keras

from tiedbert._identity import IdentitySet
from tiedbert._keras.choice import generation
from tiedbert._keras.graphs import has_graph
from tiedbert._keras.internals import internal
from tiedbert._keras.layers import layers_within, leaves


def sublayers(layer: Any) -> dict[str, Any]:
    """name -> value of the attributes of `layer` that hold layers."""
    return {
        name: value
        for name, value in vars(layer).items()
        if name not in generation.BOOKKEEPING
        and any(isinstance(leaf, keras.layers.Layer) for leaf in leaves(value))
    }


def own_variables(layer: Any) -> list:
    """The variables of `layer` that are not those of a sublayer, random state too."""
    if not isinstance(layer, keras.layers.Layer):
        return []
    names = generation.TRAINABLE, generation.NON_TRAINABLE
    found = [weight for name in names for weight in internal(layer, name)]
    found += generation.random_states(layer)
    # Keras 2 counts the table of a lookup layer among the weights, and neither Keras
    # the states of a stateful recurrent layer.
    found += leaves(getattr(layer, "states", None))
    return [variable for variable in found if generation.is_variable(variable)]


def statistics(model: keras.Model) -> list:
    """The variables that calls of `model` update by themselves, random state left out.

    Moving averages, and the metrics that a layer keeps.
    """
    layers = layers_within(model)
    name = generation.NON_TRAINABLE
    found = [variable for layer in layers for variable in internal(layer, name)]
    metrics = [metric for layer in layers for metric in internal(layer, "_metrics")]
    found += [variable for metric in metrics for variable in metric.variables]
    return list(IdentitySet(each for each in found if generation.is_variable(each)))


def copy_flags(source: keras.layers.Layer, copy: keras.layers.Layer) -> None:
    """Make a layer trainable like another, and a model of the same dtype policy."""
    # The public setter would reach down into every sublayer.
    copy._trainable = internal(source, "_trainable")
    if has_graph(source):
        copy._dtype_policy = internal(source, "_dtype_policy")
