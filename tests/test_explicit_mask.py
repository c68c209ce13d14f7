"""Implicit masks become tensors and come back as the same masks."""

import models
import numpy as np
import pytest
import tensorflow as tf
from models import assert_same, batch
from tensorflow import keras

from tiedbert import _keras
from tiedbert.surgery.masks.explicit import (
    AttachMask,
    DropMask,
    ReadMask,
    mask_of,
    without_mask,
)

layers = keras.layers

HIDDEN = tf.constant([[[1.0], [2.0]], [[3.0], [4.0]]])
MASK = tf.constant([[True, True], [True, False]])


def seen(tensor):
    """The mask that a layer receives with `tensor`; -1 for none."""
    return models.ShowMask()(tensor).numpy().tolist()


def test_the_mask_given_is_the_mask_received():
    assert seen(HIDDEN) == [[-1, -1], [-1, -1]]
    assert seen(AttachMask()([HIDDEN, MASK])) == [[1, 1], [1, 0]]


def test_attaching_leaves_the_values_and_the_callers_tensor():
    assert_same(AttachMask()([HIDDEN, MASK]), HIDDEN)
    assert seen(HIDDEN) == [[-1, -1], [-1, -1]]


def test_reading_gives_the_mask_that_was_attached():
    mask = ReadMask()(AttachMask()([HIDDEN, MASK]))
    assert_same(mask, MASK)


def test_a_mask_that_was_read_has_no_mask():
    mask = ReadMask()(AttachMask()([HIDDEN, MASK]))
    assert getattr(mask, "_keras_mask", None) is None


def test_dropping_leaves_the_values_alone():
    masked = AttachMask()([HIDDEN, MASK])
    assert_same(DropMask()(masked), HIDDEN)
    assert seen(DropMask()(masked)) == [[-1, -1], [-1, -1]]
    assert seen(masked) == [[1, 1], [1, 0]]


def test_a_symbolic_tensor_without_its_mask_has_none():
    hidden = models.recurrent().get_layer("dense").output
    assert mask_of(without_mask(hidden)) is None
    plain = models.chain().get_layer("middle").output
    assert without_mask(plain) is plain


def test_reading_where_there_is_no_mask_is_an_error():
    with pytest.raises(ValueError, match="reader: its input carries no mask"):
        ReadMask(name="reader")(HIDDEN)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_values_pass_as_they_are_under_any_policy(mixed_bfloat16, dtype):
    values = tf.cast([[[1001, 1003]]], dtype)  # bfloat16 would round these
    masked = AttachMask()([values, tf.constant([[True]])])
    assert_same(masked, values)
    assert_same(DropMask()(masked), values)


@pytest.fixture
def mixed_bfloat16():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    yield
    keras.mixed_precision.set_global_policy("float32")


def test_the_mask_of_a_symbolic_tensor_is_one_too():
    model = models.recurrent()
    tokens = batch(model)
    mask = mask_of(model.get_layer("dense").output)
    assert _keras.is_symbolic(mask)
    assert_same(keras.Model(model.input, mask)(tokens), tokens != 0)


def test_a_tensor_without_a_mask_has_none():
    assert mask_of(models.chain().get_layer("middle").output) is None


def test_both_survive_saving(tmp_path):
    model = models.recurrent()
    hidden = model.get_layer("dense").output
    mask = ReadMask(name="read")(AttachMask(name="attach")([hidden, mask_of(hidden)]))
    model = keras.Model(model.input, mask)
    model.save(tmp_path / "model.keras")
    tokens = batch(model)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(loaded(tokens), tokens != 0)


def test_a_mask_reaches_the_layers_after_it_in_a_compiled_graph():
    hidden, mask = keras.Input((None, 1)), keras.Input((None,), dtype="bool")
    shown = models.ShowMask()(AttachMask()([hidden, mask]))
    model = keras.Model([hidden, mask], shown)
    np.testing.assert_array_equal(tf.function(model)([HIDDEN, MASK]), MASK)
