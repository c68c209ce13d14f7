"""Tiny ModernBERTs for the tests, and texts longer than their local window."""

import json

import numpy as np

# As the published config.json, with the sizes of the other tests.
PUBLISHED = {
    "architectures": ["ModernBertForMaskedLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 50281,
    "classifier_activation": "gelu",
    "classifier_bias": False,
    "classifier_dropout": 0.0,
    "classifier_pooling": "mean",
    "cls_token_id": 50281,
    "decoder_bias": True,
    "deterministic_flash_attn": False,
    "embedding_dropout": 0.0,
    "eos_token_id": 50282,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "gradient_checkpointing": False,
    "hidden_activation": "gelu",
    "hidden_size": 16,
    "initializer_cutoff_factor": 2.0,
    "initializer_range": 0.02,
    "intermediate_size": 24,
    "layer_norm_eps": 1e-05,
    "local_attention": 4,
    "local_rope_theta": 10000.0,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "mlp_dropout": 0.0,
    "model_type": "modernbert",
    "norm_bias": False,
    "norm_eps": 1e-05,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "pad_token_id": 29,
    "position_embedding_type": "absolute",
    "sep_token_id": 50282,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "transformers_version": "4.47.0.dev0",
    "vocab_size": 30,
}
PAD = PUBLISHED["pad_token_id"]
TYPES = ["full_attention", "sliding_attention"]
TIME, LENGTHS = 13, (13, 9, 5)
IS_REAL = np.arange(TIME) < np.array(LENGTHS)[:, None]
TOKENS = np.where(IS_REAL, np.random.default_rng(4).integers(0, 29, IS_REAL.shape), PAD)
TOKENS = TOKENS.astype(np.int32)
POSITIONS = np.array([[1, 6, 12], [0, 5, 8], [2, 3, 4]], np.int32)


def write_modern(folder, **changes):
    """The path of a ``config.json``; a change to None takes the setting out."""
    config = {**PUBLISHED, **changes}
    path = folder / "config.json"
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return path
