"""Tied BERT heads, exact surgery on Keras models, adversarial training.

The public names are those in the ``__all__`` of this package and of its packages. They
are imported when they are first used: importing tiedbert imports no TensorFlow. A
package that cannot be imported is a missing attribute, and the AttributeError says why:
``hasattr(tiedbert, "bert")`` is False without bert4keras.

Example:
    >>> import tiedbert
    >>> tiedbert.surgery.split.__name__
    'split'
"""

import importlib

__version__ = "0.1.0"
__all__ = [
    "adversarial",
    "bert",
    "errors",
    "layers",
    "losses",
    "robustness",
    "surgery",
    "text",
]


def __getattr__(name):
    if name in __all__:
        try:
            return importlib.import_module(f"tiedbert.{name}")
        except ImportError as error:
            raise AttributeError(str(error)) from error
    raise AttributeError(f"module 'tiedbert' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
