"""Imports point downwards, and importing tiedbert changes nothing for a user."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from generation import IS_LEGACY, importable

import tiedbert

ROOT = Path(__file__).parents[1]

# Bottom up. A module imports from its own entry and from lower lines only.
LAYERS = [
    {"errors", "_identity"},
    {"_keras", "command"},
    {"losses"},
    {"layers"},
    {"surgery"},
    {"text"},
    {"bert"},
    {"adversarial"},
    {"robustness"},
    {"jobs"},
    {"cli"},
    {"__main__"},
]
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}

# What runs under both Kerases cannot stand on bert4keras.
MAY_IMPORT_BERT = {"bert", "jobs"}

LIBRARY = sorted((ROOT / "tiedbert").rglob("*.py"))
CODE = LIBRARY + [
    path
    for folder in ("scripts", "examples", "benchmarks", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def relative(path):
    return path.relative_to(ROOT).as_posix()


def imports(path):
    """(absolute module, name or None) of every import in a file, nested ones too."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                yield module, alias.name


def imported_entries(path):
    """Entries of HEIGHT (`graph`, `bert`, ...) that a file imports from tiedbert."""
    for module, name in imports(path):
        dotted = f"{module}.{name}" if module == "tiedbert" else module
        package, _, rest = dotted.partition(".")
        if package == "tiedbert" and rest and rest != "__version__":
            yield rest.partition(".")[0]


def entry(path):
    return path.relative_to(ROOT / "tiedbert").parts[0].removesuffix(".py")


def wrong_imports(path):
    own = entry(path)
    for target in imported_entries(path):
        upwards = HEIGHT[target] >= HEIGHT[own] and target != own
        if upwards or (target == "bert" and own not in MAY_IMPORT_BERT):
            yield target


PACKAGE = ROOT / "tiedbert/__init__.py"


def test_every_module_has_a_place():
    entries = {entry(path) for path in LIBRARY if path != PACKAGE}
    assert entries <= set(HEIGHT), "a new module needs its place in LAYERS"


def test_imports_point_downwards():
    assert list(imports(PACKAGE)) == [("importlib", None)]
    wrong = {relative(p): [*wrong_imports(p)] for p in LIBRARY if p != PACKAGE}
    assert {path: targets for path, targets in wrong.items() if targets} == {}


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("layers", "from tiedbert.surgery import split"),
        ("layers", "from tiedbert import surgery"),
        ("layers", "from .surgery import split"),
        ("losses", "def late():\n    import tiedbert.surgery"),
        ("adversarial", "import tiedbert.jobs.runs"),
        ("robustness", "from . import bert"),
    ],
)
def test_the_check_sees_an_upward_import(module, line, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "tiedbert" / f"{module}.py"
    path.parent.mkdir()
    path.write_text(line)
    assert len(list(wrong_imports(path))) == 1


def importers(paths, is_wrong):
    """The files of which an import is wrong."""
    return [
        relative(path) for path in paths if any(is_wrong(*i) for i in imports(path))
    ]


def test_library_imports_nothing_from_the_scripts():
    outside = {"scripts", "examples", "benchmarks", "tests"}
    found = importers(LIBRARY, lambda module, _: module.partition(".")[0] in outside)
    assert found == []


def test_no_star_imports():
    assert importers(CODE, lambda _, name: name == "*") == []


MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in LIBRARY
    if not path.stem.startswith("__main__")
]


def test_what_a_module_says_it_has_it_has():
    """So `from module import *` works, and gives each name once."""
    for name in filter(importable, MODULES):
        module = importlib.import_module(name)
        names = [
            each
            for each in getattr(module, "__all__", [])
            if name != "tiedbert" or importable(f"{name}.{each}")
        ]
        assert [each for each in names if not hasattr(module, each)] == [], name
        assert sorted(set(names)) == sorted(names), name


# text is a folder of public modules, and errors is one module.
PUBLIC = [
    f"tiedbert.{name}" for name in tiedbert.__all__ if name not in ("errors", "text")
]


@pytest.mark.both_kerases
@pytest.mark.parametrize("name", [*filter(importable, PUBLIC)])
def test_a_public_package_lists_what_it_offers(name):
    """Nothing else without an underscore is in it, and each name says what it is."""
    module = importlib.import_module(name)
    names = [
        each
        for each, value in vars(module).items()
        if getattr(value, "__module__", "").startswith("tiedbert.")
        and not each.startswith("_")
    ]
    assert set(names) <= set(module.__all__)
    undocumented = [
        each for each in module.__all__ if not getattr(module, each).__doc__
    ]
    assert undocumented == []


def run(code):
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_tiedbert_loads_no_keras_and_sets_no_variable():
    run(
        "import os, sys\n"
        "before = dict(os.environ)\n"
        "import tiedbert\n"
        "assert dict(os.environ) == before\n"
        "heavy = {'tensorflow', 'keras', 'tf_keras'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )


def test_importing_the_library_leaves_the_users_keras(monkeypatch):
    """TensorFlow's own switch decides, unset included, and only about tf.keras."""
    for name in ("TF_USE_LEGACY_KERAS", "TF_KERAS"):
        monkeypatch.delenv(name, raising=False)
    if IS_LEGACY:
        monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    tf_keras, keras = run(
        "import os\n"
        "names = ('TF_USE_LEGACY_KERAS', 'TF_KERAS', 'KERAS_BACKEND')\n"
        "before = [os.environ.get(name) for name in names]\n"
        "import tiedbert.surgery, tiedbert.layers, tiedbert.adversarial\n"
        "assert [os.environ.get(name) for name in names] == before\n"
        "import keras\n"
        "import tensorflow as tf\n"
        "print(tf.keras.Model.__module__, keras.Model.__module__)\n"
    ).split()
    assert tf_keras.startswith("tf_keras." if IS_LEGACY else "keras.src.")
    assert keras.startswith("keras.src.")
