"""Image models of keras.applications, at the smallest size at which they are built."""

import math

import numpy as np
import tensorflow as tf
from tensorflow import keras

SIZES = {
    "ResNet50": {"input_shape": (32, 32, 3)},
    "DenseNet121": {"input_shape": (32, 32, 3)},
    "MobileNetV2": {"input_shape": (32, 32, 3), "alpha": 0.35},
    "InceptionV3": {"input_shape": (75, 75, 3)},
    "EfficientNetB0": {"input_shape": (32, 32, 3)},
    "ConvNeXtTiny": {"input_shape": (32, 32, 3)},
}
# The variance of a kernel times its number of inputs. What halves a signal, be it a
# gate or a swish, needs more; sums of branches need less.
GAINS = {"ResNet50": 1.0, "EfficientNetB0": 4.0}


def build(name):
    """The model of this name, with weights that keep activations in range.

    As Keras starts them, some of these models give the same output for every input.
    """
    make = getattr(keras.applications, name)
    model = make(weights=None, classes=7, classifier_activation=None, **SIZES[name])
    draw = np.random.default_rng(0)
    model.set_weights(
        [_values(weight, draw, GAINS.get(name, 2.0)) for weight in model.weights]
    )
    return model


def _values(weight, draw, gain):
    shape = tuple(weight.shape)
    if len(shape) > 1:
        depthwise = len(shape) == 4 and shape[-1] == 1
        inputs = math.prod(shape[:2] if depthwise else shape[:-1])
        return draw.normal(0.0, math.sqrt(gain / inputs), shape)
    if shape and ("variance" in weight.name or "gamma" in weight.name):
        return draw.uniform(0.5, 1.5, shape)
    return draw.normal(0.0, 0.3, shape) if shape else weight.numpy()


def inputs_of(model):
    """Two images of noise."""
    shape = (2, *model.input_shape[1:])
    return tf.constant(np.random.default_rng(1).uniform(0, 255, shape), tf.float32)
