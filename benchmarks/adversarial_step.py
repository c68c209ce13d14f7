"""What an adversarial training step costs, in plain training steps of the same model.

    python benchmarks/adversarial_step.py

A BERT classifier of 4 and of 12 layers x 256, batch 32 x 64, dropout 0.1, AdamW,
through `fit`'s own train function. Beside each ratio: the least that the method needs
(a forward pass, a backward pass to the activations and one to the weights are a third
of a step each), and the passes that a layer in the middle of the model really made. And
the usual recipe that perturbs the table of the embedding. About fifteen minutes on two
CPU cores.
"""

import json
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # bert4keras takes part

import tiedbert.bert as bert  # isort: skip  It prepares the import of bert4keras.

import numpy as np  # isort: skip
import tensorflow as tf  # isort: skip
from _interleaved import machine, measure  # isort: skip
from tensorflow import keras  # isort: skip

from tiedbert import adversarial  # isort: skip
from tiedbert.surgery import insert  # isort: skip

BATCH, TIME, WIDTH, VOCABULARY = 32, 64, 256, 21_128
REPETITIONS = 10
TRACINGS = 5
# method, target
METHODS = {
    "FGM, adversarial alone": (adversarial.FGM(clean=False), 1.75),
    "FGM, clean + adversarial": (adversarial.FGM(), 2.0),
    "PGD-3": (adversarial.PGD(steps=3), 3.1),
    "FreeLB-3": (adversarial.FreeLB(steps=3), 3.0),
    "SMART, one ascent": (adversarial.SMART(), 2.75),
    "YOPO-1-3": (adversarial.YOPO(outer=1, inner=3), 1.3),
    "R3F": (adversarial.R3F(), 2.0),
    "VAT": (adversarial.VAT(), None),
    "R-Drop": (adversarial.RDrop(), None),
    "random noise": (adversarial.RandomNoise(), None),
    "gradient penalty": (adversarial.GradientPenalty(), None),
    "FreeAT-3, of three steps": (adversarial.FreeAT(replays=3), None),
}
TABLE = "FGM of the table"
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def classifier(layers):
    """A BERT classifier with random weights."""
    config = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 4 * WIDTH,
        "hidden_act": "gelu",
        "max_position_embeddings": TIME,
        "type_vocab_size": 2,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bert_config.json"
        path.write_text(json.dumps(config))
        options = {"dropout_rate": 0.1, "attention_dropout_rate": 0.1}
        return bert.classifier(bert.build_bert(path, **options), num_labels=2)


def dataset():
    """One batch for ever: texts between [CLS] and [SEP], without padding."""
    draw = np.random.default_rng(0)
    token_ids = draw.integers(5, VOCABULARY, (BATCH, TIME))
    token_ids[:, 0], token_ids[:, -1] = 2, 3
    batch = (token_ids, np.zeros_like(token_ids)), draw.integers(0, 2, BATCH)
    return tf.data.Dataset.from_tensors(batch).repeat()


class TableFGM(keras.Model):
    """The recipe that bert4keras' example gives, as a `train_step`.

    The gradient with respect to the whole table of the embedding, one norm for the
    batch; the table is moved, the step is made there, the table is moved back.
    """

    def train_step(self, data):
        """Two passes, the second at the moved table."""
        table = self.get_layer("Embedding-Token").embeddings
        x, y = data
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(table)
            loss = self.compute_loss(x, y, self(x, training=True))
        gradient = tf.convert_to_tensor(tape.gradient(loss, table))
        delta = gradient / (tf.norm(gradient) + 1e-8)
        table.assign_add(delta)
        logs = super().train_step(data)
        table.assign_sub(delta)
        return logs


def step_of(training):
    """A step of `fit` on the batch, which waits for the loss."""
    training.compile(keras.optimizers.AdamW(0.0), LOSS)
    train = training.make_train_function()
    batches = iter(dataset())
    return lambda: float(train(batches)["loss"])


def wrapped(model, method):
    """What `fit` is called on."""
    return adversarial.AdversarialTraining(model, method)


class CountPasses(keras.layers.Layer):
    """``x * w`` that counts how often itself and its two gradients are computed."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.counts = dict.fromkeys(("forward", "to activations", "to weights"), 0)

    def build(self, input_shape):
        """One weight."""
        self.scale = self.add_weight(name="scale", shape=(), initializer="ones")

    def call(self, inputs):
        """Its input, times one."""

        @tf.custom_gradient
        def product(x, w):
            def gradient(dy):
                dx = self._count("to activations", dy * w)
                return dx, self._count("to weights", tf.reduce_sum(dy * x))

            return self._count("forward", x * w), gradient

        return product(inputs, tf.convert_to_tensor(self.scale))

    def _count(self, name, value):
        def counted(array):
            self.counts[name] += 1
            return array

        # Stateless: it runs only where its result is needed.
        result = tf.numpy_function(counted, [value], value.dtype, stateful=False)
        return tf.ensure_shape(result, value.shape)


def passes(method, layers=4):
    """The passes counted in one step: forward, to activations, to weights."""
    counter = CountPasses(name="counter")
    model = insert(classifier(layers), "Transformer-1-FeedForward-Norm", counter)
    step = step_of(wrapped(model, method) if method else model)
    step()
    before = dict(counter.counts)
    step()
    return [counter.counts[name] - before[name] for name in before]


def tracing_seconds(make):
    """The first call of a step of a new model, less a later one."""
    step = make()
    started = time.perf_counter()
    step()
    first = time.perf_counter() - started
    return first - min(_seconds(step) for _ in range(3))


def _seconds(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def print_costs(layers):
    """One line per method."""
    model = classifier(layers)
    table = TableFGM(model.inputs, model.outputs)
    methods = {name: wrapped(model, method) for name, (method, *_) in METHODS.items()}
    candidates = {"plain": model, TABLE: table, **methods}
    steps = {name: step_of(training) for name, training in candidates.items()}
    seconds = measure(steps, REPETITIONS)
    print(f"\n{layers} layers x {WIDTH}, batch {BATCH} x {TIME} ({machine()})")
    print(f"{'':<26} {'ms':>7} {'ratio':>6} {'of min':>6} {'least':>6} {'target':>6}")
    plain = seconds["plain"]
    for name, times in seconds.items():
        method, target = METHODS.get(name, (None, None))
        ratio = statistics.median(times) / statistics.median(plain)
        known = {"plain": 1, TABLE: 2}
        cost = known.get(name) or method.passes(first_block=1 / layers).cost
        print(
            f"{name:<26} {1000 * statistics.median(times):7.0f} {ratio:6.2f} "
            f"{min(times) / min(plain):6.2f} {cost:6.2f} {target or '':>6}"
        )


def print_passes():
    """The counted passes of a step of each method."""
    print(f"\n{'passes counted':<26} forward, to activations, to weights")
    for name, method in {"plain": (None,), **METHODS}.items():
        print(f"{name:<26} {passes(method[0])}")


def print_tracing(layers):
    """How long the first step takes beyond a later one."""
    candidates = {
        "plain": lambda: step_of(classifier(layers)),
        "PGD-3": lambda: step_of(wrapped(classifier(layers), METHODS["PGD-3"][0])),
    }
    seconds = {name: [] for name in candidates}
    for _ in range(TRACINGS):
        for name, make in candidates.items():
            seconds[name].append(tracing_seconds(make))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"\ntracing, {layers} layers: plain {medians['plain']:.2f} s", end=", ")
    print(f"PGD-3 {medians['PGD-3'] / medians['plain']:.2f} times that")


def main():
    """Count, then time."""
    print_passes()
    for layers in (4, 12):
        print_tracing(layers)
        print_costs(layers)


if __name__ == "__main__":
    main()
