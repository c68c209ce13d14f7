"""Models in `.keras` files: read without running what a file brings, written whole."""

import importlib
import json
import os
import tempfile
import zipfile
import zlib
from pathlib import Path

from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError, reason

# Where Keras itself finds classes. tf_keras imports any other module that a file names.
_KNOWN = {"keras", "tf_keras", "builtins", "tiedbert"}
# What zipfile and json say of a file that is something else, cut off or encrypted.
_DAMAGE = (KeyError, ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile)


def load(path, trust=False, modules=()):
    """Load a model that one Keras or the other has saved; nothing is compiled.

    Args:
        path: a ``.keras`` file.
        trust: run what is in the file: Python code of Lambda layers, modules that it
            names, and a SavedModel elsewhere that it points to.
        modules: names of modules to import first, whose classes the file may name.

    Returns:
        A `keras.Model`.

    Raises:
        InputError: no such file, or not one of the running Keras; code in it, or
            classes of other modules, without `trust`; a class that is not registered.
    """
    metadata, config = _read(path)
    _check_generation(path, str(metadata.get("keras_version", "")))
    for name in modules:
        _import(name)
    if not trust:
        _check_harmless(path, config, {name.partition(".")[0] for name in modules})
    try:
        return keras.models.load_model(path, compile=False, safe_mode=not trust)
    except Exception as error:
        raise InputError(f"{path} cannot be loaded: {_gist(error)}") from error


def _import(name):
    try:
        importlib.import_module(name)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"--import {name} failed: {reason(error)}") from error


def _gist(error) -> str:
    """What is wrong, without the configs of all that was being made around it."""
    return (
        reason(error).rpartition("Exception encountered: ")[2].split(" Full object")[0]
    )


def _read(path) -> tuple:
    """The metadata and the config in a file, as JSON values; Keras is not asked."""
    if Path(path).suffix != ".keras":
        raise InputError(f"expected a .keras file, received {str(path)!r}")
    try:
        with zipfile.ZipFile(path) as file:
            values = [
                json.loads(file.read(f"{n}.json")) for n in ("metadata", "config")
            ]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except _DAMAGE as error:
        raise InputError(f"{path} is not a .keras file: {reason(error)}") from error
    if not all(isinstance(value, dict) for value in values):
        raise InputError(f"{path} is not a .keras file: its JSON holds no objects")
    return tuple(values)


def _check_generation(path, version):
    legacy = version.startswith("2.")
    if version and legacy != _keras.LEGACY:
        variables = f"TF_USE_LEGACY_KERAS={legacy:d} TF_KERAS={legacy:d}"
        raise InputError(
            f"{path} was saved by Keras {version}, and this is Keras "
            f"{_keras.VERSION}: set {variables}"
        )


def _check_harmless(path, config, imported):
    parts = list(_objects(config))
    coded = {repr(owner) for part, owner in parts if _holds_code(part)}
    if coded:
        raise InputError(
            f"{path} brings functions of its own in {', '.join(sorted(coded))}, which "
            "would run on this machine: give --trust if you know who made it"
        )
    classes = {_class(part) for part, _ in parts if _is_foreign(part, imported)}
    if classes:
        raise InputError(
            f"{path} needs {', '.join(sorted(classes))}, which nothing here registers: "
            "give --import MODULE for the module that does"
        )


def _objects(config):
    """Every JSON object within `config`, and the name of the layer it belongs to."""
    pending = [(config, "model")]
    while pending:
        value, owner = pending.pop()
        if isinstance(value, dict):
            owner = value["name"] if isinstance(value.get("name"), str) else owner
            yield value, owner
            pending += [(inner, owner) for inner in value.values()]
        elif isinstance(value, list):
            pending += [(inner, owner) for inner in value]


def _holds_code(part) -> bool:
    """Whether a config brings a function, or what a SavedModel elsewhere does.

    Beside Lambda layers a ``__lambda__`` of Keras 3, and in Keras 2 what says
    ``"..._type": "lambda"``, as the wrappers of recurrent cells do.
    """
    return part.get("class_name") in ("Lambda", "__lambda__", "TFSMLayer") or any(
        name.endswith("_type") and value == "lambda" for name, value in part.items()
    )


def _is_foreign(part, imported) -> bool:
    """Whether a config names a class or function that is not of Keras or known."""
    module = part.get("module", "")
    if "class_name" not in part or not isinstance(module, str | None):
        return False
    is_function = part["class_name"] == "function"
    inside = "." in str(part.get("config") if is_function else part["class_name"])
    root = None if module is None else module.partition(".")[0]
    # tf_keras takes "os.system" for what a module of its own has imported.
    if root in {"", *_KNOWN, *imported} and not inside:
        return False
    name = part.get("config" if is_function else "registered_name")
    known = name is None and not inside
    return not known and keras.utils.get_registered_object(str(name)) is None


def _class(part) -> str:
    return ".".join(str(part[key]) for key in ("module", "class_name") if part[key])


def check_free(folder, overwrite):
    """InputError unless a pair of models may be written into `folder`."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output {folder} is a file: name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise InputError(f"--output {folder} is not empty: use --overwrite")


def save(models, folder):
    """Write ``<name>.keras`` for each name of a dict of models: all whole, or none.

    They are moved to their names when all are written. Older ones go first: a process
    that is killed in between leaves a model out, never two that do not fit together.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as drafts:
        for name, model in models.items():
            model.save(Path(drafts, f"{name}.keras"))
        for name in models:
            Path(folder, f"{name}.keras").unlink(missing_ok=True)
        for name in models:
            os.replace(Path(drafts, f"{name}.keras"), folder / f"{name}.keras")
