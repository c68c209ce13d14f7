"""A model from a file is edited in a process that did not make it.

There Keras numbers new names from the start, and the model has those of its file.
"""

import importlib

import numpy as np
import pytest
from generation import IS_LEGACY
from tensorflow import keras

from tiedbert.surgery import insert, split

TOKENS = np.array([[5, 6, 0, 0], [8, 9, 7, 0]])
POINTS = ["table", "norm", "block", "sum", "next", "sums"]


def masked():
    layers = keras.layers
    token_ids = keras.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(10, 4, mask_zero=True, name="table")(token_ids)
    x = layers.LayerNormalization(name="norm")(x)
    for block, total in (("block", "sum"), ("next", "sums")):
        h = layers.GlobalAveragePooling1D(keepdims=True, name=block)(x)
        x = layers.Add(name=total)([x, h])
    return keras.Model(token_ids, layers.GlobalAveragePooling1D(name="last")(x))


def reset_numbers():
    """Let Keras number its names from the start, as in a new process."""
    module = "tf_keras.src.backend" if IS_LEGACY else "keras.src.utils.naming"
    importlib.import_module(module).reset_uids()


def loaded(model, path):
    """`model` as a new process loads it, its first layers and masks not numbered."""
    model.save(path)
    reset_numbers()
    return keras.models.load_model(path)


@pytest.fixture
def path(tmp_path):
    reset_numbers()
    return tmp_path / "model.keras"


@pytest.mark.parametrize("at", POINTS)
def test_a_loaded_model_is_cut(at, path):
    model = loaded(masked(), path)
    front, rest = split(model, at)
    np.testing.assert_array_equal(rest(front(TOKENS)), model(TOKENS))


@pytest.mark.parametrize("at", POINTS)
def test_a_loaded_model_is_edited(at, path):
    model = loaded(masked(), path)
    edited = insert(model, at, keras.layers.Activation("linear"))
    np.testing.assert_array_equal(edited(TOKENS), model(TOKENS))


@pytest.mark.parametrize("at", POINTS[1:])
def test_a_loaded_part_is_cut_again(at, path):
    model = masked()
    front, rest = split(model, "table")
    crossing = front(TOKENS)
    rest = loaded(rest, path)
    first, second = split(rest, at)
    np.testing.assert_array_equal(second(first(crossing)), model(TOKENS))


def test_new_names_are_those_after_the_names_in_the_model(path):
    model = loaded(masked(), path)
    front, rest = split(model, "norm")
    rest = loaded(rest, path)
    split(rest, "block")
    taken = {layer.name for layer in [*model.layers, *front.layers, *rest.layers]}
    assert keras.layers.LayerNormalization(name=None).name not in taken
