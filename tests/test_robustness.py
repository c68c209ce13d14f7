"""Accuracy under attack, against the distance to the decision boundary."""

import models
import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from tiedbert.adversarial import FGM
from tiedbert.errors import InputError
from tiedbert.robustness import curve

layers = keras.layers

FROM_LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
EPSILONS = [0.0, 0.1, 0.3, 0.7, 1.5]


def linear():
    """Two classes, a straight boundary."""
    x = keras.Input((3,))
    h = layers.Activation("linear", name="hidden")(x)
    model = keras.Model(x, layers.Dense(2, name="logits")(h))
    kernel = np.array([[1.0, -1.0], [0.5, 1.0], [0.0, 2.0]])
    model.set_weights([kernel, np.array([0.1, -0.2])])
    model.compile(loss=FROM_LOGITS, metrics=["accuracy"])
    return model


def examples():
    draw = np.random.default_rng(0)
    return draw.normal(size=(40, 3)).astype(np.float32), draw.integers(0, 2, 40)


def batches(x, y, size=7):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(size)


def distances(model, x, y):
    """How far each example is from the wrong answer; negative where it is there."""
    kernel, bias = model.get_layer("logits").get_weights()
    normal = kernel[:, 1] - kernel[:, 0]
    margins = (x @ normal + bias[1] - bias[0]) * (2 * y - 1)
    return margins / np.linalg.norm(normal)


def test_a_linear_model_fails_where_the_boundary_is_nearer_than_epsilon():
    model, (x, y) = linear(), examples()
    result = curve(model, batches(x, y), "hidden", FGM(), EPSILONS)
    distance = distances(model, x, y)
    assert result == [(e, float(np.mean(distance > e))) for e in EPSILONS]
    accuracies = [accuracy for _, accuracy in result]
    assert accuracies == sorted(accuracies, reverse=True)
    assert len(set(accuracies)) == len(EPSILONS)


def masked_classifier():
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    h = layers.Embedding(9, 4, mask_zero=True, name="embedding")(tokens)
    h = layers.Dropout(0.5)(layers.Dense(4, activation="tanh", name="dense")(h))
    y = layers.Dense(3, name="logits")(layers.GlobalAveragePooling1D()(h))
    model = keras.Model(tokens, y)
    model.compile(loss=FROM_LOGITS, metrics=["accuracy"])
    return model


def token_batches():
    draw = np.random.default_rng(0)
    tokens = draw.integers(1, 9, (30, 5))
    tokens[::2, 3:] = 0
    return batches(tokens.astype(np.int32), draw.integers(0, 3, 30), size=8)


def test_epsilon_0_is_the_accuracy_of_evaluate():
    """With padding and dropout: the attacked model is in inference mode."""
    model, data = masked_classifier(), token_batches()
    ((epsilon, accuracy),) = curve(model, data, "embedding", FGM(), [0])
    assert epsilon == 0.0
    clean = model.evaluate(data, verbose=0, return_dict=True)["accuracy"]
    assert 0 < clean < 1
    assert accuracy == pytest.approx(clean)


def test_the_given_order_of_radii_is_kept():
    model, data = linear(), batches(*examples())
    rising = curve(model, data, "hidden", FGM(), EPSILONS)
    order = [3, 0, 4, 1, 2]
    mixed = curve(model, data, "hidden", FGM(), [EPSILONS[k] for k in order])
    assert mixed == [rising[k] for k in order]


def test_the_methods_own_epsilon_does_not_count():
    data = batches(*examples())
    results = [curve(linear(), data, "hidden", FGM(e), [0.3]) for e in (0.0, 9.0)]
    assert results[0] == results[1]


def test_only_the_allowed_positions_are_attacked():
    model, data = masked_classifier(), token_batches()
    nowhere = curve(
        model, data, "dense", FGM(), [50.0], positions=lambda x: tf.zeros_like(x) > 0
    )
    ((_, attacked),) = curve(model, data, "dense", FGM(), [50.0])
    clean = model.evaluate(data, verbose=0, return_dict=True)["accuracy"]
    assert nowhere[0][1] == pytest.approx(clean)
    assert attacked < clean


def test_labels_in_a_column_are_labels():
    x, y = examples()
    column = curve(linear(), batches(x, y[:, None]), "hidden", FGM(), EPSILONS)
    assert column == curve(linear(), batches(x, y), "hidden", FGM(), EPSILONS)


def test_the_model_stays_as_it_was():
    """Also the running statistics that training would move."""
    x = keras.Input((3,))
    h = layers.BatchNormalization(name="norm")(x)
    model = keras.Model(x, layers.Dense(2)(h))
    model.compile(loss=FROM_LOGITS)
    before = model.get_weights()
    curve(model, batches(*examples()), "norm", FGM(), EPSILONS)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_a_model_without_a_loss_is_refused():
    model = models.chain()
    with pytest.raises(InputError, match="needs a compiled model"):
        curve(model, batches(*examples()), "middle", FGM(), [0.0])


def test_a_dataset_without_examples_is_refused():
    empty = batches(*examples()).take(0)
    with pytest.raises(InputError, match="a dataset without examples"):
        curve(linear(), empty, "hidden", FGM(), [0.0])


def test_an_unknown_cut_point_is_refused():
    with pytest.raises(InputError, match='did you mean "hidden"'):
        curve(linear(), batches(*examples()), "hiden", FGM(), [0.0])


def test_one_hot_labels_are_refused():
    data = batches(np.zeros((2, 3), np.float32), np.eye(2))
    model = linear()
    model.compile(loss="mse")
    with pytest.raises(InputError, match=r"int labels \[batch\] and one output"):
        curve(model, data, "hidden", FGM(), [0.0])


def test_a_single_output_column_is_refused():
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(1)(layers.Dense(3, name="hidden")(x)))
    model.compile(loss="binary_crossentropy")
    with pytest.raises(InputError, match="one output"):
        curve(model, batches(*examples()), "hidden", FGM(), [0.0])


def test_an_output_that_is_no_number_is_no_right_answer():
    model, (x, _) = linear(), examples()
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    zeros = np.zeros(len(x), int)
    assert curve(model, batches(x, zeros), "hidden", FGM(), [0.0]) == [(0.0, 0.0)]
