"""Methods that a user writes, and what a method needs of schedules and optimizers."""

from dataclasses import dataclass

import adversarial_problems as problems
import numpy as np
import pytest
import tensorflow as tf
from adversarial_problems import FROM_LOGITS, assert_close, network
from generation import IS_LEGACY
from tensorflow import keras
from variants import slow

from tiedbert.adversarial import (
    FGM,
    PGD,
    VAT,
    AdversarialTraining,
    FreeAT,
    Method,
    Passes,
    StepResult,
)
from tiedbert.errors import InputError
from tiedbert.jobs.method_options import settings_of
from tiedbert.robustness import correct_under_attack

DATA = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
LABELS = np.array([0, 1, 2, 0])


# A subclass


@dataclass(frozen=True)
class Shrinking(PGD):
    """PGD whose perturbation is shrunk; another default, and a setting of its own."""

    epsilon: float = 0.5
    factor: float = 1.0

    def attack(self, gradient, ball):
        found = super().attack(gradient, ball)
        return found._replace(delta=[self.factor * delta for delta in found.delta])


class Plain(PGD):
    """Not a dataclass: its setting is no field."""

    def __init__(self, epsilon, word):
        super().__init__(epsilon)
        self.word = word


@dataclass(frozen=True)
class Simple(Method):
    """The loss at one step up its gradient, written from nothing."""

    epsilon: float = 0.5

    def passes(self, first_block=1.0):
        return Passes(1, ascending=1)

    def train(self, step):
        (gradient,) = step.gradient()
        norm = tf.norm(gradient, axis=-1, keepdims=True)
        delta = [tf.stop_gradient(self.epsilon * gradient / norm)]
        learned = step.learn_at(delta)
        return StepResult(learned.loss, learned.loss, tf.norm(delta[0], axis=-1))


def weights_after(method):
    model = network()
    logs = problems.trained(
        model, method, DATA, LABELS, learning_rate=0.1, loss=FROM_LOGITS
    )
    return model.get_weights(), logs


@pytest.mark.both_kerases
@pytest.mark.parametrize(
    ("own", "same"),
    [
        (Shrinking(), PGD(0.5)),
        (Plain(0.5, "hello"), PGD(0.5)),
        (Simple(), FGM(0.5, clean=False)),
    ],
    ids=["subclass", "no dataclass", "from nothing"],
)
def test_a_users_method_trains_as_what_it_is(own, same):
    found, logs = weights_after(own)
    expected, expected_logs = weights_after(same)
    assert_close(found, expected)
    assert logs == pytest.approx(expected_logs, rel=1e-5)
    assert own.passes() == same.passes()


def test_a_setting_of_a_subclass_counts():
    _, logs = weights_after(Shrinking(factor=0.5))
    assert logs["delta_norm"] == pytest.approx(0.25, rel=1e-5)
    assert settings_of(Shrinking(factor=0.5))["factor"] == 0.5


def test_a_users_attack_attacks():
    model = network()
    model.compile(loss=FROM_LOGITS)
    data = tf.data.Dataset.from_tensor_slices((DATA, LABELS)).batch(2)
    radii = [0.0, 0.5, 2.0, 8.0]
    found, expected = (
        correct_under_attack(model, data, "hidden", method, radii)
        for method in (Shrinking(), PGD())
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("values", [{"epsilon": -1.0}, {"steps": 0}, {"norm": "l3"}])
def test_a_subclass_keeps_the_rules_of_what_it_inherits(values):
    ((name, value),) = values.items()
    with pytest.raises(InputError, match=f"Shrinking expected {name}: .*{value}"):
        Shrinking(**values)


class Empty(Method):
    pass


class Odd(Method):
    def train(self, step):
        return step.learn_at(None).loss


def test_errors_name_what_a_method_does_not_implement():
    with pytest.raises(InputError, match=r"Empty does not say what a step costs.*pas"):
        Empty().passes()
    with pytest.raises(InputError, match=r"Empty does not say how to train.*train\("):
        weights_after(Empty())
    with pytest.raises(InputError, match=r"Odd\.train: expected a tied.*StepResult"):
        weights_after(Odd())


# Schedules that cannot be traced


def branch(step):
    return 0.0 if step < 2 else 0.5


REFUSED_SCHEDULES = {
    "if": branch,
    "min": lambda step: min(0.1 * tf.cast(step, tf.float32), 0.5),
    "float": lambda step: 0.1 * float(tf.cast(step, tf.float32)),
    "numpy": lambda step: np.minimum(tf.cast(step, tf.float32), 0.5),
    "index": lambda step: [0.0, 0.1, 0.2][tf.cast(step, tf.int32)],
    "value": lambda step: tf.convert_to_tensor(step).numpy() * 0.1,
}


def after_three_steps(method, **options):
    """The norm of the perturbation in the fourth step."""
    training = AdversarialTraining(network(), method, "hidden")
    training.compile(keras.optimizers.SGD(0.0), FROM_LOGITS, **options)
    data = tf.data.Dataset.from_tensors((DATA, LABELS))
    training.fit(data.repeat(3), shuffle=False, verbose=0)
    return training.fit(data, shuffle=False, verbose=0).history["delta_norm"][0]


@pytest.mark.parametrize(
    "name", ["if", *(slow(name) for name in REFUSED_SCHEDULES if name != "if")]
)
@pytest.mark.parametrize("kind", [FGM, slow(VAT)])
def test_a_schedule_in_plain_python_is_refused_in_words(name, kind):
    with pytest.raises(InputError, match=r"tf\.where or tf\.cond") as error:
        after_three_steps(kind(REFUSED_SCHEDULES[name]))
    assert "\n" not in str(error.value)


def test_a_schedule_may_branch_in_a_graph_or_run_eagerly():
    where = FGM(lambda step: tf.where(step < 2, 0.0, 0.5))
    assert after_three_steps(where) == pytest.approx(0.5, rel=1e-5)
    eager = after_three_steps(FGM(branch), run_eagerly=True)
    assert eager == pytest.approx(0.5, rel=1e-5)


# An optimizer that accumulates gradients


@pytest.mark.skipif(IS_LEGACY, reason="Keras 3 alone has it")
@pytest.mark.parametrize("scaled", [False, True])
def test_steps_within_a_batch_need_an_optimizer_that_takes_them(scaled):
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    training = AdversarialTraining(network(), FreeAT(replays=2), "hidden")
    with pytest.raises(InputError, match="FreeAT takes 2 .*gradient_accumulation_step"):
        training.compile(optimizer, FROM_LOGITS)


@pytest.mark.cases(1)
@pytest.mark.skipif(IS_LEGACY, reason="Keras 3 alone has it")
@pytest.mark.parametrize("method", [FreeAT(replays=1), FGM()])
def test_one_step_in_several_batches_is_that_of_their_mean(method):
    model, whole = network(), network()
    for each, size in (model, 1), (whole, 2):
        steps = 2 if each is model else None
        training = AdversarialTraining(each, method, "hidden")
        optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=steps)
        training.compile(optimizer, FROM_LOGITS)
        data = tf.data.Dataset.from_tensor_slices((DATA[:2], LABELS[:2])).batch(size)
        training.fit(data, shuffle=False, verbose=0)
    assert_close(model.get_weights(), whole.get_weights())
