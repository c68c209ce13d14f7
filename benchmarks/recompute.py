"""Time and memory of a training step with activations recomputed, and without.

    python benchmarks/recompute.py

A masked language model of 6 layers x 384 on 16 texts of 256 tokens, dropout 0.1, Keras
3. Peak memory is that of a process of its own. About two minutes on two CPU cores.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from _interleaved import measure, print_table
from _memory import peak_beyond
from masked_lm_step import BATCH, CONFIG, VOCABULARY, step_of

from tiedbert import bert

TIME = 256
REPETITIONS = 5
NAMES = ["all activations kept", "recomputed by block"]


def step(name):
    """A training step on random texts."""
    rates = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    config = {**CONFIG, **rates, "max_position_embeddings": TIME}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bert_config.json"
        path.write_text(json.dumps(config))
        model = bert.masked_lm(bert.build_bert(path), with_loss=True)
    if name == NAMES[1]:
        model = bert.recompute_activations(model)
    draw = np.random.default_rng(0)
    ids, labels = (draw.integers(5, VOCABULARY, (BATCH, n)) for n in (TIME, 20))
    positions = np.tile(np.arange(20), (BATCH, 1))
    arrays = [ids, np.zeros_like(ids), positions, labels, np.ones_like(labels)]
    inputs = [
        tf.cast(array, tensor.dtype)
        for array, tensor in zip(arrays, model.inputs, strict=True)
    ]

    def loss(model):
        model(inputs, training=True)
        return tf.add_n(model.losses)

    return step_of(model, loss)


def peak(name):
    """Megabytes that a step needs beyond the model, in a process of its own."""
    command = [sys.executable, __file__, name]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def main():
    """Time both, then measure their memory."""
    print_table(measure({n: step(n) for n in NAMES}, REPETITIONS), "training step")
    kept, recomputed = map(peak, NAMES)
    print(f"peak memory of a step: {kept:.0f} MB and {recomputed:.0f} MB, ", end="")
    print(f"{recomputed / kept:.2f} of it")


if __name__ == "__main__":
    if sys.argv[1:]:
        print(peak_beyond(step(sys.argv[1])))
    else:
        main()
