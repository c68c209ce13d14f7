"""One worker of several that train together: prints weights and logs as JSON."""

import json

import numpy as np
import tensorflow as tf
from tensorflow import keras

from tiedbert.adversarial import FGM, AdversarialTraining


def trained(strategy=None):
    """The weights and the logs of two epochs of two batches of 8."""
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(16, 4)), draw.normal(size=(16, 1))
    data = tf.data.Dataset.from_tensor_slices((x.astype("float32"), y)).batch(8)
    with (strategy or tf.distribute.get_strategy()).scope():
        inputs = keras.Input((4,))
        hidden = keras.layers.Dense(3, activation="tanh", name="hidden")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
        training = AdversarialTraining(model, FGM(0.5), "hidden")
        training.compile(keras.optimizers.SGD(0.1), "mse")
    draw = np.random.default_rng(1)
    model.set_weights([draw.normal(size=w.shape) for w in model.get_weights()])
    history = training.fit(data, epochs=2, shuffle=False, verbose=0).history
    return {
        "weights": [weight.tolist() for weight in model.get_weights()],
        "logs": {name: float(values[-1]) for name, values in history.items()},
    }


if __name__ == "__main__":
    print(json.dumps(trained(tf.distribute.MultiWorkerMirroredStrategy())))
