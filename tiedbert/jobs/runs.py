"""Run directories: one folder holds the options, the metrics and the output of a job.

config.json     the resolved options
metrics.jsonl   one JSON object a line
...             the output of the job: checkpoints/, model/, plots
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tiedbert.errors import InputError
from tiedbert.text.files import write_file, write_json

CONFIG = "config.json"
METRICS = "metrics.jsonl"
LOCK = ".lock"
_locks: dict[Path, FileLock] = {}  # folder -> its lock, held by this process
_MARK = "tiedbert_run"
_NOT_COMPARED = {"overwrite", "resume", "output_dir"}


def open_run(
    job: str, options: Mapping[str, Any], inputs: Iterable[str | os.PathLike] = ()
) -> Path:
    """Make the run directory ``options["output_dir"]`` and save the options.

    Call it once the inputs were validated, so that ``--overwrite`` never deletes a run
    for a job that cannot start. :func:`check_run` checks the arguments before that.

    Args:
        job: name of the job, saved with the options.
        options: the resolved options, JSON values; ``"output_dir"`` names the
            folder, ``"overwrite"`` replaces an earlier run in it and ``"resume"``
            (if the job has it) continues one.
        inputs: paths that the job reads; none may be in a run to be replaced.

    Returns:
        The folder.

    Raises:
        InputError: the folder is not empty and neither option is set; it is not a run,
            or one of another job; the run has other options; an input is in it; another
            process writes it.
    """
    check_run(job, options, inputs)
    folder = Path(options["output_dir"])
    if _is_used(folder):
        _lock(folder)
        if options.get("resume"):
            return folder
        _empty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _lock(folder)
    write_json(folder / CONFIG, {_MARK: job, **_plain(options)})
    return folder


def check_run(
    job: str, options: Mapping[str, Any], inputs: Iterable[str | os.PathLike] = ()
) -> None:
    """Raise the errors of :func:`open_run` for these arguments; change nothing."""
    folder = Path(options["output_dir"])
    _check_writable(folder)
    if not _is_used(folder):
        return
    if options.get("resume"):
        _check_same(folder, job, _plain(options))
    elif options.get("overwrite"):
        _check_removable(folder, inputs)
    else:
        choices = "--resume or --overwrite" if "resume" in options else "--overwrite"
        raise InputError(f"--output_dir {folder} is not empty: use {choices}")


def read_run(folder: str | os.PathLike, job: str | None = None) -> dict[str, Any]:
    """The options of a run; InputError if the folder is not a run (of `job`)."""
    path = Path(folder) / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{folder} is not a run directory: it has no {CONFIG}"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    found = config.get(_MARK) if isinstance(config, dict) else None
    if found is None or (job is not None and found != job):
        expected = "a tiedbert run" if job is None else f"a run of {job}"
        raise InputError(
            f"{folder}: expected {expected}, found {found or 'another file'}"
        )
    return config


def append_metrics(folder: str | os.PathLike, values: Mapping[str, Any]) -> None:
    """Add one line to the metrics of a run."""
    with open(Path(folder) / METRICS, "a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def read_metrics(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """The metrics of a run, a dict a line; empty if nothing was written yet."""
    path = Path(folder) / METRICS
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        return [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def keep_metrics(folder: str | os.PathLike, lines: int) -> None:
    """Drop all but the first `lines` lines, which a killed run wrote too early."""
    path = Path(folder) / METRICS
    if path.exists():
        first = path.read_text(encoding="utf-8").splitlines(keepends=True)[:lines]
        write_file(path, "".join(first).encode())


def _check_writable(folder):
    """InputError unless the folder is there, or can be made."""
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not nearest.is_dir():
        raise InputError(f"--output_dir {folder}: {nearest} is a file: name a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"--output_dir {folder}: no permission to write in {nearest}")


def _is_used(folder) -> bool:
    return folder.is_dir() and any(_contents(folder))


def _contents(folder) -> list:
    """The files of a run without its lock, which stays when a process ends."""
    return [path for path in folder.iterdir() if path.name != LOCK]


def _empty(folder):
    for path in _contents(folder):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _plain(value):
    """`value` as it comes back from JSON."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _check_same(folder, job, options):
    config = read_run(folder, job)
    changed = [
        f"--{name} was {config.get(name)!r}, is {value!r}"
        for name, value in options.items()
        if name not in _NOT_COMPARED and config.get(name) != value
    ]
    if changed:
        raise InputError(
            f"cannot resume {folder} with other options: {'; '.join(changed)}"
        )


def _lock(folder):
    """Lock a run until this process ends; InputError if another one has the lock."""
    if (old := _locks.pop(folder.resolve(), None)) is not None:
        old.release()
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"--output_dir {folder} is in use by another process: wait for it, or "
            "choose another"
        ) from None
    except PermissionError as error:
        raise InputError(
            f"--output_dir {folder}: cannot write {LOCK} in it: {error.strerror}"
        ) from error
    except (OSError, NotImplementedError) as error:
        raise InputError(
            f"--output_dir {folder} cannot be locked against other processes: {error}; "
            "choose a folder on a disk that can lock files"
        ) from error
    _locks[folder.resolve()] = lock


def _check_removable(folder, inputs):
    read_run(folder)  # Only runs are ever removed.
    for path in inputs:
        if folder.resolve() in [Path(path).resolve(), *Path(path).resolve().parents]:
            raise InputError(
                f"--overwrite would remove {path}, which this run reads: "
                "choose another --output_dir"
            )
