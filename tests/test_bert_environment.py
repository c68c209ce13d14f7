"""`import tiedbert.bert` works in the Keras that a program has, and changes nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tiedbert.bert._keras2.environment import INSTALL, prepare
from tiedbert.errors import SetupError

ROOT = Path(__file__).parents[1]
TELL = """
import os, sys
before = dict(os.environ)
import tiedbert.bert
import tensorflow as tf
assert tiedbert.bert.build_bert is not None
# TensorFlow sets others.
changed = {n for n in os.environ if "KERAS" in n and os.environ[n] != before.get(n)}
print(tf.keras.__name__.split(".")[0], tf.keras.Model.__module__.split(".")[0])
print(sorted(changed), "bert4keras" in sys.modules)
"""
# find_spec finds nothing for a module that is None there.
NO_BERT4KERAS = "import sys; sys.modules['bert4keras'] = None\n"
NO_DISTUTILS = "import sys; sys.modules['distutils'] = None\n"


def python(code, **environment):
    switches = ("TF_USE_LEGACY_KERAS", "TF_KERAS")
    kept = {name: os.environ[name] for name in os.environ if name not in switches}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**kept, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
    )


def test_without_a_variable_it_works_in_keras_3_and_sets_none():
    done = python(NO_BERT4KERAS + TELL)
    keras, told = done.stdout.splitlines()
    assert keras.split()[-1] == "keras", done.stderr
    assert told == "[] True"  # as this test put None there


def test_tensorflows_switch_alone_is_enough_for_keras_2():
    done = python(TELL, TF_USE_LEGACY_KERAS="1")
    keras, told = done.stdout.splitlines()
    assert keras.split()[-1] == "tf_keras", done.stderr
    assert told == "['TF_KERAS'] True"


@pytest.mark.slow
def test_it_works_without_distutils_and_with_any_word_for_yes():
    stand_in = "import distutils.util; assert distutils.util.strtobool('yes') == 1"
    done = python(NO_DISTUTILS + TELL + stand_in, TF_USE_LEGACY_KERAS="true")
    assert done.returncode == 0, done.stderr


def test_without_bert4keras_it_gives_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "bert4keras", None)
    with pytest.raises(SetupError) as caught:
        prepare()
    needs = "tiedbert.bert needs bert4keras under Keras 2"
    assert str(caught.value).startswith(f"{needs}: {INSTALL} (")


@pytest.mark.slow
def test_in_a_new_process_too():
    done = python(NO_BERT4KERAS + "import tiedbert.bert", TF_USE_LEGACY_KERAS="1")
    assert "SetupError: tiedbert.bert needs bert4keras" in done.stderr.splitlines()[-1]


def test_without_keras_2_it_gives_the_command_that_installs_it():
    no_keras_2 = "import sys; sys.modules['tf_keras'] = None\n"
    done = python(no_keras_2 + "import tiedbert.surgery", TF_USE_LEGACY_KERAS="1")
    error = done.stderr.splitlines()[-1]
    assert "SetupError: TF_USE_LEGACY_KERAS asks for Keras 2, and tf-keras is" in error
    assert "pip install 'tf-keras>=2.21,<2.22' and, for BERTs, " + INSTALL in error


def test_the_command_installs_the_version_of_the_lock_file():
    lock = (ROOT / "requirements.lock").read_text()
    assert INSTALL.removeprefix("pip install --no-deps ") in re.split(r"\s+", lock)
