"""Ties of keras-hub models: heads of both libraries on its tables."""

import keras_hub
import numpy as np
import pytest
from models import assert_same
from tensorflow import keras
from test_hub_clone import (
    INPUTS,
    backbone,
    bert_task,
    head_in_a_plain_model,
    head_on_a_backbone,
    head_on_the_table_of_another_layer,
    inputs_of,
    roberta_task,
)

from tiedbert.errors import InputError
from tiedbert.layers import EmbeddingDense, check_tied
from tiedbert.surgery import clone, split

TASKS = [bert_task, roberta_task]
MODELS = [
    head_in_a_plain_model,
    head_on_a_backbone,
    head_on_the_table_of_another_layer,
]


@pytest.mark.parametrize("build", TASKS + MODELS)
def test_the_head_of_keras_hub_is_a_tie(build):
    model = build()
    for source in [model, clone(model)]:
        (tie,) = check_tied(source)
        assert tie.looked_up
        assert tie.head.token_embedding is tie.embedding
        assert tie.table is tie.embedding.weights[0]


@pytest.mark.parametrize("build", MODELS)
def test_what_keras_unties_without_a_word_is_told(build):
    with pytest.raises(InputError, match="'mlm_head' in '.*' has a table 'token"):
        check_tied(keras.models.clone_model(build()))


def test_a_layer_around_the_table_is_refused_with_the_name_of_what_to_pass():
    embed = keras_hub.layers.TokenAndPositionEmbedding(20, 12, 8)
    with pytest.raises(InputError, match=r"PositionEmbedding: pass its .token_embeddi"):
        EmbeddingDense(embed)


def tied_plain():
    embed = keras_hub.layers.TokenAndPositionEmbedding(20, 12, 8, name="embed")
    ids = keras.Input((None,), dtype="int32", name="token_ids")
    hidden = keras.layers.Dense(8, name="dense")(embed(ids))
    head = EmbeddingDense(embed.token_embedding, activation="linear", name="head")
    return keras.Model({"token_ids": ids}, head(hidden))


def tied_backbone():
    model = backbone()
    head = EmbeddingDense(model.token_embedding, activation="linear", name="head")
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in INPUTS}
    del inputs["mask_positions"]
    return keras.Model(inputs, head(model(inputs)["sequence_output"]))


def saved(model, path):
    model.save(path / "model.keras")
    return keras.models.load_model(path / "model.keras")


def cloned_by_keras(model, path):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def cloned(model, path):
    return clone(model)


@pytest.mark.parametrize("way", [saved, cloned_by_keras, cloned])
@pytest.mark.parametrize("build", [tied_plain, tied_backbone])
def test_our_head_on_their_table(build, way, tmp_path):
    model = build()
    other = way(model, tmp_path)
    inputs = inputs_of(other)
    assert_same(other(inputs), model(inputs))
    (tie,) = check_tied(other)
    assert tie.looked_up
    assert tie.head is other.get_layer("head")
    hidden, *_ = split(other, tie.head.input)[0](inputs)
    before = np.array(other(inputs))
    row = np.zeros((20, 8), "float32")
    row[19] = 1.0  # a token that is in no text: the hidden states do not change
    tie.table.assign(tie.table + row)
    change = np.array(other(inputs)) - before
    np.testing.assert_allclose(
        change[..., 19], np.array(hidden).sum(-1), rtol=1e-3, atol=1e-4
    )
    assert np.all(change[..., :19] == 0.0)


def test_a_head_and_a_backbone_side_by_side_are_not_untied_in_silence(tmp_path):
    """The config of a backbone does not tell of the table inside."""
    model = backbone()
    hidden = keras.Input((None, 8))
    head = EmbeddingDense(model.token_embedding, activation="linear", name="head")
    rest = keras.Model(hidden, head(hidden), name="rest")
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in INPUTS}
    del inputs["mask_positions"]
    whole = keras.Model(inputs, rest(model(inputs)["sequence_output"]))
    assert check_tied(clone(whole))[0].looked_up
    with pytest.raises(InputError, match="use tiedbert.surgery.clone"):
        keras.models.clone_model(whole)
    whole.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="'token_embedding' expected 1 variables"):
        keras.models.load_model(tmp_path / "model.keras")
