"""BERT in NumPy from tensors of Hugging Face's names, to compare with: slow, plain."""

import math

import numpy as np


def masked_lm_logits(tensors, token_ids, segment_ids, heads):
    """float ``[batch, time, vocab]``; token 0 is padding."""
    hidden = encode(tensors, token_ids, segment_ids, heads)
    head = "cls.predictions.transform"
    hidden = gelu(linear(tensors, f"{head}.dense", hidden))
    hidden = normalize(tensors, f"{head}.LayerNorm", hidden)
    table = tensors["bert.embeddings.word_embeddings.weight"]
    return hidden @ table.T + tensors["cls.predictions.bias"]


def encode(tensors, token_ids, segment_ids, heads, position_ids=None, pad=0):
    """float ``[batch, time, width]``."""
    tables = "bert.embeddings.{}_embeddings.weight"
    if position_ids is None:
        position_ids = np.arange(token_ids.shape[1])
    hidden = (
        tensors[tables.format("word")][token_ids]
        + tensors[tables.format("token_type")][segment_ids]
        + tensors[tables.format("position")][position_ids]
    )
    hidden = normalize(tensors, "bert.embeddings.LayerNorm", hidden)
    block = "bert.encoder.layer.0"
    while f"{block}.output.dense.weight" in tensors:
        hidden = run_block(tensors, block, hidden, token_ids != pad, heads)
        block = f"bert.encoder.layer.{int(block.rsplit('.')[-1]) + 1}"
    return hidden


def run_block(tensors, block, hidden, is_real, heads):
    attended = attend(tensors, f"{block}.attention.self", hidden, is_real, heads)
    attended = linear(tensors, f"{block}.attention.output.dense", attended)
    norm = f"{block}.attention.output.LayerNorm"
    hidden = normalize(tensors, norm, hidden + attended)
    inner = gelu(linear(tensors, f"{block}.intermediate.dense", hidden))
    outer = linear(tensors, f"{block}.output.dense", inner)
    return normalize(tensors, f"{block}.output.LayerNorm", hidden + outer)


def attend(tensors, name, hidden, is_real, heads):
    batch, time, width = hidden.shape
    query, key, value = (
        linear(tensors, f"{name}.{part}", hidden)
        .reshape(batch, time, heads, width // heads)
        .transpose(0, 2, 1, 3)
        for part in ("query", "key", "value")
    )
    scores = query @ key.transpose(0, 1, 3, 2) / math.sqrt(width // heads)
    scores = np.where(is_real[:, None, None, :], scores, -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return (shares @ value).transpose(0, 2, 1, 3).reshape(batch, time, width)


def linear(tensors, name, x):
    return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def normalize(tensors, name, x):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12)
    return x * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
