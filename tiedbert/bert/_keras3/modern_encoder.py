"""The encoder of ModernBERT, of the layers of the other kinds, for Keras 3."""

from dataclasses import dataclass
from typing import Any

from tensorflow import keras

from tiedbert.bert._keras3.biases import WindowBias
from tiedbert.bert._keras3.encoder import Encoder
from tiedbert.bert._keras3.feed_forward import FeedForward
from tiedbert.bert._keras3.normalization import ConfiguredNormalization

layers = keras.layers


@dataclass
class ModernEncoder(Encoder):
    """Builds one encoder whose norms come before the parts of a block.

    It has no biases but that of the head. The embeddings are normalized, so that the
    first attention has no norm of its own; behind the last block is one more. In
    ``"sliding_attention"`` layers a token sees its neighbours alone. They compute the
    scores of all pairs and mask most of them: their cost is that of the others.

    All kernels start from a truncated normal of `initializer_range`, as those of BERT;
    ModernBERT draws the kernels of the outputs from a narrower one.

    Args:
        name: ``"modernbert"``.
        application: ``"encoder"``.
        settings: as :func:`tiedbert.bert.settings.settings_of` returns them.

    Source: Warner et al., "Smarter, better, faster, longer: a modern bidirectional
    encoder for fast, memory efficient, and long context finetuning and inference",
    2024; the numbers are those of transformers' ``modeling_modernbert.py``.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.dropout = self.settings["embedding_dropout"]
        self.use_bias = False
        self.extras_of: dict[str, Any] = {}  # type of an attention -> what it is given

    def _embeddings(self):
        hidden = super()._embeddings()
        bias, own = self._bias(), self._position_ids()
        if "full_attention" in self.settings["layer_types"]:
            name, theta = "Embedding-Rotary-Position", "global_rope_theta"
            turns = self._turns(hidden, own, name, theta)
            self.extras_of["full_attention"] = {**bias, **turns}
        if "sliding_attention" in self.settings["layer_types"]:
            name, theta = "Embedding-Local-Rotary-Position", "local_rope_theta"
            turns = self._turns(hidden, own, name, theta)
            window = self._window(hidden, *bias.values())
            self.extras_of["sliding_attention"] = {"bias": window, **turns}
        return hidden

    def _turns(self, hidden, own, name, theta):
        base = self.settings[theta]
        return {"rotary_halves": self._rotary(hidden, own, name, base=base)}

    def _window(self, hidden, *bias):
        inputs = [hidden, *bias] if bias else hidden
        reach = self.settings["local_attention"] // 2
        return self.apply(WindowBias, inputs, "Attention-Local-Mask", reach=reach)

    def _block(self, hidden, index):
        self.extras = self.extras_of[self.settings["layer_types"][index]]
        name = f"Transformer-{index}-MultiHeadSelfAttention"
        normed = hidden if index == 0 else self._normalized(hidden, f"{name}-Norm")
        made = self._attention(normed, name)
        if rate := self.settings.get("attention_dropout_rate"):
            made = self.apply(layers.Dropout, made, f"{name}-Dropout", rate=rate)
        hidden = self.apply(layers.Add, [hidden, made], f"{name}-Add")
        name = f"Transformer-{index}-FeedForward"
        made = self._feed_forward(self._normalized(hidden, f"{name}-Norm"), name)
        return self.apply(layers.Add, [hidden, made], f"{name}-Add")

    def _feed_forward(self, hidden, name):
        return self.apply(
            FeedForward,
            hidden,
            name,
            units=self.settings["intermediate_size"],
            activation=[self.settings["hidden_act"], "linear"],
            use_bias=self.use_bias,
            dropout=self.settings["mlp_dropout"],
            kernel_initializer=self.initializer,
        )

    def _normalized(self, hidden, name, epsilon=None):
        options = {"epsilon": self.settings["layer_norm_eps"], "offset": False}
        return self.apply(ConfiguredNormalization, hidden, name, **options)

    def _heads_on(self, hidden):
        return super()._heads_on(self._normalized(hidden, "Output-Norm"))
