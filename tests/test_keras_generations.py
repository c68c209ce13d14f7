"""Keras 2 and Keras 3 have one interface, and one place knows which of them runs."""

import ast
import re
from pathlib import Path

import pytest
from generation import IS_LEGACY

from tiedbert import _keras
from tiedbert._keras.choice import generation

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tiedbert" / "_keras"
BERT = ROOT / "tiedbert" / "bert"
INSIDE = {PACKAGE, BERT / "_keras2", BERT / "_keras3"}
OUTSIDE = [
    path
    for folder in ("tiedbert", "scripts", "examples", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if INSIDE.isdisjoint(path.parents)
]
# The encoders are bert4keras' own or ours.
MAY_ASK = {BERT / "backend.py"}

# What tells which generation runs. A message may say it: {_keras.VERSION}.
ASKS = re.compile(
    r"""
    \bLEGACY\b | \.VERSION\b(?!}) | keras\.__version__ | startswith\(\W*tf_keras
    | _keras[23]\b | \b_keras(\.|\ import\ )(choice|internals)\b
    """,
    re.VERBOSE,
)


def interface(path):
    """public name -> (parameters, result, first line of the docstring); constants."""
    functions, constants = {}, set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            result = ast.unparse(node.returns or ast.Constant(None))
            summary = ast.get_docstring(node).partition("\n")[0]
            functions[node.name] = ast.unparse(node.args), result, summary
        elif isinstance(node, ast.Assign):
            constants |= {target.id for target in node.targets}
    return functions, constants


def test_both_generations_have_the_same_names_and_signatures():
    of_keras_2, of_keras_3 = (
        interface(PACKAGE / f"_keras{number}.py") for number in (2, 3)
    )
    assert of_keras_2 == of_keras_3
    assert len(of_keras_2[0]) > 30


def test_both_kinds_of_encoders_have_the_same_names():
    names = []
    for number in (2, 3):
        text = (BERT / f"_keras{number}" / "__init__.py").read_text(encoding="utf-8")
        names.append(text.partition("__all__ = ")[2])
    assert names[0] == names[1] != ""
    text = (BERT / "backend.py").read_text(encoding="utf-8")
    assert text.partition("__all__ = ")[2] == names[0]


def test_the_generation_is_that_of_the_running_keras():
    number = 2 if IS_LEGACY else 3
    assert generation.__name__ == f"tiedbert._keras._keras{number}"
    assert _keras.VERSION.startswith(f"{number}.")


def test_a_name_of_the_generation_is_looked_up_once():
    for name in ("is_symbolic", "flatten", "map_structure"):
        assert vars(_keras)[name] is vars(generation)[name]


def test_no_file_outside_asks_which_keras_runs():
    texts = {path: path.read_text(encoding="utf-8") for path in OUTSIDE}
    assert {path for path in texts if ASKS.search(texts[path])} == MAY_ASK


@pytest.mark.parametrize(
    "line",
    [
        "if _keras.LEGACY:",
        'LEGACY = keras.Model.__module__.startswith("tf_keras")',
        'if _keras.VERSION.startswith("2."):',
        "from tiedbert._keras import _keras3",
        "from tiedbert._keras.choice import generation",
        "if keras.__version__ < '3':",
    ],
)
def test_the_check_sees_a_question(line):
    assert ASKS.search(line)


def test_keras_2_can_be_deleted_with_one_file():
    """Only the choice would have to be changed."""
    texts = {path.name: path.read_text("utf-8") for path in PACKAGE.glob("*.py")}
    del texts["_keras2.py"]
    naming = {
        name for name, text in texts.items() if re.search("_keras2|tf_keras", text)
    }
    assert naming == {"choice.py"}
