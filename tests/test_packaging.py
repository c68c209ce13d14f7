"""The built wheel holds the library, all of it and nothing else."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from generation import importable

import tiedbert

ROOT = Path(__file__).parents[1]
NOT_SOURCE = shutil.ignore_patterns(
    ".*", "runs", "build", "dist", "*.egg-info", "__pycache__"
)

IMPORT_ALL = """
import importlib, json, sys
target, names = sys.argv[1], json.loads(sys.argv[2])
sys.path.insert(0, target)
for name in names:
    assert importlib.import_module(name).__file__.startswith(target), name
"""


def run(*command, cwd):
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the wheel's content, built from a copy of the sources.

    A copy, because setuptools leaves a build folder whose old files would get into
    the next wheel.
    """
    source, wheels, target = (tmp_path_factory.mktemp(n) for n in ("src", "whl", "lib"))
    shutil.copytree(ROOT, source, ignore=NOT_SOURCE, dirs_exist_ok=True)
    pip = (sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check")
    offline = ("--no-deps", "--no-index")
    build = ("wheel", "--no-build-isolation", "--wheel-dir", wheels)
    run(*pip, *build, *offline, ".", cwd=source)
    (wheel,) = wheels.glob("*.whl")
    run(*pip, "install", *offline, "--target", target, wheel, cwd=wheels)
    return target


def test_wheel_holds_every_module_and_nothing_else(installed):
    shipped = {p.relative_to(installed).as_posix() for p in installed.rglob("*.py")}
    library = (ROOT / "tiedbert").rglob("*.py")
    assert shipped == {path.relative_to(ROOT).as_posix() for path in library}
    folders = {path.name for path in installed.iterdir() if path.suffix != ".dist-info"}
    assert folders == {"tiedbert", "bin"}
    assert [path.name for path in (installed / "bin").iterdir()] == ["tiedbert"]


@pytest.mark.slow
def test_wheel_imports_outside_the_tree(installed, tmp_path):
    files = sorted((installed / "tiedbert").rglob("*.py"))
    parts = [path.relative_to(installed).with_suffix("").parts for path in files]
    names = [".".join(name).removesuffix(".__init__") for name in parts]
    # Every module but the one for the other generation of Keras.
    names = json.dumps([name for name in names if importable(name)])
    # -I: neither the current folder nor PYTHONPATH is searched.
    run(sys.executable, "-I", "-c", IMPORT_ALL, str(installed), names, cwd=tmp_path)


def test_wheel_says_that_it_is_typed(installed):
    assert (installed / "tiedbert/py.typed").is_file()


def test_metadata_of_the_wheel(installed):
    (folder,) = installed.glob("*.dist-info")
    (distribution,) = importlib.metadata.distributions(path=[installed])
    metadata = distribution.metadata
    assert metadata["Version"] == tiedbert.__version__
    assert metadata["Author"] == "tiedbert maintainers"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert (folder / "licenses/LICENSE").is_file()
    assert metadata["Description-Content-Type"] == "text/markdown"
    urls = metadata.get_all("Project-URL")
    assert {url.partition(",")[0] for url in urls} >= {"Homepage", "Changelog"}
    bounded = {"tensorflow", "tf-keras", "keras"}
    for name in bounded:
        assert [r for r in distribution.requires if r.startswith(f"{name}<")], name


def command_of(installed, *command, cwd):
    """Run a command as if the wheel's content were installed; what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_wheel_has_the_console_command(installed, tmp_path):
    script = installed / "bin" / "tiedbert"
    by_script = command_of(installed, script, "--help", cwd=tmp_path)
    module = (sys.executable, "-m", "tiedbert")
    assert by_script == command_of(installed, *module, "--help", cwd=tmp_path)
    assert by_script.startswith("usage: tiedbert ")


def test_the_wheel_has_the_jobs(installed, tmp_path):
    module = (sys.executable, "-m", "tiedbert")
    for job in ("surgery", "compare"):
        text = command_of(installed, *module, job, "--help", cwd=tmp_path)
        assert text.startswith(f"usage: tiedbert {job} ")
