"""The kinds of model by name."""

from tiedbert.bert import backend
from tiedbert.errors import InputError

# Kinds that one Keras alone has.
_OF_KERAS_2 = {
    *("gpt", "gpt2", "gpt2_ml"),
    *(
        version + part
        for version in ("t5", "t5.1.0", "t5.1.1", "mt5.1.1")
        for part in ("", "_encoder", "_decoder")
    ),
}
OF_KERAS_3 = {"hf_roberta", "distilbert", "modernbert"}

KINDS = tuple(sorted(backend.KINDS))


def checked_kind(name: str) -> str:
    """The name of a kind in lower case; InputError if this Keras does not have it."""
    kind = name.lower()
    if kind in KINDS:
        return kind
    if kind in _OF_KERAS_2:
        raise InputError(
            f"a {name!r} model is bert4keras' own and needs Keras 2: start with "
            "TF_USE_LEGACY_KERAS=1"
        )
    if kind in OF_KERAS_3:
        raise InputError(
            f"a {name!r} model is tiedbert's own and needs Keras 3: start without "
            "TF_USE_LEGACY_KERAS"
        )
    raise InputError(f"no model kind {name!r}: expected one of {', '.join(KINDS)}")
