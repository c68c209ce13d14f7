"""Encoders as bert4keras builds them, of our own layers, for Keras 3."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tensorflow import keras

from tiedbert.bert._keras3.attention import MultiHeadAttention
from tiedbert.bert._keras3.attention_probabilities import AttentionProbabilities
from tiedbert.bert._keras3.biases import CausalBias, PrefixBias
from tiedbert.bert._keras3.embeddings import (
    AddSegments,
    CountedPositions,
    OneSegment,
    PositionEmbedding,
    RelativePositions,
    RotaryPositions,
    TokenEmbedding,
)
from tiedbert.bert._keras3.feed_forward import FeedForward
from tiedbert.bert._keras3.normalization import (
    ConfiguredNormalization,
    LayerNormalization,
)
from tiedbert.bert._keras3.packing import PackBias, PackPositions
from tiedbert.bert.first_token import FirstToken
from tiedbert.bert.head_activations import transform_activation
from tiedbert.bert.initializers import DeepTruncatedNormal, FreshTruncatedNormal
from tiedbert.layers import EmbeddingDense

layers = keras.layers


@dataclass(frozen=True)
class Kind:
    """What distinguishes a kind of encoder from BERT.

    Attributes:
        positions: ``"learned"``, ``"relative"``, ``"rotary"``, or ``"counted"``:
            learned, and counted over the tokens that are no padding.
        shared: whether all blocks are one block, called again and again.
        plain: whether there are no biases, and norms only divide (RoFormer v2).
        block_epsilon: of the norms where the configuration says none.
        embedding_epsilon: of the norm of the embeddings, likewise.
        segments: whether tokens have segments.
        one_segment: whether a single segment needs no input.
        masks_first: whether the first token may be padding, in texts padded on the
            left; bert4keras never masks it.
        attended_dropout: whether the output of the attention has dropout.
    """

    positions: str = "learned"
    shared: bool = False
    plain: bool = False
    block_epsilon: float = 1e-12
    embedding_epsilon: float = 1e-12
    segments: bool = True
    one_segment: bool = False
    masks_first: bool = False
    attended_dropout: bool = True


_LOOSE = 1e-7  # Keras' own epsilon, which bert4keras has in some kinds
KINDS = {
    "bert": Kind(),
    "roberta": Kind(),
    "albert": Kind(shared=True, block_epsilon=_LOOSE),
    "albert_unshared": Kind(),
    "nezha": Kind("relative", block_epsilon=_LOOSE, embedding_epsilon=_LOOSE),
    "roformer": Kind("rotary", block_epsilon=_LOOSE, embedding_epsilon=_LOOSE),
    "roformer_v2": Kind(
        "rotary", plain=True, block_epsilon=_LOOSE, embedding_epsilon=_LOOSE
    ),
    "electra": Kind(),
    "electra_generator": Kind(),
    "hf_roberta": Kind("counted", one_segment=True, masks_first=True),
    "distilbert": Kind(segments=False, masks_first=True, attended_dropout=False),
    # And what ModernEncoder makes of it.
    "modernbert": Kind("rotary", segments=False, masks_first=True),
}


@dataclass
class Encoder:
    """Builds one encoder; the layers are kept by name, as a shared one is called again.

    Args:
        name: the kind, a key of :data:`KINDS`.
        application: ``"encoder"``, ``"lm"`` or ``"unilm"``.
        settings: as :func:`tiedbert.bert.settings.settings_of` returns them.
    """

    name: str
    application: str
    settings: Mapping[str, Any]
    layers: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        get = self.settings.get
        self.kind = KINDS[self.name]
        self.width = self.settings["hidden_size"]
        self.blocks = self.settings["num_hidden_layers"]
        self.embedding_width = get("embedding_size") or self.width
        self.heads = self.settings["num_attention_heads"]
        self.head_size = get("attention_head_size") or self.width // self.heads
        self.key_size = get("attention_key_size") or self.head_size
        self.dropout = get("dropout_rate") or 0.0
        self.use_bias = not self.kind.plain
        self.initializer = self._initializer()
        self.segments = self._segments()
        self.inputs: dict[str, Any] = {}
        self.extras: dict[str, Any] | None = None  # what every attention is given

    def _initializer(self):
        if self.kind.plain:
            return DeepTruncatedNormal(self.blocks)
        return FreshTruncatedNormal(self.settings.get("initializer_range", 0.02))

    def _segments(self):
        """The number of segments."""
        return self.settings.get("segment_vocab_size", 2) if self.kind.segments else 0

    def model(self) -> keras.Model:
        """The functional model."""
        self.inputs = self._inputs()
        hidden = self._embeddings()
        for index in range(self.blocks):
            hidden = self._block(hidden, index)
        outputs = self._heads_on(hidden)
        outputs = outputs if len(outputs) > 1 else outputs[0]
        return keras.Model(
            [*self.inputs.values()], outputs, name=self.settings.get("name")
        )

    def _inputs(self):
        shape = (self.settings.get("sequence_length"),)
        names = ["Input-Token"]
        if self.segments > 1 or (self.segments and not self.kind.one_segment):
            names.append("Input-Segment")
        if self.settings.get("custom_position_ids"):
            names.append("Input-Position")
        if self.settings.get("with_pack"):
            names.append("Input-Pack")
        prefix = self.settings.get("prefix") or ""
        return {
            name: keras.Input(shape, dtype="int32", name=prefix + name)
            for name in names
        }

    def apply(self, make: Callable, inputs: Any, name: str, **options: Any) -> Any:
        """Call the layer of a name, made at the first call."""
        name = (self.settings.get("prefix") or "") + name
        if name not in self.layers:
            self.layers[name] = make(name=name, **options)
        return self.layers[name](inputs)

    # Embeddings

    @property
    def vocab_size(self) -> int:
        """The number of tokens that are kept, and of those made of them."""
        kept = self.settings.get("keep_tokens")
        size = self.settings["vocab_size"] if kept is None else len(kept)
        return size + len(self.settings.get("compound_tokens") or ())

    def _embeddings(self):
        hidden = self.apply(
            TokenEmbedding,
            self.inputs["Input-Token"],
            "Embedding-Token",
            input_dim=self.vocab_size,
            output_dim=self.embedding_width,
            pad_id=self.settings.get("pad_token_id", 0),
            kind=self.name,
            masks_first=self.kind.masks_first,
            embeddings_initializer=self.initializer,
        )
        if self.segments:
            hidden = self._with_segments(hidden)
        if self.kind.positions in ("learned", "counted"):
            hidden = self._with_positions(hidden)
        epsilon = self.kind.embedding_epsilon
        if self.kind.plain:
            hidden = self._dropped(hidden, "Embedding-Dropout")
            hidden = self._normalized(hidden, "Embedding-Norm", epsilon)
        else:
            hidden = self._normalized(hidden, "Embedding-Norm", epsilon)
            hidden = self._dropped(hidden, "Embedding-Dropout")
        if self.embedding_width == self.width:
            return hidden
        options = {"use_bias": self.use_bias}
        return self._dense(hidden, "Embedding-Mapping", self.width, **options)

    def _with_segments(self, hidden):
        options = {
            "output_dim": self.embedding_width,
            "embeddings_initializer": self.initializer,
        }
        if "Input-Segment" not in self.inputs:
            return self.apply(OneSegment, hidden, "Embedding-Segment", **options)
        segments = self.apply(
            layers.Embedding,
            self.inputs["Input-Segment"],
            "Embedding-Segment",
            input_dim=self.segments,
            **options,
        )
        return self.apply(AddSegments, [hidden, segments], "Embedding-Token-Segment")

    def _position_ids(self):
        """The positions that are given, or restart with each text; None for 0, 1 ..."""
        counts = self.kind.positions == "counted"
        padding = self.settings["padding_position"] if counts else -1
        if "Input-Pack" in self.inputs:
            name, pack = "Embedding-Pack-Position", self.inputs["Input-Pack"]
            return self.apply(PackPositions, pack, name, first=padding + 1)
        if "Input-Position" in self.inputs or not counts:
            return self.inputs.get("Input-Position")
        return self.apply(
            CountedPositions,
            self.inputs["Input-Token"],
            "Embedding-Counted-Position",
            pad_id=self.settings["pad_token_id"],
            padding_position=padding,
            positions=self._positions,
        )

    @property
    def _positions(self):
        return self.settings.get("max_position", 512)

    def _with_positions(self, hidden):
        own = self._position_ids()
        return self.apply(
            PositionEmbedding,
            hidden if own is None else [hidden, own],
            "Embedding-Position",
            input_dim=self._positions,
            output_dim=self.embedding_width,
            hierarchical=self.settings.get("hierarchical_position"),
            custom_position_ids=own is not None,
            embeddings_initializer=self.initializer,
        )

    # Blocks

    def _block(self, hidden, index):
        block = self._block_name(index)
        hidden = self._residual(
            hidden, self._attention, f"{block}-MultiHeadSelfAttention"
        )
        return self._residual(hidden, self._feed_forward, f"{block}-FeedForward")

    def _block_name(self, index):
        """Blocks of one name share their weights; ALBERT may have several such."""
        if not self.kind.shared:
            return f"Transformer-{index}"
        groups, blocks = self.settings.get("num_hidden_groups", 1), self.blocks
        return (
            "Transformer" if groups == 1 else f"Transformer-{index * groups // blocks}"
        )

    def _residual(self, hidden, part, name):
        """A part of a block, added to its input, and normalized."""
        made = part(hidden, name)
        if self.kind.attended_dropout or part != self._attention:
            made = self._dropped(made, f"{name}-Dropout")
        added = self.apply(layers.Add, [hidden, made], f"{name}-Add")
        return self._normalized(added, f"{name}-Norm", self.kind.block_epsilon)

    def _attention(self, hidden, name):
        extras = self._extras(hidden)
        relative = [tensor for kind, tensor in extras.items() if kind == "relative"]
        options = {
            "heads": self.heads,
            "use_bias": self.use_bias,
            "kernel_initializer": self.initializer,
        }
        probabilities = self.apply(
            AttentionProbabilities,
            [hidden, hidden, *extras.values()],
            f"{name}-Probabilities",
            key_size=self.key_size,
            extras=list(extras),
            **options,
        )
        return self.apply(
            MultiHeadAttention,
            [hidden, hidden, probabilities, *relative],
            name,
            head_size=self.head_size,
            out_dim=self.width,
            attention_dropout=self.settings.get("attention_dropout_rate") or 0.0,
            relative=bool(relative),
            **options,
        )

    def _extras(self, hidden):
        """What the attention is given beside the hidden states, made once."""
        if self.extras is None:
            self.extras = {**self._bias(), **self._positions_for(hidden)}
        return self.extras

    def _bias(self):
        bias = self._bias_of_application()
        if "Input-Pack" in self.inputs:
            pack = self.inputs["Input-Pack"]
            inputs = pack if bias is None else [pack, bias]
            bias = self.apply(PackBias, inputs, "Attention-Pack-Mask")
        return {} if bias is None else {"bias": bias}

    def _bias_of_application(self):
        if self.application == "lm":
            ids = self.inputs["Input-Token"]
            return self.apply(CausalBias, ids, "Attention-LM-Mask")
        if self.application == "unilm":
            ids = self.inputs["Input-Segment"]
            return self.apply(PrefixBias, ids, "Attention-UniLM-Mask")
        return None

    def _positions_for(self, hidden):
        if self.kind.positions == "relative":
            name = "Embedding-Relative-Position"
            options = {"output_dim": self.key_size}
            return {"relative": self.apply(RelativePositions, hidden, name, **options)}
        if self.kind.positions == "rotary":
            own, name = self._position_ids(), "Embedding-Rotary-Position"
            return {"rotary": self._rotary(hidden, own, name)}
        return {}

    def _rotary(self, hidden, own, name, **options):
        return self.apply(
            RotaryPositions,
            hidden if own is None else [hidden, own],
            name,
            output_dim=self.key_size,
            custom_position_ids=own is not None,
            **options,
        )

    def _feed_forward(self, hidden, name):
        return self.apply(
            FeedForward,
            hidden,
            name,
            units=self.settings["intermediate_size"],
            activation=self.settings["hidden_act"],
            use_bias=self.use_bias,
            kernel_initializer=self.initializer,
        )

    # Parts of all

    def _dropped(self, hidden, name):
        if self.dropout == 0:
            return hidden
        return self.apply(layers.Dropout, hidden, name, rate=self.dropout)

    def _normalized(self, hidden, name, epsilon):
        said = self.settings.get("layer_norm_eps")
        options = {"epsilon": epsilon if said is None else said}
        if self.kind.plain:
            options.update(zero_mean=False, scale=False, offset=False)
        make = LayerNormalization if said is None else ConfiguredNormalization
        return self.apply(make, hidden, name, **options)

    def _dense(self, hidden, name, units, **options):
        options = {"kernel_initializer": self.initializer, **options}
        return self.apply(layers.Dense, hidden, name, units=units, **options)

    # Heads that bert4keras puts on an encoder

    def _heads_on(self, hidden):
        if self.settings.get("with_discriminator"):
            return [self._discriminator(hidden)]
        outputs = []
        pool = self.settings.get("with_pool") or bool(self.settings.get("with_nsp"))
        if pool:
            outputs.append(self._pooled(hidden, pool))
        predicts = self.settings.get("with_mlm") or self.application != "encoder"
        if predicts:  # a language model has a head in any case
            outputs.append(self._masked_lm(hidden, predicts))
        return outputs or [hidden]

    def _pooled(self, hidden, activation):
        first = self.apply(FirstToken, hidden, "Pooler")
        activation = "tanh" if activation is True else activation
        pooled = self._dense(first, "Pooler-Dense", self.width, activation=activation)
        if not self.settings.get("with_nsp"):
            return pooled
        return self._dense(pooled, "NSP-Proba", 2, activation="softmax")

    def _masked_lm(self, hidden, activation):
        activation = "softmax" if activation is True else activation
        if self.kind.plain:
            if self.embedding_width != self.width:
                hidden = self._dense(
                    hidden, "Output-Mapping", self.embedding_width, use_bias=False
                )
            hidden = self._dropped(hidden, "Output-MLM-Dropout")
            name, options = "Output-MLM", {"use_bias": False}
            last = "Output-MLM-Activation"
        else:
            act = transform_activation(self.name, self.settings["hidden_act"])
            options = {"activation": act, "use_bias": self.use_bias}
            hidden = self._dense(hidden, "MLM-Dense", self.embedding_width, **options)
            hidden = self._normalized(hidden, "MLM-Norm", 1e-12)
            name, options, last = "MLM-Bias", {}, "MLM-Activation"
        head = partial(EmbeddingDense, self._table(), "linear")
        logits = self.apply(head, hidden, name, **options)
        return self.apply(layers.Activation, logits, last, activation=activation)

    def _table(self):
        return self.layers[(self.settings.get("prefix") or "") + "Embedding-Token"]

    def _discriminator(self, hidden):
        activation = self.settings["with_discriminator"]
        activation = "sigmoid" if activation is True else activation
        act = self.settings["hidden_act"]
        hidden = self._dense(hidden, "Discriminator-Dense", self.width, activation=act)
        return self._dense(hidden, "Discriminator-Prediction", 1, activation=activation)
