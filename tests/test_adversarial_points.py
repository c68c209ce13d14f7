"""Where adversarial training perturbs: one point, several, or one of several."""

import models
import numpy as np
import pytest
import tensorflow as tf
from adversarial_problems import scrambled
from tensorflow import keras
from variants import slow

from tiedbert.adversarial import FGM, PGD, AdversarialTraining, OneOf
from tiedbert.adversarial.cut_model import CutModel
from tiedbert.adversarial.method import Method
from tiedbert.adversarial.results import StepResult
from tiedbert.errors import InputError
from tiedbert.surgery import inject

layers = keras.layers

EPSILON = 0.3


def chain_of(names, width=3, name=None):
    x = h = keras.Input((width,))
    for layer in names:
        h = layers.Dense(width, activation="tanh", name=layer)(h)
    return keras.Model(x, h, name=name)


def nested():
    """A model in a model in a model."""
    x = keras.Input((3,), name="x")
    deep = chain_of(["one", "two", "three"], name="deep")
    a = keras.Input((3,))
    h = deep(layers.Dense(3, name="before")(a))
    middle = keras.Model(a, layers.Dense(3, name="after")(h), name="middle")
    h = middle(layers.Dense(3, name="first")(x))
    return keras.Model(x, layers.Dense(2, name="last")(h))


def parallel():
    """Points of which some depend on each other and some do not."""
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    a = layers.Dense(3, activation="tanh", name="a")(left)
    b = layers.Dense(3, activation="tanh", name="b")(a)
    c = layers.Dense(3, activation="tanh", name="c")(right)
    return keras.Model([left, right], layers.Dense(2)(layers.Add(name="sum")([b, c])))


def repeated():
    x = h = keras.Input((3,), name="x")
    layer = layers.Dense(3, activation="tanh", name="block")
    for _ in range(4):
        h = layer(h)
    return keras.Model(x, layers.Dense(2)(h))


def cells():
    """A layer of several outputs, called twice."""
    x = keras.Input((3,), name="x")
    rnn = layers.SimpleRNN(3, return_sequences=True, return_state=True, name="rnn")
    sequence, first = rnn(layers.RepeatVector(2, name="repeat")(x))
    _, second = rnn(sequence)
    h = layers.Add(name="sum")([first, second])
    return keras.Model(x, layers.Dense(2, name="last")(h))


CASES = [
    (models.chain, ["middle"]),
    (models.chain, ["first", "middle"]),
    (models.chain, ["middle", "first"]),
    (models.chain, ["last", "x", "first"]),
    (parallel, ["a", "c"]),
    (parallel, ["a", "b", "c"]),
    (parallel, ["sum", "c", "a"]),
    (nested, ["middle/deep/two"]),
    (nested, ["first", "middle/deep/two"]),
    (nested, ["middle/deep/one", "middle/deep/two", "middle/deep/three"]),
    (nested, ["last", "middle/after", "middle/deep/two", "middle/before", "first"]),
    (repeated, ["block:0", "block:1", "block:3"]),
    (repeated, ["block:2", "block:0"]),
    (models.shared, ["dense:0", "dense:1", "dense:2"]),
    (models.shared, ["dense:2", "sum"]),
    (cells, ["rnn:1#1", "rnn:0#1"]),
    (cells, ["last#0", "rnn:1#1", "sum:0"]),
]


def by_hand(model, at, x, y):
    """The weights after a step at rate 1 on the perturbed loss, and that loss."""
    injected = inject(model, at)
    flat = tf.nest.flatten(x)
    zeros = [tf.zeros((3, *t.shape[1:])) for t in injected.inputs[len(flat) :]]

    def loss(deltas):
        return tf.reduce_mean(tf.square(injected([*flat, *deltas]) - y))

    with tf.GradientTape() as tape:
        tape.watch(zeros)
        value = loss(zeros)
    gradients = tape.gradient(value, zeros)
    norms = [tf.norm(g, axis=1, keepdims=True) for g in gradients]
    deltas = [EPSILON * g / n for g, n in zip(gradients, norms, strict=True)]
    weights = model.trainable_variables
    with tf.GradientTape() as tape:
        value = loss(deltas)
    gradients = tape.gradient(value, weights)
    steps = zip(weights, gradients, strict=True)
    return [np.asarray(tf.convert_to_tensor(w) - g) for w, g in steps], float(value)


@pytest.mark.cases(6)
@pytest.mark.parametrize("run_eagerly", [True, slow(False)])
@pytest.mark.parametrize(("build", "at"), CASES)
def test_a_step_is_that_by_hand_with_a_perturbation_per_point(build, at, run_eagerly):
    model = scrambled(build(), 0.7, seed=1)
    x, y = models.batch(model), tf.ones([3, 2])
    if build is models.shared or build is parallel:
        x = list(x)
    expected, loss = by_hand(model, at, x, y)
    training = AdversarialTraining(model, FGM(EPSILON, clean=False), at)
    options = {"run_eagerly": run_eagerly, "jit_compile": False}
    training.compile(keras.optimizers.SGD(1.0), "mse", **options)
    logs = training.train_on_batch(x, y, return_dict=True)
    assert logs["adversarial_loss"] == pytest.approx(loss, rel=1e-5)
    for ours, theirs in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("in_a_list", [False, True])
def test_a_point_may_be_a_symbolic_tensor(in_a_list):
    losses = []
    for named in (False, True):
        model = scrambled(nested(), 0.7, seed=1)
        deep = model.get_layer("middle").get_layer("deep")
        at = "middle/deep/two" if named else deep.get_layer("two").output
        training = AdversarialTraining(model, FGM(), [at] if in_a_list else at)
        training.compile("sgd", "mse", run_eagerly=True)
        losses.append(training.train_on_batch(models.batch(model), tf.ones([3, 2])))
    assert losses[0] == losses[1]


# One of several points


class Watch(Method):
    """A method that records the norms of its perturbations; the rate is 0."""

    norm, relative = "l2", False

    def __init__(self, epsilon=EPSILON):
        self.epsilon, self.seen = epsilon, []

    def train(self, step):
        ball = step.ball(self)
        learned = step.learn_at(None)
        delta = ball.step(None, learned.gradient).delta
        self.seen.append([np.linalg.norm(d, axis=-1) for d in delta])
        return StepResult(learned.loss, learned.loss, ball.size(delta))


def watched(model, at, x, y, steps=1, **options):
    watch = Watch()
    training = AdversarialTraining(model, watch, at, **options)
    training.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    for _ in range(steps):
        training.train_on_batch(x, y)
    return watch.seen


def test_choices_of_the_same_points_are_equal():
    at = OneOf("first", "last")
    assert at == OneOf("first", "last")
    assert at != OneOf("last", "first")
    assert at != at.points
    assert {at: 1}[OneOf("first", "last")] == 1
    assert repr(at) == "OneOf(points=('first', 'last'))"
    with pytest.raises(AttributeError):
        at.points = ("first",)


@pytest.mark.slow
def test_one_of_several_points_is_perturbed_in_each_step():
    runs = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        model = models.chain()
        at = OneOf("last", "first", "middle")
        x, y = models.batch(model), tf.ones([3, 2])
        seen = np.array(watched(model, at, x, y, steps=12))
        assert seen.shape == (12, 3, 3)  # steps, points, examples
        np.testing.assert_allclose(seen.max(axis=1), EPSILON, rtol=1e-5)
        assert np.all(np.sum(seen > 0, axis=1) == 1)
        which = seen[:, :, 0].argmax(axis=1)
        assert set(which) == {0, 1, 2}
        runs.append(list(which))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


@pytest.mark.cases(1)
@pytest.mark.parametrize("method", [FGM(EPSILON), PGD(EPSILON, steps=2)])
def test_the_norm_with_one_of_several_points_is_that_of_the_one(method):
    model = models.chain()
    training = AdversarialTraining(model, method, OneOf("first", "middle"))
    training.compile("sgd", "mse", jit_compile=False)
    x, y = models.batch(model), tf.ones([3, 2])
    history = training.fit(x, y, epochs=3, verbose=0).history
    np.testing.assert_allclose(history["delta_norm"], EPSILON, rtol=1e-5)


# Text


def bert_like():
    """A model with the names, the mask and the float token ids of bert4keras."""
    tokens = keras.Input((None,), name="Input-Token")
    h = layers.Embedding(9, 4, mask_zero=True, name="Embedding-Token")(tokens)
    h = layers.LayerNormalization(name="Embedding-Norm")(h)
    pooled = layers.GlobalAveragePooling1D(name="pooled")(h)
    pooled = layers.Dense(4, activation="tanh", name="dense")(pooled)
    return keras.Model(tokens, layers.Dense(2)(pooled))


TOKENS = np.array([[2, 7, 5, 3], [2, 8, 3, 0], [2, 3, 0, 0]], np.float32)
ORDINARY = [[0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


@pytest.mark.both_kerases
def test_by_default_the_ordinary_tokens_of_a_bert_move():
    (((seen),),) = watched(bert_like(), None, TOKENS, np.ones([3, 2]))
    np.testing.assert_array_equal(seen > 0, ORDINARY)


def test_a_pooled_state_moves_as_a_whole_even_where_no_token_may():
    ((tokens, pooled),) = watched(
        bert_like(), ["Embedding-Norm", "dense"], TOKENS, np.ones([3, 2])
    )
    np.testing.assert_array_equal(tokens > 0, ORDINARY)
    np.testing.assert_allclose(pooled, [EPSILON] * 3, rtol=1e-5)


def test_a_perturbation_mask_may_be_given():
    (((seen),),) = watched(
        bert_like(),
        None,
        TOKENS,
        np.ones([3, 2]),
        perturbation_mask=lambda inputs: tf.cast(inputs, tf.int32) == 3,
    )
    np.testing.assert_array_equal(seen > 0, TOKENS == 3)


# Errors


@pytest.mark.parametrize(
    ("build", "at", "message"),
    [
        (models.chain, None, 'has no layer "Embedding-Norm".*say at= which'),
        (models.chain, "midle", 'no layer "midle".*"middle"'),
        (models.chain, [], "at least one cut point"),
        (models.chain, OneOf, "received type"),
        (models.chain, ["first", "midle"], 'no layer "midle".*"middle"'),
        (models.chain, ["first", "first"], "name a tensor twice"),
        (models.chain, ["first", "first:0"], "name a tensor twice"),
        (models.shared, ["dense", "sum"], 'called 3 times.*"dense:0"'),
        (models.dictionaries, "tokens", "needs float activations.*'tokens'.*int32"),
        (models.dictionaries, ["side", "tokens"], "needs float activations"),
        (bert_like, "Input-Token", "holds ids: cut after an embedding"),
        (models.states, "states", "gives 2 tensors"),
        (nested, "middle/deep/four", 'no layer "four"'),
    ],
)
def test_errors_tell_what_to_do(build, at, message):
    with pytest.raises(InputError, match=message):
        AdversarialTraining(build(), FGM(), at)


def test_several_tensors_are_refused():
    model = models.chain()
    at = [model.get_layer(name).output for name in ("first", "middle")]
    with pytest.raises(InputError, match="given by name, not as tensors"):
        AdversarialTraining(model, FGM(), at)


def test_calls_in_a_nested_model_need_names_of_their_own():
    x = keras.Input((3,))
    inner = repeated()
    model = keras.Model(x, layers.Dense(1)(inner(x)))
    name = inner.name
    CutModel(model, f"{name}/block:2")
    with pytest.raises(InputError, match="give it a name of its own"):
        CutModel(model, [f"{name}/block:1", f"{name}/block:2"])
