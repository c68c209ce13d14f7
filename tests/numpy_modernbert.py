"""ModernBERT in NumPy from tensors of Hugging Face's names: slow, plain, in float64."""

import math

import numpy as np


def encode(tensors, token_ids, config, is_real):
    """float ``[batch, time, width]``; `config` has Hugging Face's names."""
    hidden = tensors["embeddings.tok_embeddings.weight"].astype("float64")[token_ids]
    hidden = normalize(tensors, "embeddings.norm", hidden)
    for index, kind in enumerate(config["layer_types"]):
        block, is_local = f"layers.{index}", kind == "sliding_attention"
        theta = config["local_rope_theta" if is_local else "global_rope_theta"]
        window = config["local_attention"] if is_local else None
        x = normalize(tensors, f"{block}.attn_norm", hidden) if index else hidden
        heads = config["num_attention_heads"]
        hidden = hidden + attend(tensors, block, x, is_real, heads, theta, window)
        x = normalize(tensors, f"{block}.mlp_norm", hidden)
        hidden = hidden + feed_forward(tensors, block, x)
    return normalize(tensors, "final_norm", hidden)


def attend(tensors, block, x, is_real, heads, theta, window):
    batch, time, width = x.shape
    size = width // heads
    made = x @ tensors[f"{block}.attn.Wqkv.weight"].T
    made = made.reshape(batch, time, 3, heads, size).transpose(2, 0, 3, 1, 4)
    query, key, value = turn(made[0], theta), turn(made[1], theta), made[2]
    scores = query @ key.transpose(0, 1, 3, 2) / math.sqrt(size)
    seen = np.broadcast_to(is_real[:, None, None, :], scores.shape)
    if window is not None:
        order = np.arange(time)
        seen = seen & (abs(order[:, None] - order) <= window // 2)
    scores = np.where(seen, scores, -1e9)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    attended = (shares @ value).transpose(0, 2, 1, 3).reshape(batch, time, width)
    return attended @ tensors[f"{block}.attn.Wo.weight"].T


def turn(x, theta):
    """Number i and number i + size / 2 are a point, turned by position times speed."""
    time, size = x.shape[-2:]
    points = x[..., : size // 2] + 1j * x[..., size // 2 :]
    speeds = theta ** (-2 * np.arange(size // 2) / size)
    points = points * np.exp(1j * np.arange(time)[:, None] * speeds)
    return np.concatenate([points.real, points.imag], -1)


def feed_forward(tensors, block, x):
    both = x @ tensors[f"{block}.mlp.Wi.weight"].T
    inner, gate = np.split(both, 2, -1)
    return (gelu(inner) * gate) @ tensors[f"{block}.mlp.Wo.weight"].T


def normalize(tensors, name, x):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
    return x * tensors[f"{name}.weight"]


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
