"""Pretrain a small BERT as a masked language model: plainly, with FGM, with ALUM.

    python examples/adversarial_pretraining.py        (about 80 seconds)

FGM needs only the loss, which is inside the model (`with_loss=True`). ALUM compares
outputs, so its model returns logits; labels and a weight for each position go to `fit`.
Both models share their weights; the first one measures the loss on held-out reviews.

Expected: in 400 steps it falls from 8.34 nats a masked token (a guess among 4,000 ids
is 8.29) to 6.02 plainly, 6.05 with FGM and 6.11 with ALUM: no gain on clean text.
"""

import sys
from pathlib import Path

import reviews

from tiedbert.command import positive_int, quiet_import, run

try:
    with quiet_import():
        from tiedbert.bert import build_bert, masked_lm
except ImportError as error:
    sys.exit(str(error))

import tensorflow as tf
from tensorflow import keras

from tiedbert.adversarial import ALUM, FGM, AdversarialTraining, except_tokens
from tiedbert.jobs.optimization import adamw
from tiedbert.text.masking import mask_tokens

BATCH, PREDICTIONS, VOCABULARY = 32, 9, 4000
MASK, SPECIAL = 4, (0, 2, 3, 4)  # [MASK]; with [PAD], [CLS] and [SEP]
ORDINARY = except_tokens(SPECIAL)
TARGETS = "Masked-Labels", "Masked-Weights"


def main():
    command = reviews.parser(__doc__)
    command.add_argument("--steps", type=positive_int, default=400)
    options = command.parse_args()
    train, test, _ = reviews.read(options)
    training = masked(train.x["Input-Token"]).repeat()
    held_out = masked(test.x["Input-Token"]).take(20).cache()

    print("held-out loss  before   after, nats a masked token")
    for name in ("plain", "FGM", "ALUM"):
        keras.utils.set_random_seed(0)
        model, logits = models()
        model.compile()
        before = model.evaluate(held_out, verbose=0, return_dict=True)["loss"]
        trained, data, loss = model, training, None
        if name == "FGM":
            trained = AdversarialTraining(model, FGM(0.5), perturbation_mask=ORDINARY)
        if name == "ALUM":
            trained = AdversarialTraining(logits, ALUM(), perturbation_mask=ORDINARY)
            data = training.map(with_targets_outside)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        trained.compile(adamw(2e-3, options.steps), loss)
        trained.fit(data, steps_per_epoch=options.steps, shuffle=False, verbose=0)
        after = model.evaluate(held_out, verbose=0, return_dict=True)["loss"]
        print(f"{name:14}{before:7.2f}{after:8.2f}")
        assert after < before


def models():
    """A masked language model with its loss inside, and one that gives logits."""
    bert = build_bert(Path(__file__).with_name("small_bert.json"))
    model = masked_lm(bert, predictions=PREDICTIONS, with_loss=True)
    head, below = model.get_layer("MLM-Bias"), model.get_layer("MLM-Norm").output
    return model, keras.Model(model.inputs[:3], head(below))


def masked(token_ids):
    """Batches, masked anew each time: the inputs of the model with the loss inside."""

    def mask(step, tokens):
        chosen = mask_tokens(
            tokens,
            [step, 0],
            vocab_size=VOCABULARY,
            mask_id=MASK,
            special_ids=SPECIAL,
            max_predictions=PREDICTIONS,
        )
        inputs = {
            f"Masked-{name.title()}": chosen[name]
            for name in ("positions", "labels", "weights")
        }
        tokens = chosen["token_ids"]
        return {"Input-Token": tokens, "Input-Segment": tf.zeros_like(tokens), **inputs}

    rows = tf.data.Dataset.from_tensor_slices(token_ids).shuffle(len(token_ids), seed=0)
    return rows.batch(BATCH, drop_remainder=True).enumerate().map(mask)


def with_targets_outside(inputs):
    """The same as ``(x, y, sample_weight)``, for the model that gives logits."""
    x = {name: value for name, value in inputs.items() if name not in TARGETS}
    return x, *(inputs[name] for name in TARGETS)


if __name__ == "__main__":
    run(main)
