"""A text classifier on a BERT encoder."""

from tensorflow import keras

from tiedbert.bert.kinds import initializer_of
from tiedbert.bert.layers import FirstToken


def classifier(bert, num_labels, dropout=0.1):
    """A text classifier on the hidden state of the first token, ``[CLS]``.

    Args:
        bert: an encoder built by :func:`tiedbert.bert.build_bert`.
        num_labels: number of classes.
        dropout: rate before the last layer.

    Returns:
        A `keras.Model` with the encoder's inputs and float logits
        ``[batch, num_labels]``.

    Example:
        >>> import json, tempfile, os
        >>> from tiedbert.bert import build_bert
        >>> config = dict(vocab_size=30, hidden_size=8, num_hidden_layers=1,
        ...     num_attention_heads=2, intermediate_size=16, hidden_act="gelu",
        ...     max_position_embeddings=16, type_vocab_size=2)
        >>> path = os.path.join(tempfile.mkdtemp(), "bert_config.json")
        >>> with open(path, "w") as file:
        ...     json.dump(config, file)
        >>> classifier(build_bert(path), num_labels=3).output_shape
        (None, 3)
    """
    initializer = initializer_of(bert)
    pooled = FirstToken(name="Pooler")(bert.output)
    pooled = keras.layers.Dense(
        bert.output_shape[-1],
        activation="tanh",
        kernel_initializer=initializer,
        name="Pooler-Dense",
    )(pooled)
    pooled = keras.layers.Dropout(dropout, name="Classifier-Dropout")(pooled)
    logits = keras.layers.Dense(
        num_labels, kernel_initializer=initializer, name="Classifier"
    )(pooled)
    return keras.Model(bert.inputs, logits, name="classifier")
