"""What bert4keras' own models compute: run in a process of its own, under Keras 2.

    TF_USE_LEGACY_KERAS=1 python tests/bert4keras_numbers.py numbers.npz bert albert-lm

It builds models of `bert_zoo` by bert4keras, gives them weights, and writes the weights
of each layer, the outputs for two texts, one of them padded, the gradients of all
weights, and a Google checkpoint, unless the format has no place for the model.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def numbers(names, path):
    """The numbers of models of `bert_zoo`, from a process with Keras 2.

    Args:
        names: keys of `bert_zoo.MODELS`.
        path: of the file to write.

    Returns:
        dict, ``(name, "weights", layer, index)``, ``(name, "gradients", layer, index)``
        or ``(name, "outputs", index)`` -> array.
    """
    env = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_KERAS": "1"}
    root = str(Path(__file__).parents[1])
    env["PYTHONPATH"] = os.pathsep.join([root, env.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, __file__, str(path), *names], env=env, check=True)
    with np.load(path) as file:
        return {_key(name): file[name] for name in file.files}


def checkpoint_of(path, name):
    """The Google checkpoint of a model, written with bert4keras' names."""
    return Path(path).parent / name / "bert_model.ckpt"


def _key(text):
    return tuple(int(part) if part.isdigit() else part for part in text.split("|"))


def write(path, names):
    """Under Keras 2: compute and write."""
    import bert_zoo
    import tensorflow as tf
    from bert_samples import build_theirs, scramble, write_config

    import tiedbert.bert

    found = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            options, kind = bert_zoo.options_of(name)
            config = write_config(Path(folder), **bert_zoo.DROPOUT, num_hidden_layers=2)
            model = scramble(build_theirs(config, model=kind, **options))
        if kind != "albert_unshared":  # its blocks would have to be equal
            tiedbert.bert.save_google_checkpoint(model, checkpoint_of(path, name), kind)
        outputs, gradients = outputs_and_gradients(model, bert_zoo.inputs_of(model))
        for index, output in enumerate(outputs):
            found[f"{name}|outputs|{index}"] = output
        for layer in model.layers:
            for index, weight in enumerate(layer.weights):
                key = f"{layer.name}|{index}"
                found[f"{name}|weights|{key}"] = weight.numpy()
                gradient = gradients.get(weight.ref())
                if gradient is not None:
                    found[f"{name}|gradients|{key}"] = gradient
    tf.io.gfile.makedirs(os.path.dirname(path) or ".")
    np.savez(path, **found)


def outputs_and_gradients(model, inputs):
    """The outputs, and the gradients of all weights of a weighted sum of them."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        outputs = tf.nest.flatten(model(inputs))
        sums = [tf.reduce_sum(output * weights_of(output)) for output in outputs]
        loss = tf.add_n(sums)
    variables = model.trainable_variables
    found = tape.gradient(loss, [getattr(v, "_value", v) for v in variables])
    gradients = {
        getattr(variable, "_value", variable).ref(): tf.convert_to_tensor(
            gradient
        ).numpy()
        for variable, gradient in zip(variables, found, strict=True)
        if gradient is not None
    }
    return [output.numpy() for output in outputs], gradients


def weights_of(output):
    """Numbers of the shape of an output, the same in every process."""
    draw = np.random.default_rng(5)
    return draw.normal(size=output.shape).astype("float32")


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2:])
