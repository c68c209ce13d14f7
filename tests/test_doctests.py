"""The examples in the library's docstrings are true, under both Kerases."""

import doctest
import importlib
from pathlib import Path

import pytest
from generation import IS_LEGACY, OF_KERAS_3, importable

LIBRARY = Path(__file__).parents[1] / "tiedbert"


def modules_with_examples():
    for path in sorted(LIBRARY.rglob("*.py")):
        parts = path.relative_to(LIBRARY.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        runs_here = importable(name) and not (IS_LEGACY and name in OF_KERAS_3)
        if ">>> " in path.read_text(encoding="utf-8") and runs_here:
            is_of_keras_2 = not IS_LEGACY or name.startswith("tiedbert.bert")
            yield pytest.param(name, marks=[] if is_of_keras_2 else pytest.mark.slow)


@pytest.mark.both_kerases
@pytest.mark.parametrize("name", list(modules_with_examples()))
def test_examples_in_docstrings(name):
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted > 0
    assert outcome.failed == 0, "the captured output shows what differs"
