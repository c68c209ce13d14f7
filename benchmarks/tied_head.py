"""The tied head alone: some positions against all, chunks against all logits at once.

    python benchmarks/tied_head.py

Two questions. How much does it save to give the head 304 of 2,048 positions (d = 768)?
And what do time and memory cost with 4,864 predictions (d = 256), in chunks or not?
Vocabulary 30,522. Values and gradients are compared in the same run; peak memory is
that of a process of its own. About two minutes on two CPU cores.
"""

import json
import os
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from _interleaved import measure, print_table
from _memory import give_back, status

from tiedbert.losses import tied_cross_entropy

VOCABULARY = 30_522
REPETITIONS = 10


def plain(hidden, table, bias, labels):
    """Keras' way: all logits, then the loss."""
    logits = tf.matmul(hidden, table, transpose_b=True) + bias
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return tf.reduce_mean(losses)


def step(loss, count, width, gathered=None):
    """A compiled function that gives the loss and the gradients of a sample.

    With `gathered`, hidden states of `count` positions come in and the loss is that
    of `gathered` of them.
    """
    draw = np.random.default_rng(0)
    hidden = tf.Variable(draw.normal(size=(count, width)), dtype=tf.float32)
    table = tf.Variable(0.05 * draw.normal(size=(VOCABULARY, width)), dtype=tf.float32)
    bias = tf.Variable(tf.zeros([VOCABULARY]))
    labels = tf.constant(draw.integers(0, VOCABULARY, count), tf.int32)
    positions = tf.constant(draw.choice(count, gathered or count, replace=False))

    @tf.function
    def run():
        with tf.GradientTape() as tape:
            used = hidden if gathered is None else tf.gather(hidden, positions)
            targets = labels if gathered is None else tf.gather(labels, positions)
            value = loss(used, table, bias, targets)
        gradients = tape.gradient(value, [hidden, table, bias])
        return value, [tf.convert_to_tensor(gradient) for gradient in gradients]

    return run


def head_on_all(hidden, table, bias, labels):
    """The logits of every position, the loss of the first 304 of them."""
    logits = tf.matmul(hidden, table, transpose_b=True) + bias
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels[:304], logits[:304])
    return tf.reduce_mean(losses)


MANY = {
    "all logits at once": lambda: step(plain, 4864, 256),
    "in chunks": lambda: step(tied_cross_entropy, 4864, 256),
}


def peak_megabytes(name):
    """Memory that one step needs beyond its inputs, in a process of its own."""
    command = [sys.executable, __file__, name]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def show_peak(name):
    """What :func:`peak_megabytes` runs."""
    run = MANY[name]()
    # What the program itself needs the first time is there before, and nothing else.
    step(plain if name == "all logits at once" else tied_cross_entropy, 600, 2)()
    give_back()
    before = status("VmRSS")
    run()
    print((status("VmHWM") - before) / 1024)


def compare(steps):
    """The same loss and gradients, or there is nothing to time."""
    (value, gradients), *others = [run() for run in steps.values()]
    for other, other_gradients in others:
        np.testing.assert_allclose(other, value, rtol=1e-5)
        for ours, theirs in zip(other_gradients, gradients, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-7)


def main():
    """Compare, time, weigh."""
    many = {name: make() for name, make in MANY.items()}
    compare(many)
    few = {
        "all 2,048 positions": step(head_on_all, 2048, 768),
        "304 of 2,048 positions": step(tied_cross_entropy, 2048, 768, gathered=304),
    }
    for title, steps in (
        ("head, d = 768, forward and backward", few),
        ("head, 4,864 predictions, d = 256, forward and backward", many),
    ):
        runs = {name: lambda run=run: run()[0].numpy() for name, run in steps.items()}
        print_table(measure(runs, REPETITIONS), title)
    peaks = {name: peak_megabytes(name) for name in MANY}
    for name, peak in peaks.items():
        share = peak / peaks["all logits at once"]
        print(f"{name:<40} {peak:9.0f} MB at the peak {share:8.3f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        show_peak(sys.argv[1])
    else:
        main()
