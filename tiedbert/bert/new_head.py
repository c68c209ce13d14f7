"""A classifier loaded from the files of an encoder: its head is new."""

import warnings

from tiedbert.errors import NewHeadWarning

_HEAD = ("Pooler-Dense", "Classifier")


def new_head(named, stored) -> list:
    """The layers of a classifier's head that are missing in a file of an encoder.

    If the file has a part of the classifier, the result is empty: then every name must
    be there.

    Args:
        named: list of (name of a layer, [names of its weights in the file]).
        stored: the names in the file.
    """
    missing = {layer for layer, names in named if not any(n in stored for n in names)}
    if "Classifier" not in missing:
        return []
    return [layer for layer in _HEAD if layer in missing]


def warn_of_new_head(path, layers):
    """Warn of layers that keep their values."""
    if layers:
        warnings.warn(
            f"{path} has no weights for {' and '.join(layers)}, the head of the "
            "classifier, which stays as it is: train it",
            NewHeadWarning,
            stacklevel=3,
        )
