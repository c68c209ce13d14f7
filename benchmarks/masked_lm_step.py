"""A masked LM training step beside bert4keras', Hugging Face's and the products alone.

    python benchmarks/masked_lm_step.py

6 layers x 384, vocabulary 30,522, batch 16 x 128, 20 positions masked, AdamW. All start
from the same weights, and their losses are compared in the same run. Hugging Face takes
part where torch and transformers are installed (make test-peers says which, and
.venv-peers/bin/python runs this file with them). About four minutes on two CPU cores.
"""

import contextlib
import importlib.util
import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # bert4keras takes part

import tiedbert.bert as bert  # isort: skip  It prepares the import of bert4keras.

import numpy as np  # isort: skip
import tensorflow as tf  # isort: skip
from bert4keras.models import build_transformer_model  # isort: skip
from _interleaved import measure, print_table  # isort: skip
from tensorflow import keras  # isort: skip

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


def batch():
    """Token ids, segments, masked positions and their labels."""
    random = np.random.default_rng(0)
    token_ids = random.integers(5, VOCABULARY, (BATCH, TIME))
    positions = np.stack(
        [random.choice(TIME, MASKED, replace=False) for _ in range(BATCH)]
    )
    labels = random.integers(5, VOCABULARY, (BATCH, MASKED))
    return token_ids, np.zeros_like(token_ids), positions, labels


def step_of(model, loss):
    """A compiled training step: forward, backward, update; gives the loss."""
    optimizer = keras.optimizers.AdamW(0.0)
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


def products(early_gather=False):
    """The matrix products of a step and nothing else: no less time is possible."""

    def three(rows, inner, columns, batch=()):
        """``a @ b``, and what its gradients to `a` and to `b` take."""
        a = tf.random.normal([*batch, rows, inner])
        b = tf.random.normal([*batch, inner, columns])
        c = tf.random.normal([*batch, rows, columns])
        return lambda: [
            tf.matmul(a, b)[..., 0, 0],
            tf.matmul(c, b, transpose_b=True)[..., 0, 0],
            tf.matmul(a, c, transpose_a=True)[..., 0, 0],
        ]

    def block(queries):
        """Of a Transformer that gives this many positions in each text."""
        rows, size, texts = BATCH * queries, WIDTH // HEADS, (BATCH, HEADS)
        return [
            *[three(BATCH * TIME, WIDTH, WIDTH)] * 2,  # keys and values
            *[three(rows, WIDTH, WIDTH)] * 2,  # queries and output
            three(queries, size, TIME, texts),
            three(queries, TIME, size, texts),
            three(rows, WIDTH, INNER),
            three(rows, INNER, WIDTH),
        ]

    masked = BATCH * MASKED
    head = [three(masked, WIDTH, WIDTH), three(masked, WIDTH, VOCABULARY)]
    blocks = (LAYERS - 1) * block(TIME) + block(MASKED if early_gather else TIME)
    compiled = [tf.function(product) for product in blocks + head]
    return lambda: [product() for product in compiled] and None


def tiedbert_step(folder, arrays, **options):
    """The step of a model that knows its loss, from the checkpoint in `folder`."""
    model = bert.masked_lm(
        bert.build_bert(folder / "bert_config.json"), with_loss=True, **options
    )
    bert.load_google_checkpoint(model, folder / "bert_model.ckpt")
    inputs = [tf.constant(array) for array in arrays] + [tf.ones([BATCH, MASKED])]

    def loss(model):
        model(inputs, training=True)
        return tf.add_n(model.losses)

    return step_of(model, loss)


def plain_step(folder, arrays):
    """The same head with Keras' loss on its logits."""
    *inputs, labels = [tf.constant(array) for array in arrays]
    model = bert.masked_lm(bert.build_bert(folder / "bert_config.json"))
    bert.load_google_checkpoint(model, folder / "bert_model.ckpt")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return step_of(model, lambda model: loss(labels, model(inputs, training=True)))


def bert4keras_step(folder, arrays):
    """Its own pretraining model: a head on every position."""
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


def steps_from(folder, arrays):
    """name -> step, all from one set of weights."""
    model = bert.masked_lm(bert.build_bert(folder / "bert_config.json"))
    bert.save_google_checkpoint(model, folder / "bert_model.ckpt")
    bert.save_safetensors(model, folder)
    steps = {
        "bert4keras, head on all positions": bert4keras_step(folder, arrays),
        "tiedbert, plain loss": plain_step(folder, arrays),
        "tiedbert": tiedbert_step(folder, arrays),
        "tiedbert, early gather": tiedbert_step(folder, arrays, early_gather=True),
    }
    with policy("mixed_bfloat16"):
        steps["tiedbert, early gather, bfloat16"] = tiedbert_step(
            folder, arrays, early_gather=True
        )
    if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
        steps["Hugging Face"] = hugging_face_step(folder, arrays)
        steps["Hugging Face, bfloat16"] = hugging_face_step(folder, arrays, half=True)
    return steps


def main():
    """Build, compare the losses, time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bert_config.json").write_text(json.dumps(CONFIG))
        steps = steps_from(folder, batch())
    losses = {name: step() for name, step in steps.items()}
    for name, loss in losses.items():
        error = abs(loss / losses["tiedbert"] - 1)
        assert error < (1e-2 if "bfloat16" in name else 1e-5), losses
    candidates = {
        "the matrix products alone": products(),
        "those of an early gather alone": products(early_gather=True),
        **steps,
    }
    print_table(measure(candidates, REPETITIONS), "masked LM training step")


if __name__ == "__main__":
    main()
