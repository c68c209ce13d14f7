"""Heads on a BERT encoder: the tied masked language model, and a classifier."""

from bert4keras.layers import LayerNormalization
from tensorflow import keras

from tiedbert.bert.kinds import FreshTruncatedNormal
from tiedbert.layers import EmbeddingDense, GatherPositions


def masked_lm(bert):
    """A masked language model whose head works on the masked positions alone.

    The positions are gathered before the transform and the head: with 15 % of them
    masked, the largest product of the model shrinks to a seventh. The head shares
    the table of the encoder's token embedding. Layers carry bert4keras' names, so
    that ``cls/predictions/*`` of a Google checkpoint belong to them.

    Args:
        bert: an encoder built by :func:`tiedbert.bert.build_bert`, hidden
            ``[batch, time, width]``.

    Returns:
        A `keras.Model` with one more input, ``"Masked-Positions"``, int32
        ``[batch, n]``; its output is float logits ``[batch, n, vocab]``.

    Source: Devlin et al., "BERT: Pre-training of deep bidirectional transformers",
    2018, appendix A; the gather is that of Google's ``run_pretraining.py``.

    Example:
        >>> import json, tempfile, os
        >>> from tiedbert.bert import build_bert
        >>> config = dict(vocab_size=30, hidden_size=8, num_hidden_layers=1,
        ...     num_attention_heads=2, intermediate_size=16, hidden_act="gelu",
        ...     max_position_embeddings=16, type_vocab_size=2)
        >>> path = os.path.join(tempfile.mkdtemp(), "bert_config.json")
        >>> with open(path, "w") as file:
        ...     json.dump(config, file)
        >>> masked_lm(build_bert(path)).output_shape
        (None, None, 30)
    """
    table = bert.get_layer("Embedding-Token")
    activation = bert.get_layer("Transformer-0-FeedForward").activation[0]
    positions = keras.Input((None,), dtype="int32", name="Masked-Positions")
    hidden = GatherPositions(name="MLM-Gather")([bert.output, positions])
    hidden = keras.layers.Dense(
        table.output_dim,
        activation=activation,
        kernel_initializer=FreshTruncatedNormal(),
        name="MLM-Dense",
    )(hidden)
    hidden = LayerNormalization(epsilon=1e-12, name="MLM-Norm")(hidden)
    # The name under which checkpoints know the one weight that is the head's own.
    head = EmbeddingDense(table, activation="linear", name="MLM-Bias")
    return keras.Model([*bert.inputs, positions], head(hidden), name="masked_lm")


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
    pooled = FirstToken(name="Pooler")(bert.output)
    pooled = keras.layers.Dense(
        bert.output_shape[-1],
        activation="tanh",
        kernel_initializer=FreshTruncatedNormal(),
        name="Pooler-Dense",
    )(pooled)
    pooled = keras.layers.Dropout(dropout, name="Classifier-Dropout")(pooled)
    logits = keras.layers.Dense(
        num_labels, kernel_initializer=FreshTruncatedNormal(), name="Classifier"
    )(pooled)
    return keras.Model(bert.inputs, logits, name="classifier")


@keras.utils.register_keras_serializable("tiedbert")
class FirstToken(keras.layers.Layer):
    """float ``[batch, time, width]`` -> ``[batch, width]``, the state of ``[CLS]``."""

    def call(self, inputs):
        """Take the first position."""
        return inputs[:, 0]
