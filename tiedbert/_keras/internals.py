"""The running Keras, its version and its private attributes.

Much of `_keras` reads what Keras calls private. Every such read passes through
:func:`internal`, which turns a moved attribute into one clear line.
"""

import re
import sys
from types import FrameType
from typing import Any

from tensorflow import keras

# The name of the package that `tf.keras` is.
PACKAGE = keras.Model.__module__.partition(".")[0]
VERSION: str = sys.modules[PACKAGE].__version__
GENERATION = int(VERSION.partition(".")[0])

_ADVICE = "use a Keras that tiedbert's README lists, or report it"


def module_in_file(name: str) -> str:
    """The module of this process that a file names: both generations write "keras"."""
    root, dot, rest = name.partition(".")
    return PACKAGE + dot + rest if root == "keras" else name


def base_and_next_number(name: str) -> tuple[str, int]:
    """What Keras numbers in a name, and the next number: "add_2" -> "add" and 3."""
    numbered = re.fullmatch(r"(.+)_(\d+)", name, re.DOTALL)
    if numbered is None:
        return name, 1
    return numbered[1], int(numbered[2]) + 1


def internal(owner: Any, name: str) -> Any:
    """Read a private attribute of Keras.

    Raises:
        RuntimeError: `owner` has no such attribute in this version of Keras.
    """
    try:
        return getattr(owner, name)
    except AttributeError:
        raise RuntimeError(
            f"Keras {VERSION} has no {type(owner).__name__}.{name}, which "
            f"tiedbert reads to follow a model's graph; {_ADVICE}"
        ) from None


def internal_in_module(module: str, name: str) -> Any:
    """Read a private name of a module that Keras has imported.

    Raises:
        RuntimeError: there is no such module or name in this version of Keras.
    """
    try:
        return getattr(sys.modules[module], name)
    except (KeyError, AttributeError):
        raise RuntimeError(
            f"Keras {VERSION} has no {module}.{name}, which tiedbert reads; {_ADVICE}"
        ) from None


def internal_local(frame: FrameType, name: str) -> Any:
    """Read a local variable of a function of Keras that is running.

    Raises:
        RuntimeError: the function has no such variable in this version of Keras.
    """
    if name not in frame.f_locals:
        raise RuntimeError(
            f"Keras {VERSION} has no {name} in {frame.f_code.co_name}, where tiedbert "
            f"finds the table of a tied head; {_ADVICE}"
        )
    return frame.f_locals[name]
