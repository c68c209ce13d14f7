"""What Keras is doing when it makes or calls a layer: loading, tracing, running."""

import sys
from types import FrameType
from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert._keras.choice import generation
from tiedbert._keras.internals import internal_local


def layers_being_loaded() -> list:
    """The layers built so far of the models that Keras is deserializing.

    Keras passes them to none of the layers that it makes, so they are read off the
    stack.
    """
    found: list = []
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        function = frame.f_globals.get("__name__"), frame.f_code.co_name
        if function in generation.REBUILDING:
            made = internal_local(frame, generation.REBUILDING[function])
            found += list(made.values()) if isinstance(made, dict) else [made]
        frame = frame.f_back
    return [layer for layer in found if isinstance(layer, keras.layers.Layer)]


def called_by_user(inputs: Any) -> bool:
    """Whether a user calls a layer on the values `inputs`, and no layer or trace."""
    symbolic = any(map(generation.is_symbolic, generation.flatten(inputs)))
    return tf.executing_eagerly() and not generation.in_a_call() and not symbolic
