"""Every example runs as a reader runs it and prints what examples/README.md says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from generation import IS_LEGACY

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NEEDS_BERT = "8_noise_in_a_padded_bert.py"

# TensorFlow's: its variables do not know the copy argument of NumPy 2.
TENSORFLOWS = (
    "ignore:__array__ implementation doesn't accept a copy keyword"
    ":DeprecationWarning:keras.src.backend.tensorflow.core"
)


def promised_lines():
    """file name -> the line that the table in the README shows."""
    table = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(.+?)\]\(\1\) \|.+\| `(.+)` \|$", table, re.MULTILINE)
    return dict(rows)


def run(example):
    switch = "1" if IS_LEGACY else "0"
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": switch, "PYTHONPATH": str(ROOT)}
    environment.pop("TF_KERAS", None)
    command = [sys.executable, "-W", "error", "-W", TENSORFLOWS, EXAMPLES / example]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_the_readme_lists_every_example():
    assert sorted(promised_lines()) == sorted(p.name for p in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("example", sorted(p.name for p in EXAMPLES.glob("*.py")))
def test_example_prints_what_the_readme_says(example):
    if example == NEEDS_BERT and not IS_LEGACY:
        pytest.skip("the next test has the other Keras")
    done = run(example)
    assert done.returncode == 0, done.stderr
    assert promised_lines()[example] in done.stdout.splitlines()


@pytest.mark.skipif(IS_LEGACY, reason="under Keras 2 it runs")
def test_the_bert_example_says_which_keras_it_needs():
    done = run(NEEDS_BERT)
    assert done.returncode == 1
    assert "unset both variables" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("example", sorted(p.name for p in EXAMPLES.glob("*.py")))
def test_example_is_short_and_starts_with_its_command(example):
    lines = (EXAMPLES / example).read_text(encoding="utf-8").splitlines()
    assert len(lines) < 80
    assert f"    python examples/{example}  " in "\n".join(lines[:5])
