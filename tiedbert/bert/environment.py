"""Prepares the environment that bert4keras needs, before it is imported.

bert4keras 0.11.5 needs Keras 2, and its errors do not say so: without ``TF_KERAS=1`` it
imports `keras.engine`, without ``TF_USE_LEGACY_KERAS=1`` it recurses without end.
"""

import importlib.util
import os
import sys
import types

from tiedbert.errors import InputError

SWITCHES = {"TF_KERAS": "1", "TF_USE_LEGACY_KERAS": "1"}
INSTALL = "pip install --no-deps bert4keras==0.11.5"
_ON = {"1", "true", "True"}  # the values that TensorFlow takes for true


class SetupError(InputError, ImportError):
    """tiedbert.bert cannot be imported; the message says how to mend it."""


def prepare() -> None:
    """Choose legacy Keras, if TensorFlow is not imported yet; SetupError otherwise."""
    if importlib.util.find_spec("bert4keras") is None:
        raise SetupError(f"tiedbert.bert needs bert4keras: {INSTALL}")
    if "tensorflow" not in sys.modules:
        _set_switches()
    from tensorflow import keras

    if not keras.Model.__module__.startswith("tf_keras"):
        raise SetupError(
            "tiedbert.bert needs Keras 2 (tf_keras), but TensorFlow already runs with "
            "Keras 3: import tiedbert.bert before tensorflow, or start with "
            "TF_USE_LEGACY_KERAS=1 TF_KERAS=1 python ..."
        )
    os.environ["TF_KERAS"] = "1"  # bert4keras reads it when it is imported.
    if importlib.util.find_spec("distutils") is None:
        _stand_in_for_distutils()


def _set_switches():
    contrary = {
        f"{name}={os.environ[name]}"
        for name, value in SWITCHES.items()
        if os.environ.get(name, value) not in _ON
    }
    if contrary:
        raise SetupError(
            "tiedbert.bert needs TF_KERAS=1 and TF_USE_LEGACY_KERAS=1, but the "
            f"environment says {' and '.join(sorted(contrary))}: unset both variables"
        )
    os.environ.update(SWITCHES)


def _stand_in_for_distutils():
    """Provide the function of distutils that bert4keras needs; Python 3.12 has none."""
    util = types.ModuleType("distutils.util")
    yes = {"y", "yes", "t", "true", "on", "1"}
    util.strtobool = lambda text: int(text.lower() in yes)
    package = types.ModuleType("distutils")
    package.util = util
    sys.modules.update({"distutils": package, "distutils.util": util})
