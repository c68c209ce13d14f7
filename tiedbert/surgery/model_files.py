"""Load models from ``.keras`` files, and write a pair of them: both, or none."""

import importlib
import json
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError, reason
from tiedbert.surgery.trust import check_harmless

# Prefix of the folder in which models are written before they get their names.
_DRAFTS = ".part-"
# Of the JSON in a file, which real models fill to a hundredth: more would be a bomb.
_LARGEST_BYTES = 200_000_000
# Errors of zipfile and json for a file of another kind, cut off or encrypted.
_DAMAGE = (KeyError, ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile)


def load(
    path: str | Path, trust: bool = False, modules: Sequence[str] = ()
) -> keras.Model:
    """Load a model that the running Keras has saved; it is not compiled.

    Args:
        path: a ``.keras`` file.
        trust: load without the checks of :mod:`tiedbert.surgery.trust`: code in the
            file runs, and modules and other files that it names are read.
        modules: names of modules to import first, whose classes the file may name.

    Returns:
        A `keras.Model`.

    Raises:
        InputError: no such file, or not one of the running Keras; without `trust`, a
            file that `trust` would be needed for; a class that is not registered.
    """
    metadata, config = _read(path)
    _check_generation(path, str(metadata.get("keras_version", "")))
    for name in modules:
        _import(name)
    if not trust:
        check_harmless(path, config)
    return _loaded(path, trust, f"{path} cannot be loaded")


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"--import {name} failed: {reason(error)}") from error


def _loaded(path: str | Path, trust: bool, failure: str) -> keras.Model:
    try:
        return keras.models.load_model(path, compile=False, safe_mode=not trust)
    except Exception as error:
        raise InputError(f"{failure}: {_innermost(error)}") from error


def _innermost(error: Exception) -> str:
    """The cause in a message of Keras, without the configs that it lists."""
    return (
        reason(error).rpartition("Exception encountered: ")[2].split(" Full object")[0]
    )


def _read(path: str | Path) -> tuple[dict, dict]:
    """The metadata and the config in a file, as JSON values, read without Keras."""
    if Path(path).suffix != ".keras":
        raise InputError(f"expected a .keras file, received {str(path)!r}")
    try:
        with zipfile.ZipFile(path) as file:
            values = [_read_json(file, f"{n}.json") for n in ("metadata", "config")]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except _DAMAGE as error:
        raise InputError(f"{path} is not a .keras file: {reason(error)}") from error
    if not all(isinstance(value, dict) for value in values):
        raise InputError(f"{path} is not a .keras file: its JSON holds no objects")
    return tuple(values)


def _read_json(file: zipfile.ZipFile, name: str) -> Any:
    size = file.getinfo(name).file_size
    if size > _LARGEST_BYTES:
        raise ValueError(
            f"{name} has {size:,} bytes, expected at most {_LARGEST_BYTES:,}"
        )
    return json.loads(file.read(name))


def _check_generation(path: str | Path, version: str) -> None:
    variables = _keras.variables_to_read(version)
    if version and variables:
        raise InputError(
            f"{path} was saved by Keras {version}, and this is Keras "
            f"{_keras.VERSION}: set {variables}"
        )


def check_free(folder: str | Path, overwrite: bool) -> None:
    """InputError if `folder` is a file, or has something in it without `overwrite`."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output {folder} is a file: name a folder")
    if not folder.is_dir() or overwrite:
        return
    # `save` removes the drafts of a run that was killed.
    if any(not path.name.startswith(_DRAFTS) for path in folder.iterdir()):
        raise InputError(f"--output {folder} is not empty: use --overwrite")


def save(
    models: dict[str, keras.Model],
    folder: str | Path,
    trust: bool = False,
    check: Callable | None = None,
) -> None:
    """Write each model of a dict as ``<name>.keras`` into `folder`: all, or none.

    The files get their names when all are written, loaded again and passed to
    ``check(**loaded)``. Old files are removed before: a process that is killed in
    between leaves a file out, but no two files that do not belong together.

    Args:
        models: dict, name -> model.
        folder: made if it is not there.
        trust: as in :func:`load`.
        check: called with the loaded models by name; an error ends the writing.

    Raises:
        InputError: the folder cannot be made, or Keras cannot load what it has saved.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make --output {folder}: {error.strerror}") from error
    for left in folder.glob(f"{_DRAFTS}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_DRAFTS, dir=folder) as drafts:
        loaded = {}
        for name, model in models.items():
            draft = Path(drafts, f"{name}.keras")
            model.save(draft)
            loaded[name] = _loaded(
                draft,
                trust,
                f"Keras {_keras.VERSION} cannot load the {name} of this cut again, so "
                "nothing is written",
            )
        if check is not None:
            check(**loaded)
        for name in models:
            Path(folder, f"{name}.keras").unlink(missing_ok=True)
        for name in models:
            os.replace(Path(drafts, f"{name}.keras"), folder / f"{name}.keras")
