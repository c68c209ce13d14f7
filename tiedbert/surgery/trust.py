"""Which ``.keras`` files are loaded without ``--trust``: those that only hold data.

A config names classes and functions, and Keras 2 imports and calls whatever it names.
So each name is looked up before Keras sees the file, and nothing is imported for it:

1. Code is refused: Lambda layers, marshalled functions, TensorFlow graphs.
2. A function of TensorFlow that a config calls must be one of :data:`FUNCTIONS`.
3. A vocabulary must be in the file, not the name of another file.
4. A class must be registered, or be a Keras class of a module that is imported already;
   a function must be registered, or be one of Keras' :data:`FUNCTION_MODULES`.
"""

import sys
from collections.abc import Iterator
from typing import Any

from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError

_CODE = {"Lambda", "__lambda__", "TFSMLayer", "TensorFlowOpLayer", "TorchModuleWrapper"}
# Layers by which files of Keras 2 call functions of TensorFlow -> where they hold the
# name. This is about files: whichever Keras runs, it refuses them alike.
_CALLERS = {
    "TFOpLambda": ["function"],
    "SlicingOpLambda": ["function"],
    "InstanceMethod": ["attr_name"],
    "InstanceProperty": ["attr_name"],
    "ClassMethod": ["cls_symbol", "method_name"],
}
FUNCTION_SPACES = ("__operators__.", "math.")
FUNCTIONS = """
    cast concat expand_dims gather linalg.matmul nn.relu nn.softmax ones_like reshape
    shape squeeze stack tile transpose where zeros_like
"""
# Keras writes "builtins" for the functions of these modules of its own.
FUNCTION_MODULES = (
    "activations",
    "constraints",
    "initializers",
    "losses",
    "metrics",
    "regularizers",
)
# Layers and preprocessors read these from a file if a config gives a text.
_VOCABULARIES = ("vocabulary", "idf_weights")


def check_harmless(path: Any, config: dict) -> None:
    """InputError unless the config of a model in the file `path` only holds data."""
    parts = list(_objects(config))
    coded = {repr(owner) for part, owner in parts if _holds_code(part)}
    _refuse(
        coded,
        f"{path} brings functions of its own in {{}}, which would run on this machine",
    )
    called = {
        f"{name} in {owner!r}"
        for part, owner in parts
        for name in _called(part)
        if not _is_listed(name)
    }
    _refuse(
        called,
        f"{path} calls {{}}, which is not on the list of functions that only compute",
    )
    files = {f"{name!r} in {owner!r}" for part, owner in parts for name in _files(part)}
    _refuse(files, f"{path} reads a vocabulary from the file {{}} of this machine")
    unknown = {_full_name(part) for part, _ in parts if not _is_known(part)}
    if unknown:
        raise InputError(
            f"{path} needs {', '.join(sorted(unknown))}, which is not registered: give "
            "--import MODULE for the module that registers it"
        )


def _refuse(names: set, message: str) -> None:
    if names:
        listed = message.format(", ".join(sorted(names)))
        raise InputError(f"{listed}: give --trust if you know who made it")


def _objects(config: dict) -> Iterator[tuple[dict, str]]:
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


def _class_names(part: dict) -> set:
    """The names under which Keras may look up the class of a config."""
    names = (part.get("class_name"), part.get("registered_name"))
    return {str(name).rpartition(">")[2] for name in names}


def _holds_code(part: dict) -> bool:
    """Whether a config holds code, which ``"..._type": "lambda"`` says in Keras 2."""
    return not _CODE.isdisjoint(_class_names(part)) or any(
        name.endswith("_type") and value == "lambda" for name, value in part.items()
    )


def _called(part: dict) -> list[str]:
    """The functions of TensorFlow that a config may let Keras 2 call.

    More than one only where a config has two class names, of which Keras takes one.
    """
    config = part.get("config")
    config = config if isinstance(config, dict) else {}
    callers = sorted(_CALLERS.keys() & _class_names(part))
    return [
        ".".join(str(config.get(key)) for key in _CALLERS[each]) for each in callers
    ]


def _is_listed(function: str) -> bool:
    name = function.removeprefix("compat.v1.")
    return name in FUNCTIONS.split() or name.startswith(FUNCTION_SPACES)


def _files(part: dict) -> list:
    return [part[key] for key in _VOCABULARIES if isinstance(part.get(key), str)]


def _is_known(part: dict) -> bool:
    """Whether Keras finds what a config names without importing a module for it."""
    if "class_name" not in part or "module" not in part:
        return True  # Without a module, Keras looks among its own classes alone.
    name, is_function = str(part["class_name"]), part["class_name"] == "function"
    registered = str(part.get("config" if is_function else "registered_name"))
    if keras.utils.get_registered_object(registered) is not None:
        return True
    module = str(part["module"])
    return _is_function(module, registered) if is_function else _is_class(module, name)


def _is_function(module: str, name: str) -> bool:
    """Whether Keras has an activation, a loss ... of this name."""
    modules = [getattr(keras, each) for each in FUNCTION_MODULES]
    known = {"builtins", *(f"keras.{each}" for each in FUNCTION_MODULES)}
    return module in known and any(
        name[:1] != "_" and callable(getattr(each, name, None)) for each in modules
    )


def _is_class(module: str, name: str) -> bool:
    """Whether an imported module has a class of this name that a config can make."""
    found = getattr(sys.modules.get(_keras.module_in_file(module)), name, None)
    # Under another name, a class of _CODE would not have been seen.
    is_class = isinstance(found, type) and found.__name__ == name
    return is_class and hasattr(found, "from_config")


def _full_name(part: dict) -> str:
    key = "config" if part["class_name"] == "function" else "class_name"
    names = [str(part[name]) for name in ("module", key) if part.get(name)]
    # Keras writes this module for every function, whoever defined it.
    return ".".join(name for name in names if name != "builtins")
