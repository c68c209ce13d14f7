"""Train a tied head on two devices of this machine; test_ties.py runs it."""

import numpy as np
import tensorflow as tf
from tensorflow import keras

from tiedbert.layers import EmbeddingDense, check_tied

TOKENS = np.array([[1, 2, 4], [3, 1, 0], [0, 2, 2], [4, 4, 1]])


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    keras.utils.set_random_seed(0)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        table = keras.layers.Embedding(5, 3, name="tokens")
        head = EmbeddingDense(table, activation="linear", name="head")
        ids = keras.Input((3,), dtype="int32")
        model = keras.Model(ids, head(table(ids)))
        model.compile(keras.optimizers.SGD(0.5), "mse")
    start = np.array(tf.convert_to_tensor(table.embeddings))
    target = np.ones([4, 3, 5], "float32")
    model.fit(TOKENS, target, batch_size=4, epochs=2, verbose=0)
    assert sum(tuple(w.shape) == (5, 3) for w in model.weights) == 1
    assert check_tied(model) == [(head, table, table.weights[0], True)]
    variable = table.weights[0]
    variable = variable if isinstance(variable, tf.Variable) else variable.value
    replicas = [v.numpy() for v in strategy.experimental_local_results(variable)]
    for values in replicas:
        assert np.any(values != start)
        logits = values[TOKENS] @ values.T + np.array(tf.convert_to_tensor(head.bias))
        np.testing.assert_allclose(model(TOKENS), logits, rtol=1e-5, atol=1e-6)
    print(f"tied on {len(replicas)} replicas")


if __name__ == "__main__":
    main()
