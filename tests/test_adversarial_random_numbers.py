"""Dropout in the passes of a step: different, or the same in all of them."""

import numpy as np
import pytest
import tensorflow as tf
from generation import IS_LEGACY
from tensorflow import keras
from variants import slow

from tiedbert.adversarial import FGM, AdversarialTraining, FreeAT, FreeLB, RDrop
from tiedbert.adversarial.method import Method
from tiedbert.adversarial.results import StepResult
from tiedbert.adversarial.seeded_function import SeededFunction
from tiedbert.errors import InputError

layers = keras.layers
random = tf.random


class Draws(layers.Layer):
    """What `function` makes of the inputs, in training."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, inputs, training=None):
        return self.function(inputs) if training else tf.identity(inputs)

    def compute_output_shape(self, input_shape):
        return input_shape


def of(layer, shape=(6, 8)):
    x = keras.Input(shape)
    return keras.Model([x], [layer(x)])


def attention():
    x = keras.Input((6, 8))
    return keras.Model([x], [layers.MultiHeadAttention(2, 4, dropout=0.5)(x, x)])


def own(function):
    return lambda: of(Draws(function))


def generator():
    made = random.Generator.from_seed(1)
    return of(Draws(lambda x: x + made.normal(tf.shape(x))))


RANDOM = {
    "Dropout": lambda: of(layers.Dropout(0.5)),
    "seed": lambda: of(layers.Dropout(0.5, seed=3)),
    "SpatialDropout1D": lambda: of(layers.SpatialDropout1D(0.5)),
    "GaussianNoise": lambda: of(layers.GaussianNoise(1.0)),
    "GaussianDropout": lambda: of(layers.GaussianDropout(0.5)),
    "AlphaDropout": lambda: of(layers.AlphaDropout(0.5)),
    "attention": attention,
    "unrolled": lambda: of(
        layers.LSTM(3, dropout=0.5, recurrent_dropout=0.5, unroll=True)
    ),
    "nested": lambda: of(keras.Sequential([keras.Input((6, 8)), layers.Dropout(0.5)])),
    "tf.nn": own(lambda x: tf.nn.dropout(x, 0.5)),
    "normal": own(lambda x: x + random.normal(tf.shape(x))),
    "truncated": own(lambda x: x + random.truncated_normal(tf.shape(x))),
    "stateless": own(lambda x: x + random.stateless_normal(tf.shape(x), [1, 2])),
    "integers": own(
        lambda x: x + tf.cast(random.uniform(tf.shape(x), 0, 9, tf.int32), x.dtype)
    ),
    "generator": generator,
}


def outputs_of(part, x, seed):
    called = part([x], tf.constant(seed))
    return np.asarray(tf.nest.flatten(called.outputs)[0])


@pytest.mark.both_kerases
@pytest.mark.parametrize("name", RANDOM)
def test_one_seed_gives_one_sample(name):
    part = SeededFunction(RANDOM[name](), seeded=True)
    x = tf.random.normal([3, 6, 8])
    one, same, other = (outputs_of(part, x, seed) for seed in ([1, 2], [1, 2], [3, 4]))
    np.testing.assert_array_equal(one, same)
    assert np.any(one != other)
    assert np.all(np.isfinite(one))


def looped(function):
    def draw(x):
        return tf.map_fn(function, x)

    return own(draw)


@tf.function
def in_a_function(x):
    return tf.nn.dropout(x, 0.5)


UNKNOWN = {
    "function": own(in_a_function),
    "loop": looped(lambda row: tf.nn.dropout(row, 0.5)),
    "shuffle": own(tf.random.shuffle),
    "gamma": own(lambda x: x + random.gamma([], tf.exp(x))),
}
if IS_LEGACY:  # Keras 3 draws before the loop.
    UNKNOWN["LSTM"] = lambda: of(layers.LSTM(3, recurrent_dropout=0.5))


@pytest.mark.both_kerases
@pytest.mark.parametrize("name", UNKNOWN)
def test_what_cannot_follow_a_seed_is_an_error_that_says_so(name):
    model = UNKNOWN[name]()
    x = tf.random.normal([3, 6, 8])
    with pytest.raises(InputError, match=rf"in model '{model.name}' cannot be seeded"):
        SeededFunction(model, seeded=True)([x], tf.constant([1, 2]))
    SeededFunction(model)([x], tf.constant([1, 2]))


def test_that_error_reaches_the_user_as_it_is():
    x = keras.Input((6, 8))
    h = Draws(in_a_function)(layers.Activation("linear", name="hidden")(x))
    training = AdversarialTraining(keras.Model(x, h), FreeLB(), "hidden")
    training.compile("sgd", "mse")
    with pytest.raises(InputError, match="without same_dropout=True"):
        training.fit(np.ones([2, 6, 8]), np.ones([2, 6, 8]), verbose=0)


def test_layers_have_samples_of_their_own_at_their_rates():
    x = keras.Input((100,))
    rates = [0.1, 0.5, 0.5, 0.5]
    twice = layers.Dropout(0.5)
    outputs = [layers.Dropout(0.1)(x), layers.Dropout(0.5, seed=7)(x)]
    model = keras.Model([x], [*outputs, twice(x), twice(x)])
    part = SeededFunction(model, seeded=True)
    found = part([tf.ones([200, 100])], tf.constant([5, 6])).outputs
    more = part([tf.ones([200, 100])], tf.constant([5, 7])).outputs
    samples = np.array([np.ravel(values) for values in [*found, *more]])
    for values, rate in zip(samples, rates * 2, strict=True):
        dropped = np.mean(values == 0)
        assert abs(dropped - rate) < 4 * np.sqrt(rate * (1 - rate) / values.size)
        np.testing.assert_allclose(values.max(), 1 / (1 - rate), rtol=1e-6)
    correlations = np.corrcoef(samples == 0) - np.eye(len(samples))
    assert np.max(np.abs(correlations)) < 4 / np.sqrt(samples.shape[1])


def test_the_gradient_passes_where_the_outputs_did():
    part = SeededFunction(of(layers.Dropout(0.5)), seeded=True)
    x = tf.ones([3, 6, 8])
    with tf.GradientTape() as tape:
        tape.watch(x)
        (values,) = tf.nest.flatten(part([x], tf.constant([1, 2])).outputs)
    np.testing.assert_array_equal(tape.gradient(values, x), values)


# In training


def with_dropout():
    x = keras.Input((4,))
    h = layers.Dropout(0.5)(layers.Dense(20, name="first")(x))
    h = layers.Dense(20, activation="tanh", name="hidden")(h)
    h = layers.Dropout(0.5)(h)
    return keras.Model(x, layers.Dense(1)(layers.Dropout(0.2)(h)))


X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
Y = np.ones([6, 1], np.float32)


class Watch(Method):
    """Three passes in each step, whose outputs are recorded; the rate is 0."""

    def __init__(self):
        self.seen = []

    def train(self, step):
        self.seen.append([np.asarray(step.run().outputs) for _ in range(3)])
        loss = step.learn_at(None).loss
        return StepResult(loss, loss)


def fit(method, model=None, rate=0.0, **options):
    model = with_dropout() if model is None else model
    compile_options = options.pop("compile", {})
    training = AdversarialTraining(model, method, "hidden", **options)
    training.compile(keras.optimizers.SGD(rate), "mse", **compile_options)
    history = training.fit(X, Y, batch_size=6, epochs=2, verbose=0).history
    return model, history


@pytest.mark.parametrize("same", [True, False])
def test_passes_share_their_dropout_on_request(same):
    watch = Watch()
    fit(watch, same_dropout=same, compile={"run_eagerly": True})
    (one, two, three), (later, *_) = watch.seen
    assert np.all(one == two) == same
    assert np.all(one == three) == same
    assert np.any(two != three) or same
    assert np.any(one != later)


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("method", "options", "same"),
    [
        (FreeLB(0.0, clean=True), {}, True),
        slow(FGM(0.0), {"same_dropout": True}, True),
        (FGM(0.0), {"same_dropout": True, "compile": {"jit_compile": True}}, True),
        (FGM(0.0), {}, False),
        slow(FGM(0.0), {"same_dropout": False}, False),
        slow(FGM(0.0), {"compile": {"jit_compile": True}}, False),
    ],
    ids=["FreeLB", "same", "same-jit", "default", "not", "not-jit"],
)
def test_a_step_in_a_graph_shares_it_too(method, options, same):
    _, logs = fit(method, **options)
    clean, adversarial = logs["clean_loss"], logs["adversarial_loss"]
    assert (clean == adversarial) == same
    assert clean[0] != clean[1]


@pytest.mark.parametrize("same", [True, False])
def test_the_replays_of_a_batch_share_it_too(same):
    _, logs = fit(
        FreeAT(0.0, replays=2), same_dropout=same, compile={"run_eagerly": True}
    )
    clean, later = logs["clean_loss"], logs["adversarial_loss"]
    assert (clean == later) == same


@pytest.mark.parametrize(
    ("method", "asked", "needed"), [(RDrop(), True, False), (FreeLB(), False, True)]
)
def test_what_a_method_is_defined_by_cannot_be_changed(method, asked, needed):
    message = f"{type(method).__name__} is defined with same_dropout={needed}, "
    message += f"received {asked}; leave"
    with pytest.raises(InputError, match=message):
        AdversarialTraining(with_dropout(), method, "hidden", same_dropout=asked)


@pytest.mark.slow
@pytest.mark.parametrize("same", [True, slow(False)])
def test_the_global_seed_reproduces_a_training(same):
    runs = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        runs.append(fit(FGM(0.1), rate=0.1, same_dropout=same)[0].get_weights())
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.both_kerases
def test_the_model_itself_draws_as_before():
    model = with_dropout()
    config = model.get_config()
    states = [np.array(v.numpy()) for v in model.non_trainable_variables]
    fit(FreeLB(), model, compile={"run_eagerly": True})
    assert model.get_config() == config
    one, other = (model(X, training=True) for _ in range(2))
    assert np.any(one != other)
    assert len(states) == (0 if IS_LEGACY else 3)
    for state, variable in zip(states, model.non_trainable_variables, strict=True):
        assert np.any(state != variable.numpy()), "the generators of Keras 3 go on"
