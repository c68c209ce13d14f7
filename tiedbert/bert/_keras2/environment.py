"""Prepares the environment that bert4keras needs, just before it is imported.

bert4keras 0.11.5 needs Keras 2, and its errors do not say so: without ``TF_KERAS=1`` it
imports `keras.engine`. TensorFlow's own ``TF_USE_LEGACY_KERAS=1`` has chosen Keras 2.
"""

import importlib.util
import os
import sys
import types

from tiedbert.errors import SetupError

INSTALL = "pip install --no-deps bert4keras==0.11.5"


def prepare() -> None:
    """Set what bert4keras reads; SetupError if it is not installed."""
    if importlib.util.find_spec("bert4keras") is None:
        raise SetupError(
            f"tiedbert.bert needs bert4keras under Keras 2: {INSTALL} (under Keras 3, "
            "without TF_USE_LEGACY_KERAS=1, it needs nothing)"
        )
    os.environ["TF_KERAS"] = "1"  # bert4keras reads it when it is imported.
    if importlib.util.find_spec("distutils") is None:
        _stand_in_for_distutils()


def _stand_in_for_distutils():
    """Provide the function of distutils that bert4keras needs; Python 3.12 has none."""
    util = types.ModuleType("distutils.util")
    yes = {"y", "yes", "t", "true", "on", "1"}
    util.strtobool = lambda text: int(text.lower() in yes)
    package = types.ModuleType("distutils")
    package.util = util
    sys.modules.update({"distutils": package, "distutils.util": util})
