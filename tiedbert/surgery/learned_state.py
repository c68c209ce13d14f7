"""What preprocessing layers have learned by `adapt` and no variable holds."""

from typing import Any

from tensorflow import keras

_LOOKUPS = keras.layers.StringLookup, keras.layers.IntegerLookup


def copy_learned(source: Any, copy: Any) -> None:
    """Give `copy` the bins or the vocabulary of `source`.

    Before it is called: the shape of its output may depend on that.
    """
    if isinstance(source, keras.layers.Discretization):
        if source.bin_boundaries is not None:
            copy.bin_boundaries = [float(bound) for bound in source.bin_boundaries]
    elif isinstance(source, _LOOKUPS):
        _copy_vocabulary(source, copy)


def _copy_vocabulary(source, copy):
    words = source.get_vocabulary()  # the special ones first, as set_vocabulary wants
    if list(words) == list(copy.get_vocabulary()):
        return
    if source.output_mode == "tf_idf":
        copy.set_vocabulary(words, source.idf_weights.numpy()[: len(words)])
    else:
        copy.set_vocabulary(words)


def finalize_state(copy: keras.layers.Layer) -> None:
    """Let a copy derive what it keeps beside its variables, as Normalization does.

    The other layers of Keras would derive it from counts that no copy has.
    """
    learned = keras.layers.Discretization, *_LOOKUPS, keras.layers.TextVectorization
    if hasattr(copy, "finalize_state") and not isinstance(copy, learned):
        copy.finalize_state()
