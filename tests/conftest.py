"""Each run of pytest has one Keras: see `make test`, which runs it once for each.

Only a process that runs tests imports TensorFlow. With `pytest -n` the first process
hands the tests to others, which start the sooner.
"""

import collections
import importlib.metadata

import pytest
from generation import ALIKE_TEST_FILES, IS_LEGACY, LEGACY_TEST_FILES, NAME

# One processor stands for two devices wherever a test asks for them.
DEVICES = ["CPU:0", "CPU:1"]

# How many cases of a test run under Keras 2: the first, the last, and between them.
CASES = 3

collect_ignore_glob = [] if IS_LEGACY else LEGACY_TEST_FILES


def pytest_configure(config):
    is_worker = hasattr(config, "workerinput")
    if is_worker or not config.getoption("numprocesses", None):
        make_devices()


def make_devices():
    """Before TensorFlow looks at the processor for the first time."""
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration() for _ in DEVICES],
    )


def pytest_report_header():
    return f"{NAME}, TensorFlow {importlib.metadata.version('tensorflow')}"


def pytest_collection_modifyitems(items):
    if IS_LEGACY:
        for item in left_to_keras_3(items):
            item.add_marker(pytest.mark.slow)
        return
    skip = pytest.mark.skip(reason="needs bert4keras: set TF_USE_LEGACY_KERAS=1")
    for item in items:
        if "legacy_keras" in item.keywords:
            item.add_marker(skip)


def left_to_keras_3(items):
    """What runs under Keras 3 in every run, and under Keras 2 in `make test-all`.

    Those of whole files, and of a test with many cases all but a few of them.
    """
    cases = collections.defaultdict(list)
    for item in items:
        if "both_kerases" in item.keywords or in_files(item, LEGACY_TEST_FILES):
            continue
        if in_files(item, ALIKE_TEST_FILES):
            yield item
        elif "slow" not in item.keywords:
            cases[item.path, item.originalname].append(item)
    for several in cases.values():
        last = len(several) - 1
        wanted = {round(i * last / (CASES - 1)) for i in range(CASES)}
        yield from (item for i, item in enumerate(several) if i not in wanted)


def in_files(item, patterns):
    return any(item.path.match(pattern) for pattern in patterns)


@pytest.fixture(autouse=True)
def _seed():
    from tensorflow import keras

    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def mirrored():
    """A strategy with two replicas; a second one would reuse the keys of the first."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(DEVICES)
