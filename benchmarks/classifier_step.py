"""A step and a prediction of a BERT classifier beside keras-hub's and Hugging Face's.

    python benchmarks/classifier_step.py

6 layers x 384, batch 16 x 128, two classes, dropout 0.1 in the steps, AdamW. Keras 3
and PyTorch run in this process, Keras 2 in another one; all take turns. keras-hub and
Hugging Face take part where they are installed (make test-peers says which versions,
and .venv-peers/bin/python runs this file with them). Sizes are equal, weights are not:
make test-peers compares the numbers. About five minutes on two CPU cores.
"""

import importlib.util
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf
from _interleaved import measure, print_table
from _processes import Other, serve
from masked_lm_step import (
    BATCH,
    CONFIG,
    HEADS,
    INNER,
    LAYERS,
    TIME,
    VOCABULARY,
    WIDTH,
    policy,
    step_of,
)
from tensorflow import keras

from tiedbert import bert

REPETITIONS = 10
CLASSES = 2
RATES = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}


def batch():
    """Token ids, a quarter of the texts padded to the half, segments, labels."""
    random = np.random.default_rng(0)
    token_ids = random.integers(5, VOCABULARY, (BATCH, TIME))
    token_ids[::4, TIME // 2 :] = 0
    labels = random.integers(0, CLASSES, BATCH)
    return token_ids, np.zeros_like(token_ids), labels


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def pair_of(model, inputs, labels):
    """(step, prediction) of a Keras model."""
    loss = cross_entropy()
    step = step_of(model, lambda model: loss(labels, model(inputs, training=True)))
    forward = tf.function(lambda: model(inputs, training=False))
    return step, lambda: float(forward()[0, 0])


def ours(folder):
    """(step, prediction) of our classifier, in whichever Keras runs."""
    token_ids, segments, labels = map(tf.constant, batch())
    model = bert.classifier(bert.build_bert(folder / "bert_config.json"), CLASSES)
    return pair_of(model, [token_ids, segments], labels)


def keras_hub(folder):
    """(step, prediction) of BertTextClassifier."""
    from keras_hub.models import BertBackbone, BertTextClassifier

    token_ids, segments, labels = map(tf.constant, batch())
    backbone = BertBackbone(
        VOCABULARY, LAYERS, HEADS, WIDTH, INNER, dropout=0.1, max_sequence_length=TIME
    )
    model = BertTextClassifier(backbone, CLASSES, preprocessor=None)
    inputs = {
        "token_ids": token_ids,
        "segment_ids": segments,
        "padding_mask": tf.not_equal(token_ids, 0),
    }
    return pair_of(model, inputs, labels)


def hugging_face(folder, half=False):
    """(step, prediction) of BertForSequenceClassification."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    token_ids, segments, labels = map(torch.tensor, batch())
    model = BertForSequenceClassification(
        BertConfig(**CONFIG, **RATES, num_labels=CLASSES)
    )
    inputs = {
        "input_ids": token_ids,
        "token_type_ids": segments,
        "attention_mask": (token_ids != 0).long(),
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)

    def step():
        model.train()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model(**inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
        return loss.item()

    def predict():
        model.eval()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            return model(**inputs).logits[0, 0].item()

    return step, predict


def named(name, pair):
    return {f"{name}: step": pair[0], f"{name}: predict": pair[1]}


def candidates(folder):
    """What runs in this process."""
    found = named("tiedbert", ours(folder))
    with policy("mixed_bfloat16"):
        found |= named("tiedbert, bfloat16", ours(folder))
    if importlib.util.find_spec("keras_hub"):
        found |= named("keras-hub", keras_hub(folder))
    if importlib.util.find_spec("transformers"):
        found |= named("Hugging Face", hugging_face(folder))
        found |= named("Hugging Face, bfloat16", hugging_face(folder, half=True))
    return found


def main():
    """Build and time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bert_config.json").write_text(json.dumps({**CONFIG, **RATES}))
        other = Other("--serve", name)
        found = {**candidates(folder), **other.candidates}
    seconds = measure(found, REPETITIONS)
    other.close()
    for part, title in (("step", "training step"), ("predict", "prediction")):
        of_part = {
            name.removesuffix(f": {part}"): values
            for name, values in seconds.items()
            if name.endswith(f": {part}")
        }
        print_table(of_part, f"classifier, {title}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(named("tiedbert, in Keras 2", ours(Path(sys.argv[2]))))
    else:
        main()
