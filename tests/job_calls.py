"""Jobs called in this process, as their scripts call them, or in one of their own."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from generation import IS_LEGACY

ROOT = Path(__file__).parents[1]


def arguments(options):
    """{"steps": 3, "resume": True} -> ["--steps", "3", "--resume"]."""
    for name, value in options.items():
        yield f"--{name}"
        if value is not True:
            yield from map(str, value if isinstance(value, list) else [value])


def call(script, *given, cwd=None):
    """Run a script in this process; its exit code, stdout and stderr.

    A warning is an error here, as in every test.
    """
    path = ROOT / "scripts" / f"{script}.py"
    code, out, err = 0, io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(path), *map(str, given)])
        patch.setattr(warnings, "formatwarning", warnings.formatwarning)
        if cwd is not None:
            patch.chdir(cwd)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                runpy.run_path(str(path), run_name="__main__")
            except SystemExit as end:
                code = end.code or 0
    return subprocess.CompletedProcess(given, code, out.getvalue(), err.getvalue())


def start(script, *given, cwd=None):
    """A process of a script, with no other switch of TensorFlow than that of Keras."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    if IS_LEGACY:  # TensorFlow's own switch is enough
        environment["TF_USE_LEGACY_KERAS"] = "1"
    return subprocess.Popen(
        [sys.executable, ROOT / "scripts" / f"{script}.py", *map(str, given)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, "PYTHONPATH": str(ROOT)},
        cwd=cwd,
    )


def finish(process):
    """How a process ended: its exit code, stdout and stderr."""
    stdout, stderr = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def output_of(done):
    """What a job that ended well printed."""
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
