"""Each run of pytest has one Keras: see `make test`, which runs it once for each."""

import pytest
import tensorflow as tf
from generation import ALIKE_TEST_FILES, IS_LEGACY, LEGACY_TEST_FILES, NAME
from tensorflow import keras

# One processor stands for two devices wherever a test asks for them; before TensorFlow
# looks at it for the first time.
DEVICES = ["CPU:0", "CPU:1"]
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration() for _ in DEVICES],
)

collect_ignore_glob = [] if IS_LEGACY else LEGACY_TEST_FILES


def pytest_report_header():
    return f"{NAME}, TensorFlow {tf.__version__}"


def pytest_collection_modifyitems(items):
    if IS_LEGACY:
        for item in items:
            if any(item.path.match(pattern) for pattern in ALIKE_TEST_FILES):
                item.add_marker(pytest.mark.slow)
        return
    skip = pytest.mark.skip(reason="needs bert4keras: set TF_USE_LEGACY_KERAS=1")
    for item in items:
        if "legacy_keras" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def mirrored():
    """A strategy with two replicas; a second one would reuse the keys of the first."""
    return tf.distribute.MirroredStrategy(DEVICES)
