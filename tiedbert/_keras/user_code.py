"""Which classes and methods of a model are Keras' own, and which are a user's."""

from typing import Any

from tensorflow import keras

from tiedbert._keras.internals import PACKAGE

_SOURCES = f"{PACKAGE}.src."


def is_from_keras(definition: Any) -> bool:
    """Whether Keras itself defines a class or a function."""
    return definition.__module__.startswith(_SOURCES)


def overriding_class(model: keras.Model, name: str) -> type | None:
    """The user's class that overrides a method of `keras.Model`, or None."""
    definer = _defining_class(model, name)
    return None if is_from_keras(definer) else definer


def class_with_own_call(model: keras.Model) -> type | None:
    """The class that gives `model` a `call` that its graph does not show, or None."""
    definer = overriding_class(model, "call")
    # Models of tiedbert.surgery call their graph.
    known = definer is None or definer.__module__.startswith("tiedbert.surgery.")
    return None if known else definer


def overrides_compute_mask(layer: keras.layers.Layer) -> bool:
    """Whether the masks that a layer gives are computed by a user's method."""
    return not is_from_keras(_defining_class(layer, "compute_mask"))


def takes_inputs_and_outputs(model: keras.Model) -> bool:
    """Whether ``type(model)(inputs, outputs)`` makes a model like it.

    Else its class has a constructor or a config of its own.
    """
    methods = type(model).__init__, type(model).get_config
    return all(method.__module__.partition(".")[0] == PACKAGE for method in methods)


def class_of_edited(model: keras.Model) -> type:
    """The class of an edited `model`: its own if inputs and outputs make one."""
    plain = isinstance(model, keras.Sequential) or not takes_inputs_and_outputs(model)
    return keras.Model if plain else type(model)


def _defining_class(owner, name):
    return next(each for each in type(owner).__mro__ if name in vars(each))
