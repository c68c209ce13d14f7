"""A text classifier on a BERT encoder."""

from numbers import Integral, Real

from tensorflow import keras

from tiedbert.bert.encoders import (
    check_encoder,
    feed_forward_of,
    has_pooler,
    initializer_of,
)
from tiedbert.bert.first_token import FirstToken
from tiedbert.bert.head_activations import pooling_activation
from tiedbert.bert.kind_of import kind_of
from tiedbert.errors import InputError


def classifier(bert: keras.Model, num_labels: int, dropout: float = 0.1) -> keras.Model:
    """A text classifier on the hidden state of the first token, ``[CLS]``.

    It adds a pooler, as wide as the hidden states, and the layer of the logits, under
    the names that file formats know. An encoder that was built ``with_pool`` keeps its
    own pooler. The activation of a new pooler is that of Hugging Face's classifiers:
    tanh of BERT, RoBERTa and most kinds, gelu of ELECTRA, relu of DistilBERT,
    ``hidden_act`` of RoFormer. The pooler of a ``"modernbert"`` is that of BERT, with
    tanh: Hugging Face's classifier of that kind has another head, and this one is not
    written as such.

    Args:
        bert: an encoder built by :func:`tiedbert.bert.build_bert`.
        num_labels: number of classes, 1 or more.
        dropout: rate before the last layer. The setting ``classifier_dropout`` of a
            configuration is not read.

    Returns:
        A `keras.Model` with the encoder's inputs and float logits
        ``[batch, num_labels]``.

    Raises:
        InputError: `bert` is no encoder (it has another head) or was built
            ``with_pack``, or `num_labels` or `dropout` is out of range.

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
    check_encoder(bert, "classifier", pooled=True)
    if any(tensor.name.endswith("Input-Pack") for tensor in bert.inputs):
        raise InputError(
            "classifier expected one text a row, received an encoder that was built "
            "with_pack: a row of several texts has no first token for each"
        )
    _check_numbers(num_labels, dropout)
    pooled = bert.output if has_pooler(bert) else _pooled(bert)
    pooled = keras.layers.Dropout(dropout, name="Classifier-Dropout")(pooled)
    logits = keras.layers.Dense(
        num_labels, kernel_initializer=initializer_of(bert), name="Classifier"
    )(pooled)
    return keras.Model(bert.inputs, logits, name="classifier")


def _check_numbers(num_labels, dropout):
    is_number = isinstance(num_labels, Integral) and not isinstance(num_labels, bool)
    if not is_number or num_labels < 1:
        raise InputError(f"num_labels: expected 1 or more, received {num_labels!r}")
    if not isinstance(dropout, Real) or not 0 <= dropout < 1:
        raise InputError(f"dropout: expected 0 <= dropout < 1, received {dropout!r}")


def _pooled(bert):
    return keras.layers.Dense(
        bert.output_shape[-1],
        activation=pooling_activation(
            kind_of(bert), feed_forward_of(bert).activation[0]
        ),
        kernel_initializer=initializer_of(bert),
        name="Pooler-Dense",
    )(FirstToken(name="Pooler")(bert.output))
