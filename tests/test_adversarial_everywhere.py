"""Each method gives the same compiled, on two devices, and in half precision."""

import adversarial_problems as problems
import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from tiedbert.adversarial import AdversarialTraining

pytestmark = pytest.mark.slow
METHODS = problems.methods()
every_method = pytest.mark.parametrize("name", METHODS)
DRAW = np.random.default_rng(0)
X, Y = DRAW.normal(size=(4, 3)).astype("float32"), np.array([0, 2, 1, 1])


@pytest.fixture(autouse=True)
def _noise(monkeypatch):
    """The same for every row: a device has some of them."""
    one = np.broadcast_to(problems.NOISE[:1, :1], problems.NOISE.shape)
    monkeypatch.setattr(problems, "NOISE", one)
    problems.fix_noise(monkeypatch)


def fit(name, model, micro_batches=1, **options):
    """The weights and the logs of two steps."""
    training = AdversarialTraining(
        model, METHODS[name], "hidden", micro_batches=micro_batches
    )
    training.compile(keras.optimizers.SGD(0.1), problems.FROM_LOGITS, **options)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    history = training.fit(data, epochs=2, shuffle=False, verbose=0).history
    return model.get_weights(), history


def assert_alike(found, expected, rtol):
    problems.assert_close(found[0], expected[0], rtol, atol=rtol)
    assert found[1].keys() == expected[1].keys()
    for log, values in expected[1].items():
        np.testing.assert_allclose(found[1][log], values, rtol, atol=rtol, err_msg=log)


@every_method
def test_compiled_it_gives_the_same(name):
    expected = fit(name, problems.network(), run_eagerly=True)
    assert_alike(fit(name, problems.network(), jit_compile=True), expected, 1e-4)


def test_micro_batches_compiled_give_the_same():
    expected = fit("FGM-0", problems.network(), run_eagerly=True)
    found = fit("FGM-0", problems.network(), micro_batches=2, jit_compile=True)
    assert_alike(found, expected, 1e-4)


@every_method
def test_two_devices_train_as_one(name, mirrored):
    expected = fit(name, problems.network(), jit_compile=False)
    with mirrored.scope():
        model = problems.network()
        found = fit(name, model, jit_compile=False)
    assert_alike(found, expected, 1e-4)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@every_method
def test_half_precision_gives_nearly_the_same(name, policy):
    expected = fit(name, problems.network(), run_eagerly=True)
    problems.set_policy(policy)
    try:
        found = fit(name, problems.network(), run_eagerly=True)
    finally:
        problems.set_policy("float32")
    assert found[1]["nonfinite_gradients"] == [0.0, 0.0]
    assert_alike(found, expected, 0.05)
