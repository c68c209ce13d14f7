"""The tied masked language model head on a BERT encoder."""

from typing import Any

from tensorflow import keras

from tiedbert.bert.backend import ConfiguredNormalization, LayerNormalization
from tiedbert.bert.early_gather import last_block_at
from tiedbert.bert.encoders import check_encoder, feed_forward_of, initializer_of
from tiedbert.bert.head_activations import transform_activation
from tiedbert.bert.kind_of import kind_of
from tiedbert.errors import InputError
from tiedbert.layers import EmbeddingDense, GatherPositions, TiedCrossEntropy

_LOSS_OPTIONS = ("chunk_size", "label_smoothing", "z_loss", "ignore_index")


def masked_lm(
    bert: keras.Model,
    *,
    predictions: int | None = None,
    early_gather: bool = False,
    with_loss: bool = False,
    **loss_options: Any,
) -> keras.Model:
    """A masked language model whose head is computed at the masked positions only.

    The positions are gathered before the transform and the head: with 15 % of them
    masked, the largest matrix product of the model shrinks to a seventh. The head
    shares the table of the token embedding. Layers have bert4keras' names, under which
    :func:`tiedbert.bert.load_google_checkpoint` finds the variables of the head.

    The head depends on the kind of the encoder: if the table is narrower than the
    hidden states (ALBERT, ELECTRA), the transform projects to its width; RoFormer v2
    has neither transform nor bias; the activation of RoBERTa's transform is gelu; the
    transform of ModernBERT has no biases.

    Args:
        bert: an encoder built by :func:`tiedbert.bert.build_bert`, hidden
            ``[batch, time, width]``.
        predictions: number of masked positions in each text; None (the default) for
            any number. With a fixed batch size and length, every shape is then static,
            as XLA and TPUs need it.
        early_gather: gather before the last block, not behind it. Its queries,
            feed-forward layer and norms are then computed at the masked positions only
            (with relative or rotary positions, the queries at all positions). Logits
            and gradients are the same up to rounding. Dropout in the last block has
            another shape, so the same seed gives other numbers. Default: False.
        with_loss: include the loss, which never holds the logits of all positions at
            once, and the metrics ``accuracy`` and ``perplexity``
            (:class:`tiedbert.layers.TiedCrossEntropy`). Compile such a model without a
            loss: ``model.compile(optimizer)``. Layers and their names in checkpoints
            are the same. Default: False.
        **loss_options: with `with_loss`, ``chunk_size``, ``label_smoothing``,
            ``z_loss`` or ``ignore_index`` of that layer.

    Returns:
        A `keras.Model` with one more input, ``"Masked-Positions"``, int32
        ``[batch, n]``; its output is float logits ``[batch, n, vocab]``. It shares
        the layers of `bert`. With `with_loss`, two more inputs ``[batch, n]``,
        ``"Masked-Labels"``, int32, and ``"Masked-Weights"``, float32; its output is
        the cross-entropy of each position in nats, float32 ``[batch, n]``.

    Raises:
        InputError: `bert` is no encoder (it has a head, or no table); with
            `early_gather`, a layer behind the last attention mixes positions; or there
            are options of the loss without `with_loss`.

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
        >>> masked_lm(build_bert(path), predictions=5).output_shape
        (None, 5, 30)
        >>> [i.name for i in masked_lm(build_bert(path), with_loss=True).inputs]
        ['Input-Token', 'Input-Segment', 'Masked-Positions', 'Masked-Labels', \
'Masked-Weights']
    """
    _check_tokens(bert)
    check_encoder(bert, "masked_lm")
    _check_options(loss_options, with_loss)
    positions = keras.Input((predictions,), dtype="int32", name="Masked-Positions")
    layer = GatherPositions(name="MLM-Gather")

    def gather(hidden):
        return layer([hidden, positions])

    hidden = last_block_at(bert, gather) if early_gather else gather(bert.output)
    head, hidden = _head(bert, hidden, with_loss, loss_options)
    inputs = [*bert.inputs, positions]
    if not with_loss:
        return keras.Model(inputs, head(hidden), name="masked_lm")
    targets = [
        keras.Input((predictions,), dtype="int32", name="Masked-Labels"),
        keras.Input((predictions,), dtype="float32", name="Masked-Weights"),
    ]
    losses = head([hidden, *targets])
    return keras.Model([*inputs, *targets], losses, name="masked_lm")


def _head(bert, hidden, with_loss, loss_options):
    """The layer of the head, and what it is called on: the transformed states."""
    table = bert.get_layer("Embedding-Token")
    if _has_plain_head(bert):
        hidden = _mapped(bert, table, hidden)
        # It has no variable of its own, so no name in checkpoints.
        options = {"use_bias": False, "name": "Output-MLM"}
    else:
        hidden = _transformed(bert, table, hidden)
        # Checkpoints have its only weight, the bias, under this name.
        options = {"name": "MLM-Bias"}
    make = TiedCrossEntropy if with_loss else EmbeddingDense
    return make(table, activation="linear", **options, **loss_options), hidden


def _transformed(bert, table, hidden):
    """The transform before the head, as wide as the table."""
    has_biases = bert.get_layer("Embedding-Norm").offset  # ModernBERT has none
    hidden = keras.layers.Dense(
        table.output_dim,
        activation=transform_activation(
            kind_of(bert), feed_forward_of(bert).activation[0]
        ),
        use_bias=has_biases,
        kernel_initializer=initializer_of(bert),
        name="MLM-Dense",
    )(hidden)
    return LayerNormalization(
        epsilon=_epsilon(bert), offset=has_biases, name="MLM-Norm"
    )(hidden)


def _epsilon(bert) -> float:
    """The epsilon of the norm in the head: that of the configuration, if it has one.

    Otherwise 1e-12, as in bert4keras and Google's BERT, whatever the blocks have.
    """
    norm = bert.get_layer("Embedding-Norm")
    return norm.epsilon if isinstance(norm, ConfiguredNormalization) else 1e-12


def _mapped(bert, table, hidden):
    """The layers of RoFormer v2 before the head: projection, if needed, and dropout."""
    if table.output_dim != hidden.shape[-1]:
        hidden = keras.layers.Dense(
            table.output_dim,
            use_bias=False,
            kernel_initializer=initializer_of(bert),
            name="Output-Mapping",
        )(hidden)
    rates = [x.rate for x in bert.layers if isinstance(x, keras.layers.Dropout)]
    if not rates:
        return hidden
    return keras.layers.Dropout(rates[-1], name="Output-MLM-Dropout")(hidden)


def _has_plain_head(bert):
    """Whether it is a RoFormer v2, whose norms only divide."""
    return not bert.get_layer("Embedding-Norm").scale


def _check_options(options, with_loss):
    unknown = [name for name in options if name not in _LOSS_OPTIONS]
    if unknown:
        raise InputError(
            f"masked_lm has no option {', '.join(unknown)}: expected predictions, "
            f"early_gather, with_loss, or of the loss {', '.join(_LOSS_OPTIONS)}"
        )
    if options and not with_loss:
        raise InputError(
            f"masked_lm received {', '.join(options)}, of the loss: that needs "
            "with_loss=True"
        )


def _check_tokens(bert):
    """InputError for a T5, which has no such head and a token input of another name."""
    names = {layer.name for layer in bert.layers}
    if not {"Embedding-Token", "Input-Token"} <= names:
        raise InputError(
            "masked_lm expected an encoder of bert4keras' layers with an input "
            f'"Input-Token" and a table "Embedding-Token", received model {bert.name!r}'
        )
