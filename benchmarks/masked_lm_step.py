"""A pretraining step of the tied head against bert4keras' own, on the same weights.

    python benchmarks/masked_lm_step.py

6 layers x 384, vocabulary 30,522, batch 16 x 128, 20 positions masked. About two
minutes on two CPU cores. The losses of both are compared in the same run.
"""

import json
import tempfile
from pathlib import Path

import tiedbert.bert as bert  # first: it chooses legacy Keras

import numpy as np  # isort: skip
import tensorflow as tf  # isort: skip
from bert4keras.models import build_transformer_model  # isort: skip
from _interleaved import measure, print_table  # isort: skip
from tensorflow import keras  # isort: skip

BATCH, TIME, MASKED, VOCABULARY = 16, 128, 20, 30_522
CONFIG = {
    "vocab_size": VOCABULARY,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
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
    segments = np.zeros_like(token_ids)
    return [tf.constant(array) for array in (token_ids, segments, positions, labels)]


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

    return step


def main():
    """Build both models on one checkpoint, compare, time."""
    token_ids, segments, positions, labels = batch()
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def all_positions(model):
        logits = model([token_ids, segments], training=True)
        return cross_entropy(labels, tf.gather(logits, positions, batch_dims=1))

    def masked_positions(model):
        return cross_entropy(
            labels, model([token_ids, segments, positions], training=True)
        )

    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "bert_config.json")
        config.write_text(json.dumps(CONFIG))
        ours = bert.masked_lm(bert.build_bert(config))
        checkpoint = f"{folder}/bert_model.ckpt"
        bert.save_google_checkpoint(ours, checkpoint)
        theirs = build_transformer_model(config, checkpoint, with_mlm="linear")
    steps = {
        "bert4keras, head on all positions": step_of(theirs, all_positions),
        "tiedbert, head on masked positions": step_of(ours, masked_positions),
    }
    losses = [float(step()) for step in steps.values()]
    assert abs(losses[0] - losses[1]) < 1e-4 * losses[0], losses
    candidates = {name: lambda s=step: s().numpy() for name, step in steps.items()}
    print_table(measure(candidates, 8), "masked LM training step")


if __name__ == "__main__":
    main()
