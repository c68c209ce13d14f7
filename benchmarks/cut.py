"""What a cut costs: rest(front(x)) against model(x), and cutting against building.

    TF_USE_LEGACY_KERAS=0 python benchmarks/cut.py    # Keras 3; or 1 for Keras 2

ResNet50 at 96 x 96 with random weights, cut in the middle. About a minute on two CPU
cores.
"""

import numpy as np
import tensorflow as tf
from _interleaved import measure, print_table
from tensorflow import keras

from tiedbert.surgery import split

AT = "conv4_block3_add"


def build():
    """A model to cut."""
    return keras.applications.ResNet50(weights=None, input_shape=(96, 96, 3))


def main():
    """Compare outputs, then time."""
    model = build()
    front, rest = split(model, AT)
    images = tf.constant(np.random.default_rng(0).random((4, 96, 96, 3)), tf.float32)
    whole = tf.function(lambda: model(images))
    parts = tf.function(lambda: rest(front(images)))
    assert np.array_equal(rest(front(images)), model(images))
    running = {
        "model(x)": lambda: whole().numpy(),
        "rest(front(x))": lambda: parts().numpy(),
    }
    print_table(measure(running, 30), "inference under tf.function")
    making = {"build ResNet50": build, f"split at {AT}": lambda: split(model, AT)}
    print_table(measure(making, 8), "making models")


if __name__ == "__main__":
    main()
