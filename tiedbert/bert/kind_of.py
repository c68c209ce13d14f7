"""Which kind an encoder was built as."""

from tensorflow import keras


def kind_of(model: keras.Model) -> str:
    """The kind of an encoder, or of a model with a head on one.

    The layer of the tokens knows it: under Keras 3 in its configuration, so that files
    and copies keep it, and under Keras 2 while the program runs. Without it, a model
    counts as a BERT.
    """
    tables = (x for x in model.layers if x.name.endswith("Embedding-Token"))
    return next((getattr(table, "kind", "bert") for table in tables), "bert")
