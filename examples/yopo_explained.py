"""YOPO: where it cuts, how often it runs each part, and how it differs from FreeLB.

    python examples/yopo_explained.py        (about 15 seconds)

YOPO cuts a BERT twice: where the perturbation is added, and behind the first block. Its
inner steps of ascent run the first block alone.

Expected: for 3 steps of ascent FreeLB runs the rest 3 times and YOPO-1-3 once. With one
inner step, YOPO changes the weights of the rest as FreeLB does, up to rounding. The
change of the block differs by 1.6% in length, because YOPO trains it at a perturbation
that is one step further.
"""

import sys
from collections import Counter
from pathlib import Path

from tiedbert.command import quiet_import, run

try:
    with quiet_import():
        from tiedbert.bert import build_bert, classifier
except ImportError as error:
    sys.exit(str(error))

import numpy as np
import tensorflow as tf
from tensorflow import keras

from tiedbert.adversarial import YOPO, AdversarialTraining, FreeLB
from tiedbert.surgery import insert

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
ADDED, BEHIND = "Embedding-Norm", "Transformer-0-FeedForward-Norm"
INSIDE = {  # a layer in each of the three parts
    "before": "Embedding-Token",
    "block": "Transformer-0-MultiHeadSelfAttention-Norm",
    "rest": "Transformer-1-MultiHeadSelfAttention-Norm",
}
PASSES = Counter()


class Count(keras.layers.Layer):
    """The identity, which counts passes forward and backward."""

    def call(self, inputs):
        def counted(tensor, direction):
            def count():
                PASSES[self.name, direction] += 1
                return np.int64(0)

            with tf.control_dependencies([tf.numpy_function(count, [], tf.int64)]):
                return tf.identity(tensor)

        @tf.custom_gradient
        def both_ways(hidden):
            return counted(hidden, "forward"), lambda up: counted(up, "backward")

        return both_ways(inputs)


def new_model():
    """The same weights every time, no dropout, so that steps can be compared."""
    keras.utils.set_random_seed(0)
    config = Path(__file__).with_name("small_bert.json")
    no_dropout = dict.fromkeys(("dropout_rate", "attention_dropout_rate"), 0.0)
    return classifier(build_bert(config, **no_dropout), 2, 0.0)


def one_step(method):
    """One step of gradient descent on random tokens.

    Returns:
        Passes forward and backward through each part; and by how much each weight
        changed.
    """
    model = new_model()
    for part, name in INSIDE.items():
        model = insert(model, name, Count(name=part))
    before = model.get_weights()
    draw = np.random.default_rng(0)
    token_ids = draw.integers(5, 4000, [8, 16])
    training = AdversarialTraining(model, method, at=ADDED)
    training.compile(keras.optimizers.SGD(0.1), LOSS)
    PASSES.clear()
    training.fit([token_ids, 0 * token_ids], draw.integers(2, size=8), verbose=0)
    changes = zip(model.weights, model.get_weights(), before, strict=True)
    learned = {getattr(w, "path", w.name): now - then for w, now, then in changes}
    counts = [(PASSES[part, "forward"], PASSES[part, "backward"]) for part in INSIDE]
    return counts, learned


def main():
    print("passes forward, backward   before    block     rest")
    learned = {}
    given = {"step_size": 1.0, "random_start": False}
    counts, learned["FreeLB-3"] = one_step(FreeLB(steps=3, **given))
    show("FreeLB-3", counts)
    assert counts == [(1, 1), (3, 3), (3, 3)]
    for outer, inner in (1, 3), (3, 1):
        method, name = YOPO(outer=outer, inner=inner, **given), f"YOPO-{outer}-{inner}"
        counts, learned[name] = one_step(method)
        show(name, counts)
        # The block: with the rest, for each inner step, and once to learn from.
        block = outer * (1 + inner + 1), outer * (inner + 1)
        assert counts == [(1, 1), block, (outer, outer)]

    freelb, yopo = learned["FreeLB-3"], learned["YOPO-3-1"]
    in_block = {name for name in freelb if "Transformer-0" in name}
    in_rest = {name for name in freelb if "Embedding" not in name} - in_block
    rest, block = (
        relative_difference(freelb, yopo, names) for names in (in_rest, in_block)
    )
    assert rest < 1e-4 < block
    print(f"YOPO-3-1 beside FreeLB-3: the rest {rest:.1%} off, the block {block:.1%}")


def show(name, counts):
    print(f"{name:25}" + "".join(f"{str(both):>9}" for both in counts))


def relative_difference(left, right, names):
    """The length of the difference of two changes of weights, relative to the first."""
    left, right = (np.concatenate([x[n].ravel() for n in names]) for x in (left, right))
    return np.linalg.norm(left - right) / np.linalg.norm(left)


if __name__ == "__main__":
    run(main)
