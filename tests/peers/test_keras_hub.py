"""The same numbers as keras-hub, in whose Keras 3 bert4keras cannot run."""

import os
import subprocess
import sys
from pathlib import Path

import keras_hub
import numpy as np
import our_numbers
import pytest
import tensorflow as tf
from our_numbers import LABELS, PADDING_MASK, POSITIONS, SEGMENTS, TOKENS
from safetensors.numpy import load_file, save_file
from tensorflow import keras

HEAD = "cls.predictions"
INPUTS = {
    "token_ids": TOKENS,
    "segment_ids": SEGMENTS,
    "padding_mask": PADDING_MASK,
    "mask_positions": POSITIONS,
}


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """(folder, logits, loss) of our masked language model, from another process."""
    folder = tmp_path_factory.mktemp("ours")
    switches = {"TF_USE_LEGACY_KERAS": "1", "TF_KERAS": "1"}
    command = [sys.executable, Path(our_numbers.__file__), folder]
    subprocess.run(command, check=True, env={**os.environ, **switches})
    with np.load(folder / "numbers.npz", allow_pickle=False) as numbers:
        return folder, numbers["logits"], numbers["loss"]


def load_theirs(folder):
    """Their masked language model: the backbone by their own reader, then the head."""
    tensors = load_file(folder / "model.safetensors")
    width = our_numbers.CONFIG["hidden_size"]  # they insist on a pooler
    tensors["bert.pooler.dense.weight"] = np.zeros([width, width], np.float32)
    tensors["bert.pooler.dense.bias"] = np.zeros(width, np.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    backbone = keras_hub.models.BertBackbone.from_preset(str(folder))
    theirs = keras_hub.models.BertMaskedLM(backbone)
    head = theirs.masked_lm_head
    head._intermediate_dense.set_weights(
        [
            tensors[f"{HEAD}.transform.dense.weight"].T,
            tensors[f"{HEAD}.transform.dense.bias"],
        ]
    )
    head._intermediate_layer_norm.set_weights(
        [
            tensors[f"{HEAD}.transform.LayerNorm.weight"],
            tensors[f"{HEAD}.transform.LayerNorm.bias"],
        ]
    )
    head._bias.assign(tensors[f"{HEAD}.bias"])
    return theirs


def named(variables, values):
    """By name, without the pooler, whose gradient is none."""
    return {
        variable.path: np.array(tf.convert_to_tensor(value))
        for variable, value in zip(variables, values, strict=True)
        if "pooled_dense" not in variable.path
    }


def test_logits_loss_and_gradients_are_theirs(ours):
    folder, logits, loss = ours
    theirs = load_theirs(folder / "weights")
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    variables = theirs.trainable_variables
    with tf.GradientTape() as tape:
        expected = theirs(INPUTS, training=False)
        expected_loss = loss_of(LABELS, expected)
    zeros = tf.UnconnectedGradients.ZERO
    gradients = tape.gradient(
        expected_loss, [v.value for v in variables], unconnected_gradients=zeros
    )
    error = np.abs(logits - expected).max()
    print(f"logits up to {np.abs(expected).max():.1f}: largest error {error:.1e}")
    np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=0)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-4)
    # Our gradients in the place of weights: their own reader pairs them with theirs.
    ours = load_theirs(folder / "gradients").trainable_variables
    our_numbers.assert_gradients_agree(named(ours, ours), named(variables, gradients))
