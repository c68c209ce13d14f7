"""A masked LM training step beside bert4keras', Hugging Face's and the products alone.

    python benchmarks/masked_lm_step.py

6 layers x 384, vocabulary 30,522, batch 16 x 128, 20 positions masked, AdamW. All start
from the same weights, and their losses are compared in the same run. Keras 3 runs in
this process, Keras 2 in another one; the steps of both take turns. Hugging Face takes
part where torch and transformers are installed (make test-peers says which, and
.venv-peers/bin/python runs this file with them). About five minutes on two CPU cores.
"""

import contextlib
import importlib.util
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf
from _interleaved import measure, print_table
from _processes import Other, serve
from _products import Products, best_product
from tensorflow import keras

from tiedbert import _keras, bert

BATCH, TIME, MASKED, VOCABULARY = 16, 128, 20, 30_522
LAYERS, WIDTH, INNER, HEADS = 6, 384, 1536, 12
REPETITIONS = 10
CONFIG = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "hidden_act": "gelu",
    "max_position_embeddings": TIME,
    "type_vocab_size": 2,
}
OURS = "tiedbert, early gather"


def batch():
    """Token ids, segments, masked positions and their labels."""
    random = np.random.default_rng(0)
    token_ids = random.integers(5, VOCABULARY, (BATCH, TIME))
    positions = np.stack(
        [random.choice(TIME, MASKED, replace=False) for _ in range(BATCH)]
    )
    labels = random.integers(5, VOCABULARY, (BATCH, MASKED))
    return token_ids, np.zeros_like(token_ids), positions, labels


def step_of(model, loss, optimizer=_keras.AdamW):
    """A compiled training step: forward, backward, update; gives the loss."""
    optimizer = optimizer(0.0)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            value = loss(model)
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(
            zip(gradients, model.trainable_variables, strict=True)
        )
        return value

    return lambda: float(step())


def products(early_gather=False, dtype="float32"):
    """The matrix products of a step and nothing else: no less time is possible."""

    def block(queries):
        """Of a Transformer that gives this many positions in each text."""
        rows, size, texts = BATCH * queries, WIDTH // HEADS, (BATCH, HEADS)
        return [
            *[(BATCH * TIME, WIDTH, WIDTH)] * 2,  # keys and values
            *[(rows, WIDTH, WIDTH)] * 2,  # queries and output
            (queries, size, TIME, texts),
            (queries, TIME, size, texts),
            (rows, WIDTH, INNER),
            (rows, INNER, WIDTH),
        ]

    masked = BATCH * MASKED
    head = [(masked, WIDTH, WIDTH), (masked, WIDTH, VOCABULARY)]
    blocks = (LAYERS - 1) * block(TIME) + block(MASKED if early_gather else TIME)
    return Products(blocks + head, dtype)


def tiedbert_step(folder, arrays, optimizer=_keras.AdamW, **options):
    """The step of a model that knows its loss, from the checkpoint in `folder`."""
    model = bert.masked_lm(
        bert.build_bert(folder / "bert_config.json"), with_loss=True, **options
    )
    bert.load_google_checkpoint(model, folder / "bert_model.ckpt")
    inputs = [tf.constant(array) for array in arrays] + [tf.ones([BATCH, MASKED])]

    def loss(model):
        model(inputs, training=True)
        return tf.add_n(model.losses)

    return step_of(model, loss, optimizer)


def plain_step(folder, arrays):
    """The same head with Keras' loss on its logits."""
    *inputs, labels = [tf.constant(array) for array in arrays]
    model = bert.masked_lm(bert.build_bert(folder / "bert_config.json"))
    bert.load_google_checkpoint(model, folder / "bert_model.ckpt")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return step_of(model, lambda model: loss(labels, model(inputs, training=True)))


def bert4keras_step(folder, arrays):
    """Its own pretraining model: a head on every position."""
    from bert4keras.models import build_transformer_model

    token_ids, segments, positions, labels = [tf.constant(array) for array in arrays]
    model = build_transformer_model(
        folder / "bert_config.json", folder / "bert_model.ckpt", with_mlm="linear"
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def of_masked(model):
        logits = model([token_ids, segments], training=True)
        return loss(labels, tf.gather(logits, positions, batch_dims=1))

    return step_of(model, of_masked)


def hugging_face_step(folder, arrays, half=False):
    """BertForMaskedLM on the same weights."""
    import torch
    from transformers import BertForMaskedLM

    token_ids, segments, positions, labels = [torch.tensor(array) for array in arrays]
    targets = torch.full((BATCH, TIME), -100)
    targets.scatter_(1, positions, labels)
    model = BertForMaskedLM.from_pretrained(folder)
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0  # as in the other models
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model(token_ids, token_type_ids=segments, labels=targets).loss
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


@contextlib.contextmanager
def policy(name):
    """Models made in here compute with this policy."""
    keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy("float32")


def of_keras_2(folder):
    """What runs in Keras 2: bert4keras itself, and our head on its encoder."""
    return {
        "bert4keras, head on all positions": bert4keras_step(folder, batch()),
        f"{OURS}, in Keras 2": tiedbert_step(folder, batch(), early_gather=True),
    }


def of_keras_3(folder):
    """What runs in this process, from the weights that it writes."""
    arrays = batch()
    steps = {
        OURS: tiedbert_step(folder, arrays, early_gather=True),
        f"{OURS}, Keras' AdamW": tiedbert_step(
            folder, arrays, keras.optimizers.AdamW, early_gather=True
        ),
        "tiedbert": tiedbert_step(folder, arrays),
        "tiedbert, plain loss": plain_step(folder, arrays),
    }
    with policy("mixed_bfloat16"):
        steps[f"{OURS}, bfloat16"] = tiedbert_step(folder, arrays, early_gather=True)
    if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
        steps["Hugging Face"] = hugging_face_step(folder, arrays)
        steps["Hugging Face, bfloat16"] = hugging_face_step(folder, arrays, half=True)
    return steps


def write_weights(folder):
    """One set of weights in both formats."""
    (folder / "bert_config.json").write_text(json.dumps(CONFIG))
    model = bert.masked_lm(bert.build_bert(folder / "bert_config.json"))
    bert.save_google_checkpoint(model, folder / "bert_model.ckpt")
    bert.save_safetensors(model, folder)


def check_losses(steps):
    """All steps begin with the same loss, and no weight moves at this rate."""
    losses = {name: step() for name, step in steps.items()}
    for name, loss in losses.items():
        error = abs(loss / losses[OURS] - 1)
        assert error < (1e-2 if "bfloat16" in name else 1e-5), losses


def print_shares(seconds, parts):
    """What a step has of the time of its products, and of the machine's best one."""
    for dtype, name in (("float32", OURS), ("bfloat16", f"{OURS}, bfloat16")):
        best = best_product(dtype)
        median = statistics.median(seconds[name])
        alone = statistics.median(seconds[f"products of an early gather, {dtype}"])
        flops = parts[dtype].flops / median / 1e9
        print(
            f"{name}: {alone / median:.2f} of its time are products; {flops:.0f} "
            f"useful GFLOP/s, {flops / best:.2f} of the best product's {best:.0f}"
        )


def main():
    """Build, compare the losses, time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_weights(folder)
        other = Other("--serve", name)
        steps = {**of_keras_3(folder), **other.candidates}
    check_losses(steps)
    parts = {
        dtype: products(early_gather=True, dtype=dtype)
        for dtype in ("float32", "bfloat16")
    }
    alone = {f"products of an early gather, {d}": parts[d] for d in parts}
    seconds = measure({**steps, **alone, "all products": products()}, REPETITIONS)
    other.close()
    print_table(seconds, "masked LM training step")
    print_shares(seconds, parts)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(of_keras_2(Path(sys.argv[2])))
    else:
        main()
