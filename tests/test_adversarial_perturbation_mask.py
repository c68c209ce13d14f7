"""Which tokens may be perturbed, by default and with a mask of the user."""

import adversarial_problems as problems
import models
import numpy as np
import pytest
import tensorflow as tf
from adversarial_problems import ORDINARY, TOKEN_IDS, Spy, bert_like, trained
from generation import IS_LEGACY
from tensorflow import keras

from tiedbert.adversarial import FGM, AdversarialTraining, FreeLB, except_tokens
from tiedbert.adversarial.cut_model import CutModel
from tiedbert.adversarial.perturbation_mask import ordinary_tokens
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


@pytest.mark.both_kerases
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
    (perturbation_mask,) = cut.perturbation_mask(inputs, 0, cut.front(inputs))
    assert perturbation_mask.numpy().tolist() == ORDINARY


@pytest.mark.both_kerases
def test_any_other_model_tells_its_padding():
    model = models.recurrent()
    tokens = models.batch(model)
    cut = CutModel(model, "dense")
    (perturbation_mask,) = cut.perturbation_mask(tokens, 0, cut.front(tokens))
    np.testing.assert_array_equal(perturbation_mask, tokens != 0)


def test_without_a_mask_every_token_may_be_perturbed():
    model = models.chain()
    cut = CutModel(model, "middle")
    x = models.batch(model)
    assert cut.perturbation_mask(x, 0, cut.front(x)) == [None]


def test_a_given_mask_replaces_the_default():
    given = tf.constant([[False, True, False, False]] * 2)
    cut = CutModel(
        bert_like(), "Embedding-Norm", perturbation_mask=lambda inputs: given
    )
    inputs = [TOKEN_IDS, TOKEN_IDS * 0]
    (perturbation_mask,) = cut.perturbation_mask(inputs, 0, cut.front(inputs))
    assert perturbation_mask is given


def test_a_given_mask_may_be_a_numpy_array():
    spy = Spy(FGM(0.5))
    model, inputs = bert_like(), [TOKEN_IDS, TOKEN_IDS * 0]
    chosen = np.array([[0, 1, 0, 0]] * 2) > 0
    training = AdversarialTraining(model, spy, perturbation_mask=lambda inputs: chosen)
    training.compile("sgd", problems.FROM_LOGITS, run_eagerly=True)
    training.train_on_batch(inputs, tf.constant([0, 2]))
    assert np.any(spy.deltas[-1], axis=-1).tolist() == chosen.tolist()


WRONG = [np.ones(shape, bool) for shape in [(2, 1), (2, 3), (2, 4, 1), (2,)]]
WRONG += [np.ones([2, 4]), np.full([2, 4], "a"), None]


@pytest.mark.cases(5)
@pytest.mark.parametrize("wrong", WRONG, ids=lambda w: getattr(w, "shape", w))
@pytest.mark.parametrize("method", [FGM(), FreeLB()], ids=["FGM", "FreeLB"])
def test_a_mask_of_another_shape_or_dtype_is_refused(method, wrong):
    training = AdversarialTraining(
        bert_like(), method, perturbation_mask=lambda inputs: wrong
    )
    training.compile("sgd", problems.FROM_LOGITS)
    inputs = [TOKEN_IDS, TOKEN_IDS * 0]
    with pytest.raises(InputError, match=r"expected.* bool \[batch, time\].*received"):
        training.fit(inputs, tf.constant([0, 2]), verbose=0)


def test_a_mask_that_is_no_function_is_refused():
    with pytest.raises(
        InputError, match="perturbation_mask: a function of the inputs or"
    ):
        AdversarialTraining(bert_like(), FGM(), perturbation_mask=[True, False])


class MeanOfAll(keras.layers.Layer):
    """The mean over all axes but the first and the last; the mask ends here."""

    def call(self, inputs):
        return tf.reduce_mean(inputs, [1, 2])

    def compute_mask(self, inputs, mask=None):
        return None


def test_a_keras_mask_of_several_axes_counts():
    x = keras.Input((2, 3, 4))
    h = keras.layers.Masking()(x)
    h = keras.layers.Activation("linear", name="hidden")(h)
    h = MeanOfAll()(h)
    model = keras.Model(x, keras.layers.Dense(1)(h))
    values = np.random.default_rng(0).normal(size=(5, 2, 3, 4)).astype("float32")
    values[0, 1] = values[2, 0, 1:] = 0.0
    spy = Spy(FreeLB(0.5, steps=2))
    trained(model, spy, values, np.ones([5, 1]), loss="mse")
    for delta in spy.deltas:
        np.testing.assert_array_equal(np.any(delta, -1), np.any(values, -1))


@pytest.mark.both_kerases
@pytest.mark.skipif(not IS_LEGACY, reason="ragged tensors of Keras 3 lose their kind")
def test_ragged_activations_are_refused():
    ids = keras.Input((None,), dtype="int32", ragged=True)
    hidden = keras.layers.Embedding(5, 3, name="hidden")(ids)
    model = keras.Model(ids, keras.layers.GlobalAveragePooling1D()(hidden))
    with pytest.raises(InputError, match="'hidden' is ragged: cut after a layer"):
        AdversarialTraining(model, FGM(), "hidden")


def test_a_pooled_state_is_perturbed_everywhere():
    """It has no time axis, although the model has one."""
    model = models.recurrent()
    tokens = models.batch(model)
    cut = CutModel(model, "summary")
    assert cut.perturbation_mask(tokens, 0, cut.front(tokens)) == [None]


def test_special_tokens_are_excepted_wherever_they_are():
    token_ids = tf.constant([[2.0, 7.0, 4.0, 8.0, 0.0]])
    perturbation_mask = except_tokens([0, 2, 3, 4])
    for inputs in (
        {"Input-Token": token_ids, "Input-Segment": 0 * token_ids},
        {"token_ids": token_ids, "padding_mask": token_ids > 0},
        [token_ids, 0 * token_ids],
        (token_ids, 0 * token_ids),
        token_ids,
    ):
        expected = [[False, True, False, True, False]]
        np.testing.assert_array_equal(perturbation_mask(inputs), expected)
    with pytest.raises(InputError, match="input 'Input-Token' or 'token_ids', and fou"):
        perturbation_mask({"words": token_ids})
