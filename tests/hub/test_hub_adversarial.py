"""Adversarial training of a classifier of keras-hub."""

import keras_hub
import numpy as np
import pytest
from tensorflow import keras
from test_hub_surgery import INPUTS, SIZE, TOKENS, scramble

from tiedbert.adversarial import FGM, PGD, AdversarialTraining, FreeLB, OneOf
from tiedbert.adversarial.method import Method
from tiedbert.adversarial.results import StepResult
from tiedbert.surgery import cut_points

NORM = "bert_backbone/embeddings_layer_norm"
BLOCK = "bert_backbone/transformer_layer_0"
X = {name: INPUTS[name] for name in ("token_ids", "segment_ids", "padding_mask")}
Y = np.array([0, 2])


def classifier():
    backbone = keras_hub.models.BertBackbone(**SIZE, name="bert_backbone")
    make = keras_hub.models.BertTextClassifier
    return scramble(make(backbone=backbone, preprocessor=None, num_classes=3))


class Watch(Method):
    """A method that keeps where it perturbs, and trains nothing."""

    norm, relative, epsilon = "l2", False, 0.5

    def train(self, step):
        ball = step.ball(self)
        learned = step.learn_at(None)
        self.seen = ball.step(None, learned.gradient).delta
        return StepResult(learned.loss, learned.loss, ball.size(self.seen))


def compiled(method, at, **options):
    training = AdversarialTraining(classifier(), method, at)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    training.compile(keras.optimizers.SGD(0.01), loss, metrics=["accuracy"], **options)
    return training


def test_the_points_have_these_names():
    assert {NORM, BLOCK} <= {point.at for point in cut_points(classifier())}


def test_neither_padding_nor_special_tokens_move():
    watch = Watch()
    compiled(watch, NORM, run_eagerly=True).fit(X, Y, verbose=0)
    (delta,) = watch.seen
    ordinary = X["padding_mask"] & (TOKENS != 2) & (TOKENS != 3)
    np.testing.assert_array_equal(np.any(delta, axis=-1), ordinary)
    np.testing.assert_allclose(np.linalg.norm(delta, axis=(1, 2)), 0.5, rtol=1e-5)


@pytest.mark.parametrize(
    ("method", "at"),
    [
        (FGM(0.5), NORM),
        (FreeLB(0.5), NORM),
        (PGD(0.5, steps=2), [BLOCK, NORM]),
        (FGM(0.5), OneOf(NORM, BLOCK)),
    ],
)
def test_it_trains(method, at):
    training = compiled(method, at)
    before = training.model.get_weights()
    history = training.fit(X, Y, epochs=2, verbose=0).history
    assert np.all(np.isfinite(history["loss"]))
    assert all(0 < norm < 0.5 + 1e-5 for norm in history["delta_norm"])
    after = training.model.get_weights()
    assert any(np.any(a != b) for a, b in zip(before, after, strict=True))
