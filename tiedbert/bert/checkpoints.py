"""Google-format BERT checkpoints: names and shapes checked, written atomically."""

import os
import re
import tempfile
from pathlib import Path

import tensorflow as tf

from tiedbert.bert.kinds import kind
from tiedbert.errors import InputError, reason
from tiedbert.layers import EmbeddingDense

# Where Google's run_classifier.py keeps the layer on top of BERT.
_CLASSIFIER = {"Classifier": ["output_weights", "output_bias"]}
# Google's BERT keeps the kernels of these two layers transposed.
_TRANSPOSED = {"cls/seq_relationship/output_weights", "output_weights"}


def load_google_checkpoint(model, checkpoint_path, model_kind="bert"):
    """Give the layers of `model` that a checkpoint knows their values.

    Args:
        model: a `keras.Model` whose layers have bert4keras' names (an encoder, a
            masked language model, a classifier on top of one).
        checkpoint_path: prefix of the checkpoint.
        model_kind: the kind whose names the checkpoint has.

    Raises:
        InputError: no such checkpoint, a variable missing in it, or of another shape.
    """
    layers = {layer.name: layer for layer in model.layers}
    _load(_namesake(model, model_kind), layers, checkpoint_path)


def load_transformer(transformer, checkpoint_path):
    """Load a bert4keras Transformer, its own options (``keep_tokens``) respected."""
    if transformer.autoresize_weights or transformer.ignore_invalid_weights:
        transformer.load_weights_from_checkpoint(checkpoint_path)
    else:
        _load(transformer, transformer.layers, checkpoint_path)


def save_google_checkpoint(model, checkpoint_path, model_kind="bert"):
    """Write the layers of `model` that Google's format knows, in that format.

    Layers without a place in the format are left out. The files appear under their
    names only when they are complete.

    Args:
        model: a `keras.Model` whose layers have bert4keras' names.
        checkpoint_path: prefix to write to; its folder is made.
        model_kind: the kind whose names to use.
    """
    namesake = _namesake(model, model_kind)
    layers = {layer.name: layer for layer in model.layers}
    values = {
        name: _as_stored(name, weight.numpy())
        for layer, names in _mapping(namesake, layers)
        for weight, name in zip(_own_weights(layer), names, strict=True)
    }
    _write(values, Path(checkpoint_path))


def _load(transformer, layers, checkpoint_path):
    shapes = _stored_shapes(checkpoint_path)
    assignments = []
    for layer, names in _mapping(transformer, layers):
        for weight, name in zip(_own_weights(layer), names, strict=True):
            if name not in shapes:
                raise InputError(
                    f"{checkpoint_path}: expected a variable {name} for layer "
                    f'"{layer.name}", found none'
                )
            value = _loaded(transformer, checkpoint_path, name)
            if tuple(value.shape) != tuple(weight.shape):
                raise InputError(_wrong_shape(checkpoint_path, name, weight, value))
            assignments.append((weight, value))
    for weight, value in assignments:
        weight.assign(value)


def _loaded(transformer, checkpoint_path, name):
    try:
        value = transformer.load_variable(str(checkpoint_path), name)
    except (tf.errors.OpError, IndexError) as error:  # IndexError: the data end early
        raise InputError(
            f"{checkpoint_path}: {name} cannot be read: {reason(error)}"
        ) from None
    # bert4keras turns its own kernel round itself.
    return value.T if name in _CLASSIFIER["Classifier"] else value


def _stored_shapes(checkpoint_path) -> dict:
    try:
        reader = tf.train.load_checkpoint(str(checkpoint_path))
        return reader.get_variable_to_shape_map()
    except (ValueError, tf.errors.OpError) as error:
        found = str(error).splitlines()[0]
        raise InputError(f"no checkpoint at {checkpoint_path}: {found}") from None


def _wrong_shape(path, name, weight, value) -> str:
    expected, found = tuple(weight.shape), tuple(value.shape)
    if name.endswith("word_embeddings") and expected[0] != found[0]:
        return (
            f"{path}: the vocabulary does not belong to this checkpoint: expected "
            f"{expected[0]} tokens, found {found[0]} in {name}"
        )
    return f"{path}: {name}: expected shape {expected}, found {found}"


def _mapping(transformer, layers) -> list:
    """(layer, names in the checkpoint) for the layers that the format knows."""
    mapping = transformer.variable_mapping()
    named = {transformer.prefixed(name): stored for name, stored in mapping.items()}
    named.update(_CLASSIFIER)
    return [(layers[name], stored) for name, stored in named.items() if name in layers]


def _own_weights(layer) -> list:
    """The weights stored for a layer: of a tied head the bias, not the table."""
    return [layer.bias] if isinstance(layer, EmbeddingDense) else layer.weights


def _namesake(model, model_kind):
    """An unbuilt Transformer with as many blocks as `model`, for its names."""
    blocks = [re.match(r"Transformer-(\d+)-", layer.name) for layer in model.layers]
    count = max((int(match[1]) + 1 for match in blocks if match), default=0)
    return kind(model_kind)(
        vocab_size=1,
        hidden_size=1,
        num_hidden_layers=count,
        num_attention_heads=1,
        intermediate_size=1,
        hidden_act="gelu",
        max_position=1,
    )


def _as_stored(name, value):
    return value.T if name in _TRANSPOSED else value


def _write(values, prefix):
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=prefix.parent) as folder:
        draft = os.path.join(folder, prefix.name)
        try:
            tf.raw_ops.SaveV2(
                prefix=draft,
                tensor_names=list(values),
                shape_and_slices=[""] * len(values),
                tensors=list(values.values()),
            )
        except tf.errors.OpError as error:
            raise OSError(f"{prefix} cannot be written: {reason(error)}") from None
        # The index last: a checkpoint is there once its index is.
        for suffix in (".data-00000-of-00001", ".index"):
            os.replace(draft + suffix, f"{prefix}{suffix}")
