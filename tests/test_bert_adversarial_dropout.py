"""The dropout of a model of bert4keras in the passes of a step."""

import numpy as np
import pytest
import tensorflow as tf
from bert_samples import BATCH, write_config
from tensorflow import keras

from tiedbert.adversarial import FGM, AdversarialTraining
from tiedbert.adversarial.part import Part
from tiedbert.bert import build_bert


@pytest.fixture
def bert(tmp_path):
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.5}
    return build_bert(write_config(tmp_path, **rates))


def test_attention_follows_the_seed(bert):
    part = Part(bert, seeded=True)
    inputs = [tf.constant(values, tf.float32) for values in BATCH]
    one, same, other = (
        part(inputs, tf.constant(seed)).outputs for seed in ([1, 2], [1, 2], [3, 4])
    )
    np.testing.assert_array_equal(one, same)
    assert np.any(one != other)


@pytest.mark.parametrize("replay", [True, False])
def test_the_passes_of_a_step_share_it_on_request(bert, replay):
    keras.utils.set_random_seed(0)
    training = AdversarialTraining(bert, FGM(0.0), replay_dropout=replay)
    training.compile(keras.optimizers.SGD(0.0), "mse")
    target = np.zeros([2, 7, 16], np.float32)
    target[..., 0] = 1.0
    logs = training.fit(BATCH, target, verbose=0).history
    assert (logs["clean_loss"] == logs["adversarial_loss"]) == replay
