"""Run directories: one folder holds the settings, the metrics and the model of a run.

config.json     the resolved configuration
metrics.jsonl   one JSON object a line
...             what the run makes: checkpoints/, model/, plots
"""

import json
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from tiedbert.errors import InputError
from tiedbert.text.files import write_file, write_json

CONFIG = "config.json"
METRICS = "metrics.jsonl"
LOCK = ".lock"
_locks = {}  # folder -> the lock of it that this process holds
_MARK = "tiedbert_run"
_NOT_COMPARED = {"overwrite", "resume", "output_dir"}


def open_run(job, options, inputs=()) -> Path:
    """Make the run directory ``options["output_dir"]`` and save the configuration.

    Call it after the inputs were read: a mistake in them must not cost an old run.
    :func:`check_run` tells before the work whether it will succeed.

    Args:
        job: name of the script, kept with the configuration.
        options: the resolved options, JSON values; ``"output_dir"`` names the
            folder, ``"overwrite"`` replaces an earlier run in it and ``"resume"``
            (where the job has it) goes on with one.
        inputs: paths that the job reads; none may lie in a run to be replaced.

    Returns:
        The folder.

    Raises:
        InputError: the folder is not empty and neither was asked for; it is not a
            run, or not this job's; it was made with other options; it holds an input;
            another process is writing it.
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


def check_run(job, options, inputs=()):
    """Raise what :func:`open_run` would raise of these arguments; change nothing."""
    folder = Path(options["output_dir"])
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output_dir {folder} is a file: name a folder")
    if not _is_used(folder):
        return
    if options.get("resume"):
        _check_same(folder, job, _plain(options))
    elif options.get("overwrite"):
        _check_removable(folder, inputs)
    else:
        choices = "--resume or --overwrite" if "resume" in options else "--overwrite"
        raise InputError(f"--output_dir {folder} is not empty: use {choices}")


def read_run(folder, job=None) -> dict:
    """The configuration of a run; InputError when the folder is not one (of `job`)."""
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


def append_metrics(folder, values):
    """Add one line to the metrics of a run."""
    with open(Path(folder) / METRICS, "a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def read_metrics(folder) -> list:
    """The metrics of a run, a dict a line; none when nothing was written yet."""
    path = Path(folder) / METRICS
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        return [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def keep_metrics(folder, lines):
    """Drop the metrics after the first `lines`: a killed run wrote them too early."""
    path = Path(folder) / METRICS
    if path.exists():
        first = path.read_text(encoding="utf-8").splitlines(keepends=True)[:lines]
        write_file(path, "".join(first).encode())


def _is_used(folder) -> bool:
    return folder.is_dir() and any(_contents(folder))


def _contents(folder) -> list:
    """What is in a run; a lock may stay behind when a process ends."""
    return [path for path in folder.iterdir() if path.name != LOCK]


def _empty(folder):
    for path in _contents(folder):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _plain(value):
    """`value` as JSON will give it back."""
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
    """Keep other processes out of a run until this one ends, however it ends."""
    if (held := _locks.pop(folder.resolve(), None)) is not None:
        held.release()
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
    read_run(folder)  # Only what a run of ours has written is ever removed.
    for path in inputs:
        if folder.resolve() in [Path(path).resolve(), *Path(path).resolve().parents]:
            raise InputError(
                f"--overwrite would remove {path}, which this run reads: "
                "choose another --output_dir"
            )
