"""A kind of encoder and its names in checkpoints, with a model or without."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

from tiedbert.bert._keras3.encoder import Encoder
from tiedbert.bert._keras3.modern_encoder import ModernEncoder
from tiedbert.bert._keras3.resizing import resized
from tiedbert.bert.google_names import OF_TOKENS, TRANSPOSED, google_names
from tiedbert.bert.own_weights import own_weights

_TITLES = {
    "roberta": "BERT",
    "albert_unshared": "ALBERT",
    "roformer": "RoFormer",
    "roformer_v2": "RoFormerV2",
    "electra_generator": "ELECTRA's generator",
    "modernbert": "ModernBERT",
    "hf_roberta": "RoBERTa",
    "distilbert": "DistilBERT",
}
_ENCODERS = {"modernbert": ModernEncoder}  # of other kinds: Encoder
# The settings that matter to checkpoints.
_OPTIONS = (
    *("keep_tokens", "compound_tokens", "prefix"),
    *("autoresize_weights", "ignore_invalid_weights"),
)


class Transformer:
    """What a checkpoint of a kind has for which layer.

    Args:
        kind: a key of `KINDS`.
        blocks: number of blocks.
        keep_tokens: ids of the tokens of the checkpoint that a model has; None for all.
        compound_tokens: for each further token a list of ids, or a tuple of such a list
            and its weights.
        autoresize_weights: whether weights of another size are resized.
        ignore_invalid_weights: whether weights that the checkpoint lacks stay.
        prefix: what the names of the layers begin with.
    """

    def __init__(
        self,
        kind: str,
        blocks: int,
        keep_tokens: Any = None,
        compound_tokens: Any = None,
        autoresize_weights: bool = False,
        ignore_invalid_weights: bool = False,
        prefix: str | None = None,
    ) -> None:
        self.kind, self.blocks = kind, blocks
        self.keep_tokens, self.compound_tokens = keep_tokens, compound_tokens
        self.autoresize_weights = autoresize_weights
        self.ignore_invalid_weights = ignore_invalid_weights
        self.prefix = prefix or ""
        self.layers: dict[str, keras.layers.Layer] = {}
        self.model: keras.Model | None = None

    @property
    def title(self) -> str:
        """The kind as its authors write it, for messages."""
        return _TITLES.get(self.kind, self.kind.upper())

    def prefixed(self, name: str) -> str:
        """The name of a layer."""
        return self.prefix + name

    def variable_mapping(self) -> dict[str, list[str]]:
        """Name of a layer, without the prefix -> names of its weights."""
        return google_names(self.kind, self.blocks)

    def load_variable(self, checkpoint: str, name: str) -> np.ndarray:
        """The numbers of one variable as the model has them."""
        value = tf.train.load_variable(checkpoint, name)
        if name == TRANSPOSED:
            return value.T
        return self._of_tokens(value) if name.endswith(OF_TOKENS) else value

    def _of_tokens(self, rows):
        """The rows of the tokens that are kept, and the means of those compounded."""
        if self.keep_tokens is not None:
            rows = rows[list(self.keep_tokens)]
        made = [rows]
        for token in self.compound_tokens or ():
            ids, weights = token if isinstance(token, tuple) else (token, None)
            made.append(np.average(rows[list(ids)], 0, weights)[None])
        return np.concatenate(made, 0).astype(rows.dtype)

    def load_weights_from_checkpoint(self, checkpoint: str) -> None:
        """Load what is there, resized or not as the options say."""
        for name, stored in self.variable_mapping().items():
            layer = self.layers.get(self.prefixed(name))
            if layer is None:
                continue
            for index, (weight, variable) in enumerate(
                zip(own_weights(layer), stored, strict=True)
            ):
                try:
                    value = self.load_variable(checkpoint, variable)
                except tf.errors.OpError:
                    if not self.ignore_invalid_weights:
                        raise
                    continue
                if self.autoresize_weights and value.shape != tuple(weight.shape):
                    value = resized(value, tuple(weight.shape), layer, index)
                weight.assign(value)


def build(kind: str, application: str, settings: Mapping[str, Any]) -> Transformer:
    """The model of a kind.

    Args:
        kind: a key of `KINDS`.
        application: ``"encoder"``, ``"lm"`` or ``"unilm"``.
        settings: as :func:`tiedbert.bert.settings.settings_of` returns them.

    Returns:
        Its description, with the `keras.Model` as its attribute `model`.
    """
    given = {name: settings[name] for name in _OPTIONS if name in settings}
    transformer = Transformer(kind, settings["num_hidden_layers"], **given)
    encoder = _ENCODERS.get(kind, Encoder)(kind, application, settings)
    transformer.model, transformer.layers = encoder.model(), encoder.layers
    return transformer


def namesake(kind: str, blocks: int, **options: Any) -> Transformer:
    """The description of a kind without a model."""
    return Transformer(kind, blocks, **options)
