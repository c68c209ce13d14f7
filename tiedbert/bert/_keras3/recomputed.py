"""A part of a model computed again in the backward pass, for Keras 3."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
from tensorflow import keras

from tiedbert import _keras
from tiedbert._keras.internals import internal


@keras.utils.register_keras_serializable("tiedbert")
class Recomputed(keras.layers.Layer):
    """Calls a model; in training it is called a second time, in the backward pass.

    The second call draws the same random numbers as the first. `keras.RematScope` of
    Keras 3.15 draws others when eager, and fails in a `tf.function`.

    Args:
        model: a functional model of a list of tensors, whose only state beside its
            weights is that of its random numbers.
        **kwargs: of `keras.layers.Layer`.

    Source: Chen et al., "Training deep nets with sublinear memory cost", 2016.
    """

    def __init__(self, model: keras.Model, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model

    def call(self, inputs: Sequence[tf.Tensor], training: bool | None = None) -> Any:
        """The outputs of the model, a list."""
        if not training:
            return self.model(inputs, training=training)
        generators = _random_generators(self.model)
        seeds = [generator.next() for generator in generators]
        outputs: list[Any] = []  # of the first call

        def differentiable(*floats):
            given = iter(floats)
            tensors = [next(given) if _is_float(x) else x for x in inputs]
            with _drawing(generators, seeds):
                made = self.model(tensors, training=True)
            if not outputs:
                outputs.extend(made)
            return [x for x in made if _is_float(x)]

        found = iter(tf.recompute_grad(differentiable)(*filter(_is_float, inputs)))
        return [next(found) if _is_float(x) else x for x in outputs]

    def compute_output_spec(
        self, inputs: Sequence[Any], training: bool | None = None
    ) -> Any:
        """Those of the model."""
        return self.model.compute_output_spec(inputs, training=training)

    def get_config(self) -> dict[str, Any]:
        """The configuration, with the model."""
        model = keras.utils.serialize_keras_object(self.model)
        return {**super().get_config(), "model": model}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Recomputed":
        """The layer of a configuration."""
        model = _keras.deserialize_layer(config["model"])
        return cls(**{**config, "model": model})


def _is_float(tensor) -> bool:
    return tf.as_dtype(tensor.dtype).is_floating


def _random_generators(model) -> list:
    """The generators of random numbers of all layers within a model."""
    found = [
        generator
        for layer in _keras.layers_within(model)
        if isinstance(layer, keras.layers.Layer)
        for generator in internal(layer, "_seed_generators")
    ]
    return list(dict.fromkeys(found))


@contextlib.contextmanager
def _drawing(generators: Sequence, seeds: Sequence) -> Iterator[None]:
    """Each generator gives its seed of these instead of its next one."""
    for generator, seed in zip(generators, seeds, strict=True):
        generator.next = lambda ordered=True, seed=seed: seed
    try:
        yield
    finally:
        for generator in generators:
            del generator.next
