"""What `import tiedbert.bert` needs, and that its advice works when it is followed."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tiedbert.bert.environment import INSTALL

ROOT = Path(__file__).parents[1]

IMPORT = "import tiedbert.bert\n"
TENSORFLOW_FIRST = "import tensorflow\n" + IMPORT
TELL = """
import os, sys
import tensorflow as tf
import bert4keras.models
assert tf.keras.Model.__module__.startswith("tf_keras"), tf.keras.Model.__module__
assert sys.modules["keras"] is tf.keras  # as bert4keras leaves it
assert tiedbert.bert.build_bert is not None
print(os.environ["TF_KERAS"], os.environ.get("TF_USE_LEGACY_KERAS"))
"""
# find_spec finds nothing for a module that is None there.
NO_BERT4KERAS = "import sys; sys.modules['bert4keras'] = None\n"
NO_DISTUTILS = (
    "import sys; sys.modules['distutils'] = None\n"
    "sys.modules['distutils.util'] = None\n"
)
ATTRIBUTE = """
import inspect
import tiedbert
assert not hasattr(tiedbert, "bert")
assert "bert" not in dict(inspect.getmembers(tiedbert))
tiedbert.bert
"""
STAND_IN = """
from distutils.util import strtobool
assert [strtobool(t) for t in ("1", "True", "yes", "0", "no")] == [1, 1, 1, 0, 0]
"""


def python(code, **environment):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**kept, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
    )


CASES = {
    "first": (IMPORT + TELL, {}),
    "tensorflow first": (TENSORFLOW_FIRST, {}),
    "tensorflow first, legacy": (
        TENSORFLOW_FIRST + TELL,
        {"TF_USE_LEGACY_KERAS": "1"},
    ),
    "tensorflow first, both": (
        TENSORFLOW_FIRST + TELL,
        {"TF_USE_LEGACY_KERAS": "1", "TF_KERAS": "1"},
    ),
    "true, no distutils": (
        NO_DISTUTILS + IMPORT + STAND_IN + TELL,
        {"TF_USE_LEGACY_KERAS": "true"},
    ),
    "no bert4keras": (NO_BERT4KERAS + IMPORT, {}),
    "no bert4keras, attribute": (NO_BERT4KERAS + ATTRIBUTE, {}),
}


@functools.cache
def done(case):
    """The process of one of the CASES, at its end."""
    code, environment = CASES[case]
    return python(code, **environment)


def test_first_thing_it_works_without_any_variable():
    assert done("first").stdout.split() == ["1", "1"], done("first").stderr


def test_after_tensorflow_with_keras_3_it_says_what_to_do():
    error = done("tensorflow first").stderr.splitlines()[-1]
    assert "SetupError: tiedbert.bert needs Keras 2 (tf_keras)" in error
    assert "import tiedbert.bert before tensorflow, or start with" in error


@pytest.mark.slow
def test_its_advice_for_keras_3_works():
    """The first half of it is what `first` does."""
    error = done("tensorflow first").stderr
    command = re.search(r"start with (.*) python \.\.\.", error)[1]
    assert dict(part.split("=") for part in command.split()) == {
        "TF_USE_LEGACY_KERAS": "1",
        "TF_KERAS": "1",
    }
    followed = done("tensorflow first, both")
    assert followed.returncode == 0, followed.stderr


@pytest.mark.slow
def test_legacy_keras_may_be_chosen_by_tensorflows_switch_alone():
    found = done("tensorflow first, legacy")
    assert found.stdout.split() == ["1", "1"], found.stderr


@pytest.mark.slow
def test_it_works_without_distutils_and_with_any_word_for_yes():
    found = done("true, no distutils")
    assert found.returncode == 0, found.stderr


def test_without_bert4keras_it_gives_the_command_that_installs_it():
    error = done("no bert4keras").stderr.splitlines()[-1]
    assert error.endswith(f"SetupError: tiedbert.bert needs bert4keras: {INSTALL}")


@pytest.mark.slow
def test_without_bert4keras_the_attribute_is_missing():
    error = done("no bert4keras, attribute").stderr.splitlines()[-1]
    assert error == f"AttributeError: tiedbert.bert needs bert4keras: {INSTALL}"


def test_the_command_installs_the_version_of_the_lock_file():
    lock = (ROOT / "requirements.lock").read_text()
    assert INSTALL.removeprefix("pip install --no-deps ") in re.split(r"\s+", lock)


@pytest.mark.parametrize("name", ["TF_USE_LEGACY_KERAS", "TF_KERAS"])
def test_a_variable_against_it_is_named_and_left(name):
    """Its advice, to unset both variables, is what `first` does."""
    code = (
        "import os\n"
        "before = dict(os.environ)\n"
        "try:\n"
        "    import tiedbert.bert\n"
        "except ImportError as error:\n"
        "    print(error)\n"
        "assert dict(os.environ) == before\n"
    )
    done = python(code, **{name: "0"})
    assert done.stdout.strip() == (
        "tiedbert.bert needs TF_KERAS=1 and TF_USE_LEGACY_KERAS=1, but the "
        f"environment says {name}=0: unset both variables"
    ), done.stderr
