"""Virtual adversarial training with few labels and many texts without a label.

    python examples/vat_semi_supervised.py        (about 60 seconds)

Every batch has 16 texts with a label and 48 without one. A text without a label gets
any label and the sample weight 0: it counts in VAT's divergence alone. `--pretrained
RUN` starts from a run of `tiedbert pretrain`.

Expected: with 200 labels the test accuracy is 64.6% without VAT and 65.6% with it, a
difference within the noise (standard error 0.8 points, one seed), and 64.2% with
`--epsilon 4`. From the demo's pretrained run it is 66.1% and 69.1%.
"""

import sys
from pathlib import Path

import reviews

from tiedbert.command import positive_int, quiet_import, run

try:
    with quiet_import():
        from tiedbert.bert import build_bert, classifier, open_pretrained
except ImportError as error:
    sys.exit(str(error))

import numpy as np
from tensorflow import keras

from tiedbert.adversarial import VAT, AdversarialTraining
from tiedbert.jobs.optimization import adamw

LABELLED, UNLABELLED = 16, 48  # in a batch
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def main():
    command = reviews.parser(__doc__)
    command.add_argument("--labels", type=positive_int, default=200)
    command.add_argument("--steps", type=positive_int, default=300)
    command.add_argument("--epsilon", type=float, default=1.0)
    command.add_argument("--pretrained", type=Path, help="run of `tiedbert pretrain`")
    options = command.parse_args()
    start, tokenizer = [Path(__file__).with_name("small_bert.json")], None
    if options.pretrained:
        saved = open_pretrained(options.pretrained)
        start, tokenizer = [saved.config, saved.checkpoint], saved.tokenizer
    train, test, names = reviews.read(options, tokenizer)

    # The labels of all other texts are removed, so that none is used by mistake.
    train.y[options.labels :] = 0
    draw = np.random.default_rng(0)
    with_label = draw.integers(options.labels, size=[options.steps, LABELLED])
    without = draw.integers(len(train.y), size=[options.steps, UNLABELLED])
    share = (LABELLED + UNLABELLED) / LABELLED  # the loss is a mean over the batch
    runs = {
        "labels alone": (None, with_label, None),
        "with VAT": (
            VAT(options.epsilon),
            np.concatenate([with_label, without], axis=1),
            np.tile([share] * LABELLED + [0.0] * UNLABELLED, options.steps),
        ),
    }
    for name, (method, chosen, weights) in runs.items():
        keras.utils.set_random_seed(0)
        model = classifier(build_bert(*start), len(names))
        trained = AdversarialTraining(model, method) if method else model
        trained.compile(adamw(1e-3, options.steps), LOSS, weighted_metrics=["accuracy"])
        x, y = reviews.some(train, chosen.ravel())
        trained.fit(x, y, batch_size=chosen.shape[1], sample_weight=weights,
            shuffle=False, verbose=2)  # fmt: skip
        result = trained.evaluate(*test, 256, verbose=0, return_dict=True)
        print(f"{options.labels} {name}: test accuracy {result['accuracy']:.1%}")
        assert result["accuracy"] > 0.4  # no better than a guess is possible


if __name__ == "__main__":
    run(main)
