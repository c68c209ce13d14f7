"""Non-finite gradients change no weight and no moving average, and are counted."""

import adversarial_problems as problems
import numpy as np
import pytest
import tensorflow as tf
from adversarial_problems import FROM_LOGITS, methods, set_policy
from tensorflow import keras
from variants import others_slow, slow

from tiedbert.adversarial import FGM, SMART, AdversarialTraining, RandomNoise

layers = keras.layers

METHODS = methods()
EMPTY = np.array([[0, 0, 0, 0], [1, 2, 0, 0], [3, 4, 5, 6]])
FULL = np.array([[1, 2, 3, 4], [1, 2, 0, 0], [3, 4, 5, 6]])
LABELS = np.array([0, 1, 1])


class Mean(layers.Layer):
    """The mean of the words of a text: 0 / 0 where there are none.

    The gradient that goes back to the words is 0 there.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        left = tf.cast(mask, inputs.dtype)[..., None]
        return tf.reduce_sum(inputs * left, 1) / tf.reduce_sum(left, 1)

    def compute_mask(self, inputs, mask=None):
        return None


def model(*behind, pooling=Mean, front=()):
    ids = keras.Input((4,), dtype="int32")
    h = layers.Embedding(10, 3, mask_zero=True)(ids)
    for layer in front:
        h = layer(h)
    h = layers.Dense(3, activation="tanh", name="hidden")(h)
    h = pooling()(layers.Dense(3, name="block")(h))
    for layer in behind:
        h = layer(h)
    return problems.scrambled(keras.Model(ids, layers.Dense(2, dtype="float32")(h)))


def fitted(model, method, x, **options):
    micro_batches = options.pop("micro_batches", 1)
    training = AdversarialTraining(model, method, "hidden", micro_batches=micro_batches)
    training.compile(keras.optimizers.SGD(0.1), FROM_LOGITS, **options)
    history = training.fit(x, LABELS, shuffle=False, verbose=0).history
    return {name: value[0] for name, value in history.items()}, training


def assert_unmoved(model, before):
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    "pooling", [Mean, slow(layers.GlobalAveragePooling1D)], ids=["Mean", "Keras"]
)
@pytest.mark.parametrize(
    "name", others_slow(["FGM-0", "SMART-13", "RDrop-17"], METHODS)
)
def test_an_empty_text_makes_no_weight_nan(name, pooling):
    here = model(pooling=pooling)
    before = here.get_weights()
    logs, training = fitted(here, METHODS[name], EMPTY)
    assert all(np.isfinite(weight).all() for weight in here.get_weights())
    if pooling is Mean:
        assert logs["nonfinite_gradients"] == 1.0
        assert_unmoved(here, before)
    logs = training.fit(FULL, LABELS, verbose=0).history
    assert logs["nonfinite_gradients"] == [0.0]
    assert any(np.any(a != b) for a, b in zip(before, here.get_weights(), strict=True))


@pytest.mark.cases(1)
@pytest.mark.parametrize("policy", ["mixed_float16", slow("mixed_bfloat16")])
@pytest.mark.parametrize("name", others_slow(["FGM-0", "RDrop-17"], METHODS))
def test_an_empty_text_is_counted_in_mixed_precision(name, policy):
    set_policy(policy)
    try:
        here = model()
        logs, _ = fitted(here, METHODS[name], EMPTY)
    finally:
        set_policy("float32")
    assert all(np.isfinite(weight).all() for weight in here.get_weights())
    assert logs["nonfinite_gradients"] >= 1.0


def test_a_micro_batch_without_an_empty_text_is_learned_from():
    here = model()
    before = here.get_weights()
    logs, _ = fitted(here, FGM(0.5), EMPTY, micro_batches=3)
    assert logs["nonfinite_gradients"] == 1.0
    assert all(np.isfinite(weight).all() for weight in here.get_weights())
    assert any(np.any(a != b) for a, b in zip(before, here.get_weights(), strict=True))


@pytest.mark.both_kerases
@pytest.mark.parametrize("method", [FGM(0.5), slow(RandomNoise(0.5))])
def test_a_moving_average_stays_a_number(method):
    """The loss is not finite because of one text, and nothing tells of which."""
    here = model(layers.BatchNormalization())
    before = here.get_weights()
    logs, _ = fitted(here, method, EMPTY)
    assert logs["nonfinite_gradients"] == 3.0
    assert_unmoved(here, before)


@pytest.mark.slow
@pytest.mark.parametrize("micro_batches", [1, slow(3)])
def test_an_average_of_the_weights_stays_finite(micro_batches):
    """SMART's, which takes the moving averages of the model over."""
    average = layers.BatchNormalization()
    here = model(average)
    average.moving_variance.assign(tf.ones(3))  # a scrambled one may be below 0
    _, training = fitted(
        here, SMART(0.5, proximal=1.0), EMPTY, micro_batches=micro_batches
    )
    for weight in [*here.get_weights(), *training.average.get_weights()]:
        assert np.isfinite(weight).all()


class Root(layers.Layer):
    """Adds nothing, by a weight of 0 whose root has an infinite slope there."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape):
        self.scale = self.add_weight(name="scale", shape=(), initializer="zeros")

    def call(self, inputs):
        return inputs + tf.sqrt(tf.convert_to_tensor(self.scale))

    def compute_output_shape(self, input_shape):
        return input_shape


@pytest.mark.cases(1)
@pytest.mark.parametrize("where", ["behind the cut", slow("before it")])
@pytest.mark.parametrize("name", others_slow(["FGM-0", "RandomNoise-4"], METHODS))
def test_a_weight_without_a_derivative_stops_the_step(name, where):
    """Although the loss and the gradient of the activations are finite."""
    root = Root()
    here = model(root) if where == "behind the cut" else model(front=[root])
    root.scale.assign(0.0)
    before = here.get_weights()
    logs, _ = fitted(here, METHODS[name], FULL)
    assert logs["nonfinite_gradients"] == 3.0
    assert np.isfinite(logs["loss"])
    assert_unmoved(here, before)


@pytest.mark.slow
@pytest.mark.cases(1)
@pytest.mark.parametrize("name", others_slow(["FGM-0", "FreeAT-6"], METHODS))
def test_a_finite_moving_average_is_restored_where_nothing_is_learned(name):
    """It is before the cut, and all that it sees is finite."""
    root, average = Root(), layers.BatchNormalization()
    here = model(root, front=[average])
    average.moving_variance.assign(tf.ones(3))  # a scrambled one may be below 0
    root.scale.assign(0.0)
    before = here.get_weights()
    logs, training = fitted(here, METHODS[name], FULL)
    assert logs["nonfinite_gradients"] == 3.0
    assert_unmoved(here, before)
    root.scale.assign(1.0)
    unmoved = average.moving_mean.numpy()
    training.fit(FULL, LABELS, verbose=0)
    assert (average.moving_mean.numpy() != unmoved).all()
