"""AdamW as in BERT, with cosine decay; only matrices have weight decay."""

from tensorflow import keras

from tiedbert import _keras


def adamw(
    learning_rate: float,
    total_steps: int,
    warmup: float = 0.1,
    weight_decay: float = 0.01,
    clip_norm: float = 1.0,
) -> keras.optimizers.Optimizer:
    """AdamW with linear warm-up and cosine decay to zero.

    As in Google's BERT (``optimization.py`` of google-research/bert), biases and
    normalization weights are not decayed, and gradients are clipped by their global
    norm. Google's rate falls linearly.

    Args:
        learning_rate: the peak, reached after the warm-up.
        total_steps: optimizer steps in the whole training.
        warmup: fraction of the steps in which the rate grows.
        weight_decay: decoupled decay (Loshchilov and Hutter, 2019).
        clip_norm: largest global norm of the gradients.

    Example:
        >>> optimizer = adamw(1e-3, total_steps=100)
        >>> float(optimizer.weight_decay)
        0.01
    """
    warmup_steps = max(1, int(warmup * total_steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(1, total_steps - warmup_steps),
        warmup_target=learning_rate,
        warmup_steps=warmup_steps,
    )
    optimizer = _keras.AdamW(
        schedule, weight_decay=weight_decay, epsilon=1e-6, global_clipnorm=clip_norm
    )
    # The last part of the name decides: layers have names like "MLM-Bias".
    optimizer.exclude_from_weight_decay(var_names=[r"(^|/)(bias|beta|gamma)(:\d+)?$"])
    return optimizer
