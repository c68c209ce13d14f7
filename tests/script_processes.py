"""Scripts in processes that begin with TensorFlow imported, as that takes seconds.

Each is a process of its own, forked from a server that has imported and run nothing
else: what it prints, how it ends and what it leaves on the disk are a user's.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "scripts"
IMPORTED = ["tiedbert.bert", "tensorflow", "tensorflow.keras"]


def server():
    """Where processes are forked from: without any switch of TensorFlow."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    kept = dict(os.environ)
    for name in [name for name in kept if name.startswith("TF_")]:
        del os.environ[name]
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # as a script says before it imports
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(kept)
    return context


def run(context, script, arguments, cwd, before=None):
    """A script's end: its exit code, stdout and stderr; `before` runs first."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder, "stdout"), Path(folder, "stderr")
        given = script, [str(a) for a in arguments], cwd, before, outputs
        process = context.Process(target=_child, args=given)
        process.start()
        process.join(300)
        process.kill()
        told = [path.read_text() for path in outputs]
    return subprocess.CompletedProcess(arguments, process.exitcode, *told)


def _child(script, arguments, cwd, before, outputs):
    for stream, path in zip((1, 2), outputs, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    os.chdir(cwd)
    if before is not None:
        before()
    path = FOLDER / f"{script}.py"
    sys.argv = [str(path), *arguments]
    runpy.run_path(str(path), run_name="__main__")
