"""bert4keras' task_sentiment_virtual_adversarial_training.py on today's TensorFlow.

    python examples/port_virtual_adversarial_training.py        (about 50 seconds)

The original alternates steps on the 1 % of texts that have labels with steps on other
texts at a perturbed embedding table. Here each batch has both. A text without a label
has the weight 0 and counts in the divergence alone.

Expected: about 50%, a guess: 40 labels are too few for a BERT from scratch.
"""

import sys
from pathlib import Path

import reviews

from tiedbert.command import quiet_import, run

try:
    with quiet_import():
        from tiedbert.bert import build_bert, classifier
except ImportError as error:
    sys.exit(str(error))
import numpy as np
from tensorflow import keras

from tiedbert.adversarial import VAT, AdversarialTraining
from tiedbert.jobs.optimization import adamw

BATCH, EPOCHS, LABELLED = 32, 3, 0.01


def main():
    options = reviews.parser(__doc__).parse_args()
    train, test, names = reviews.read(options)
    keras.utils.set_random_seed(0)

    count = len(train.y)
    few = max(2, int(LABELLED * count))
    mixed = np.stack([np.arange(count) % few, np.arange(count)], axis=1).ravel()
    weights = np.tile([2.0, 0.0], count)  # the mean over half of each batch

    bert = build_bert(Path(__file__).with_name("small_bert.json"))
    model = classifier(bert, len(names))
    training = AdversarialTraining(model, VAT(1 / BATCH**0.5), at="Embedding-Token")
    training.compile(
        adamw(1e-3, EPOCHS * -(-2 * count // BATCH)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=["accuracy"],
    )
    data = reviews.some(train, mixed)
    training.fit(*data, BATCH, EPOCHS, verbose=2, sample_weight=weights)

    accuracy = training.evaluate(*test, 256, verbose=0, return_dict=True)["accuracy"]
    print(f"{few} labels for {count} texts: test accuracy {accuracy:.1%}")


if __name__ == "__main__":
    run(main)
