"""Layers within layers: those nested at any depth, and those in attributes."""

from typing import Any

from tensorflow import keras

from tiedbert._keras.internals import internal


def layers_within(layer: Any) -> list:
    """`layer` itself and every layer nested in it, at any depth."""
    if not isinstance(layer, keras.layers.Layer):
        return [layer]  # an operation of Keras 3
    return list(internal(layer, "_flatten_layers")())


def leaves(value: Any) -> list:
    """The leaves of nested lists, tuples and dicts, of any type.

    This is for the attributes of layers and the arguments of functions. It takes every
    dict, in the order of its keys; `flatten`, which is for the inputs and outputs of
    models, has Keras' order and needs keys that can be sorted.
    """
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in leaves(part)]
    return [value]


def given_output_shape(layer: keras.layers.Lambda) -> Any:
    """The `output_shape` that a Lambda layer was made with."""
    return internal(layer, "_output_shape")
