"""Methods from a command line, and their costs against passes that were counted."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras
from variants import slow

from tiedbert import adversarial
from tiedbert.adversarial import PGD, YOPO, AdversarialTraining, Method, Passes
from tiedbert.errors import InputError
from tiedbert.jobs.method_options import METHODS, method_of, pairs, settings_of

layers = keras.layers


def test_every_method_has_a_name():
    public = {getattr(adversarial, name) for name in adversarial.__all__}
    known = {m for m in public if hasattr(m, "train")} - {AdversarialTraining, Method}
    assert {getattr(adversarial, name) for name in METHODS.values()} == known


def test_options_are_read_as_the_types_of_the_fields():
    written = {"epsilon": "2", "steps": "5", "step_size": "0.5", "clean": "true"}
    method = method_of("pgd", {**written, "norm": "linf"})
    assert method == PGD(2.0, steps=5, step_size=0.5, clean=True, norm="linf")
    assert isinstance(method.epsilon, float)
    assert method_of("pgd", {"step_size": "none", "clean": "false"}) == PGD()
    assert method_of("yopo", {"until": "block"}) == YOPO(until="block")
    assert method_of("pgd", {"epsilon": 0.5}) == PGD(0.5)


@pytest.mark.parametrize("name", METHODS)
def test_the_settings_of_a_method_make_it_again(name):
    method = method_of(name, {})
    settings = settings_of(method)
    assert method_of(name, settings) == method
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in settings.items()}
    texts = {k: "none" if text == "null" else text for k, text in texts.items()}
    assert method_of(name, texts) == method
    assert "divergence" not in settings  # a function is for programs


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("gan", {}, "no method 'gan': choose from fgm, pgd, "),
        ("pgd", {"stps": "3"}, "pgd has no option 'stps': it has epsilon, steps, "),
        ("rdrop", {"epsilon": "1"}, "rdrop has no option 'epsilon': it has weight$"),
        ("vat", {"divergence": "kl"}, "vat has no option 'divergence': it has"),
        ("pgd", {"steps": "2.5"}, "pgd expected steps=int, received '2.5'"),
        ("pgd", {"steps": "none"}, "pgd expected steps=int, received 'none'"),
        ("pgd", {"clean": "1"}, "pgd expected clean=true or false, received '1'"),
        ("pgd", {"step_size": "x"}, "pgd expected step_size=float, received 'x'"),
        ("pgd", {"steps": "0"}, "PGD expected steps: .*received 0"),
        ("fgm", {"norm": "l3"}, "FGM expected norm: .*received 'l3'"),
    ],
)
def test_what_a_method_does_not_take_is_refused_in_a_line(name, values, message):
    with pytest.raises(InputError, match=message) as error:
        method_of(name, values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["steps"], "expected option=value, received 'steps'"),
        (["=3"], "expected option=value"),
        (["steps="], "expected option=value"),
        (["steps=3", "steps=4"], "option 'steps' is given twice"),
    ],
)
def test_options_are_pairs(texts, message):
    with pytest.raises(InputError, match=message):
        pairs(texts)


def test_a_value_may_hold_an_equals_sign():
    assert pairs(["until=a=b"]) == {"until": "a=b"}


# Costs.


COUNTS = {}  # of all layers of a name


class Count(layers.Layer):
    """``x * w`` that counts how often itself and its two gradients are computed."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # A clone of the model counts with it.
        zeros = {"forward": 0, "to activations": 0, "to weights": 0}
        COUNTS.setdefault(self.name, zeros)

    def build(self, input_shape):
        self.scale = self.add_weight(name="scale", shape=(), initializer="ones")

    def call(self, inputs):
        @tf.custom_gradient
        def product(x, w):
            def gradient(dy):
                dx = self._count("to activations", dy * w)
                return dx, self._count("to weights", tf.reduce_sum(dy * x))

            return self._count("forward", x * w), gradient

        return product(inputs, tf.convert_to_tensor(self.scale))

    def _count(self, name, value):
        def counted(array):
            COUNTS[self.name][name] += 1
            return array

        # Stateless: it runs only where its result is needed.
        result = tf.numpy_function(counted, [value], value.dtype, stateful=False)
        return tf.ensure_shape(result, value.shape)


PARTS = "front", "first", "rest"


DATA = np.ones((4, 2), np.float32), np.array([0, 1, 0, 1])


def counting(method):
    """A training whose model counts: see :func:`units`."""
    COUNTS.clear()
    front, first, rest = (Count(name=name) for name in PARTS)
    x = keras.Input((2,))
    h = front(layers.Dense(2)(x))
    h = layers.Dense(3, activation="tanh", name="hidden")(h)
    # Without dropout some passes would be the same, and be made once.
    h = layers.Dense(3, activation="tanh", name="block")(first(layers.Dropout(0.1)(h)))
    h = layers.Dense(3, activation="tanh")(rest(h))
    model = keras.Model(x, layers.Dense(2)(h))
    training = model
    if method is not None:
        training = AdversarialTraining(model, method, "hidden")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    training.compile("sgd", loss)
    return training


def units(run):
    """Units of work in a call: before the cut, in the first block behind, and after."""
    run(*DATA)
    before = [sum(COUNTS[name].values()) for name in PARTS]
    run(*DATA)
    after = [sum(COUNTS[name].values()) for name in PARTS]
    return [now - then for now, then in zip(after, before, strict=True)]


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("name", "values"),
    [
        (None, {}),
        ("fgm", {}),
        slow("fgm", {"clean": False}),
        slow("pgd", {}),
        ("pgd", {"steps": 2, "clean": True}),
        slow("pgd", {"random_start": True, "clean": True}),
        ("random_noise", {}),
        slow("random_noise", {"clean": True}),
        ("freeat", {"replays": 2}),
        ("freelb", {"steps": 2, "clean": True}),
        ("vat", {"steps": 2}),
        slow("smart", {}),
        ("smart", {"proximal": 1.0}),
        slow("alum", {"steps": 2}),
        slow("r3f", {}),
        ("rdrop", {}),
    ],
)
def test_the_cost_is_the_work_that_was_counted(name, values):
    method = None if name is None else method_of(name, values)
    training = counting(method)
    front, _, rest = units(training.train_on_batch)
    work = Passes(1) if method is None else method.passes()
    assert rest == pytest.approx(3 * work.cost)
    # FreeAT takes an optimizer step in each replay; SMART's average is a whole model.
    average = name == "smart" and bool(values)
    assert front == 3 * (method.replays if name == "freeat" else 1) + average
    assert units(training.test_on_batch) == [1, 1, 1]


@pytest.mark.cases(1)
@pytest.mark.parametrize("values", [{}, {"outer": 2, "inner": 1}])
def test_yopo_pays_its_inner_steps_in_the_first_block(values):
    method = method_of("yopo", {**values, "until": "block"})
    front, first, rest = units(counting(method).train_on_batch)
    assert front == 3
    assert rest == 3 * method.passes(first_block=0.0).cost
    assert first == pytest.approx(3 * method.passes(first_block=1.0).cost)
