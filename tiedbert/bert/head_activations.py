"""The activations of heads, in which kinds differ.

Source: transformers 5.23, ``models/*/modeling_*.py``.
"""

from typing import Any


def transform_activation(kind: str, hidden_act: Any) -> Any:
    """That of the dense layer before a tied head.

    Args:
        kind: a key of :data:`tiedbert.bert.kinds.KINDS`.
        hidden_act: the activation of the feed-forward layers.
    """
    return "gelu" if kind == "hf_roberta" else hidden_act


def pooling_activation(kind: str, hidden_act: Any) -> Any:
    """That of the dense layer of the first token in a text classifier.

    Args:
        kind: a key of :data:`tiedbert.bert.kinds.KINDS`.
        hidden_act: the activation of the feed-forward layers.
    """
    of_kind = {
        "electra": "gelu",
        "electra_generator": "gelu",
        "distilbert": "relu",
        "roformer": hidden_act,
    }
    return of_kind.get(kind, "tanh")
