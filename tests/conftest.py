"""Each run of pytest has one Keras: see `make test`, which runs it once for each.

Only a process that runs tests imports TensorFlow. With `pytest -n` the first process
hands the tests to others, which start the sooner.
"""

import collections
import importlib.metadata
import zlib

import pytest
from generation import ALIKE_TEST_FILES, IS_LEGACY, LEGACY_TEST_FILES, NAME

# One processor stands for two devices wherever a test asks for them.
DEVICES = ["CPU:0", "CPU:1"]

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
    left_out = list(beyond_the_number_of_cases(items))
    if IS_LEGACY:
        left_out += left_to_keras_3(items)
    else:
        skip = pytest.mark.skip(reason="needs bert4keras: set TF_USE_LEGACY_KERAS=1")
        for item in items:
            if "legacy_keras" in item.keywords:
                item.add_marker(skip)
    for item in left_out:
        item.add_marker(pytest.mark.slow)


def beyond_the_number_of_cases(items):
    """What the mark `cases` of a test leaves to `make test-all`."""
    for cases in cases_by_test(items):
        mark = cases[0].get_closest_marker("cases")
        yield from all_but(mark.args[0], cases) if mark else []


def left_to_keras_3(items):
    """What runs under Keras 3 in every run, and under Keras 2 in `make test-all`.

    Those of whole files, and of a test with many cases all but the first; of one that
    needs bert4keras all but three.
    """
    shared = [item for item in items if "both_kerases" not in item.keywords]
    yield from (item for item in shared if in_files(item, ALIKE_TEST_FILES))
    for cases in cases_by_test(shared):
        yield from all_but(3 if in_files(cases[0], LEGACY_TEST_FILES) else 1, cases)


def cases_by_test(items):
    """The cases of each test that are not slow by themselves."""
    tests = collections.defaultdict(list)
    for item in items:
        if "slow" not in item.keywords:
            tests[item.path, item.originalname].append(item)
    return tests.values()


def all_but(number, cases):
    """All but so many cases: the first, the last, and some spread between them."""
    last, gaps = len(cases) - 1, max(1, number - 1)
    wanted = {round(i * last / gaps) for i in range(number)}
    return [case for i, case in enumerate(cases) if i not in wanted]


def in_files(item, patterns):
    return any(item.path.match(pattern) for pattern in patterns)


@pytest.fixture(autouse=True)
def _seed(request, monkeypatch):
    """Random numbers of a test are those of its name, whatever ran before.

    TensorFlow keeps the kernels of operations, those that draw by their seed, and
    forgets all of them whenever a seed is set, so that these start anew. To make them
    again took a quarter of the time of the tests. A seed that no other test has needs
    none of it: no kernel has drawn by it.
    """
    from tensorflow import keras
    from tensorflow.python import pywrap_tfe

    with monkeypatch.context() as patch:
        patch.setattr(pywrap_tfe, "TFE_ContextClearCaches", lambda context: None)
        keras.utils.set_random_seed(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(scope="session")
def mirrored():
    """A strategy with two replicas; a second one would reuse the keys of the first."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(DEVICES)
