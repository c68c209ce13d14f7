"""Where a perturbation may be: which tokens, and which tensors of a model."""

import models
import numpy as np
import pytest
import tensorflow as tf
from adversarial_problems import ORDINARY, TOKEN_IDS, bert_like

from tiedbert.adversarial import except_tokens
from tiedbert.adversarial.cut_model import CutModel
from tiedbert.adversarial.positions import ordinary_tokens
from tiedbert.errors import InputError


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
@pytest.mark.parametrize(
    ("token_ids", "expected"),
    [
        ([2, 7, 8, 3], [0, 1, 1, 0]),
        ([2, 7, 3, 0, 0], [0, 1, 0, 0, 0]),
        ([2, 7, 3, 8, 9, 3, 0], [0, 1, 0, 1, 1, 0, 0]),  # two texts
        ([2, 3], [0, 0]),
        ([2, 3, 0], [0, 0, 0]),
        ([0, 0, 0], [0, 0, 0]),
        ([101, 1, 21127, 102], [0, 1, 1, 0]),  # another vocabulary
    ],
)
def test_ordinary_tokens(token_ids, expected, dtype):
    found = ordinary_tokens(tf.cast([token_ids], dtype))
    assert found.dtype == tf.bool
    assert found.numpy().astype(int).tolist() == [expected]


def test_ordinary_tokens_judges_each_row_by_itself():
    """The second row ends with an id that is an ordinary token in the first."""
    found = ordinary_tokens(tf.constant([[2, 5, 6, 3], [2, 3, 5, 0]]))
    assert found.numpy().astype(int).tolist() == [[0, 1, 1, 0], [0, 1, 0, 0]]


@pytest.mark.parametrize(
    "inputs",
    [
        [TOKEN_IDS, TOKEN_IDS * 0],
        (TOKEN_IDS, TOKEN_IDS * 0),
        {"Input-Token": TOKEN_IDS, "Input-Segment": TOKEN_IDS * 0},
    ],
    ids=["list", "tuple", "dict"],
)
def test_a_bert4keras_model_tells_its_ordinary_tokens(inputs):
    cut = CutModel(bert_like(), "Embedding-Norm")
    (positions,) = cut.positions(inputs, 0, cut.front(inputs))
    assert positions.numpy().tolist() == ORDINARY


def test_any_other_model_tells_its_padding():
    model = models.recurrent()
    tokens = models.batch(model)
    cut = CutModel(model, "dense")
    (positions,) = cut.positions(tokens, 0, cut.front(tokens))
    np.testing.assert_array_equal(positions, tokens != 0)


def test_without_a_mask_every_position_is_allowed():
    model = models.chain()
    cut = CutModel(model, "middle")
    x = models.batch(model)
    assert cut.positions(x, 0, cut.front(x)) == [None]


def test_given_positions_win():
    given = tf.constant([[False, True, False, False]] * 2)
    cut = CutModel(bert_like(), "Embedding-Norm", positions=lambda inputs: given)
    inputs = [TOKEN_IDS, TOKEN_IDS * 0]
    (positions,) = cut.positions(inputs, 0, cut.front(inputs))
    assert positions is given


def test_a_pooled_state_is_perturbed_everywhere():
    """It has no time axis, although the model has one."""
    model = models.recurrent()
    tokens = models.batch(model)
    cut = CutModel(model, "summary")
    assert cut.positions(tokens, 0, cut.front(tokens)) == [None]


def test_special_tokens_are_excepted_wherever_they_are():
    token_ids = tf.constant([[2.0, 7.0, 4.0, 8.0, 0.0]])
    positions = except_tokens([0, 2, 3, 4])
    for inputs in (
        {"Input-Token": token_ids, "Input-Segment": 0 * token_ids},
        {"token_ids": token_ids, "padding_mask": token_ids > 0},
        [token_ids, 0 * token_ids],
        (token_ids, 0 * token_ids),
        token_ids,
    ):
        expected = [[False, True, False, True, False]]
        np.testing.assert_array_equal(positions(inputs), expected)
    with pytest.raises(InputError, match="input 'Input-Token' or 'token_ids', and fou"):
        positions({"words": token_ids})
