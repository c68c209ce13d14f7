"""The examples that train run, on a few texts and for a few steps."""

import re
import runpy
import sys

import pytest
from test_examples import (
    AS_A_READER,
    EXAMPLES,
    HUB,
    MINILM,
    NUMBERED,
    PERCENT,
    SCRIPTS,
    recorded,
)

# Options, and what the last line looks like.
SMALL = {
    "adversarial_classifier.py": ("--texts 100", rf"FGM( +{PERCENT}){{4}}"),
    "adversarial_pretraining.py": ("--texts 100 --steps 10", r"ALUM +\d\.\d+ +\d\.\d+"),
    "port_gradient_penalty.py": ("--texts 100", r".+ gradient of a text \d\.\d+"),
    "port_virtual_adversarial_training.py": ("--texts 200", f"2 labels .+ {PERCENT}"),
    "vat_semi_supervised.py": (
        "--texts 100 --labels 20 --steps 8",
        f"20 with VAT: test accuracy {PERCENT}",
    ),
    "yopo_explained.py": ("", rf".+ the rest 0.0% off, the block {PERCENT}"),
}


def test_every_example_is_run_somewhere():
    assert sorted([*NUMBERED, *SMALL, AS_A_READER, MINILM, HUB]) == SCRIPTS


# What the last line of a whole run looks like.
WHOLE = {
    **{example: last_line for example, (_, last_line) in SMALL.items()},
    AS_A_READER: f"test accuracy {PERCENT}",
    HUB: rf"FGM( +{PERCENT}){{4}}",
    MINILM: r"load it: transformers\.BertForMaskedLM\.from_pretrained\(\"folder\"\)",
    "port_virtual_adversarial_training.py": f"40 labels .+ {PERCENT}",
    "vat_semi_supervised.py": f"200 with VAT: test accuracy {PERCENT}",
}


@pytest.mark.parametrize("example", WHOLE)
def test_the_gallery_has_a_whole_run(example):
    assert re.fullmatch(WHOLE[example], recorded(example)[-1])


@pytest.mark.slow
@pytest.mark.parametrize("example", SMALL)
def test_training_example_on_a_little(example, monkeypatch, capsys):
    options, last_line = SMALL[example]
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(sys, "argv", [example, *options.split()])
    runpy.run_path(EXAMPLES / example, run_name="__main__")
    *_, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(last_line, last)
