"""Google-format BERT checkpoints: names and shapes checked, written atomically."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

from tiedbert.bert.google_names import OF_TOKENS, TRANSPOSED
from tiedbert.bert.new_head import new_head, warn_of_new_head
from tiedbert.bert.own_weights import check_no_adapters, merged_values
from tiedbert.bert.variable_names import CLASSIFIER, named_weights, namesake
from tiedbert.bert.vocabulary_options import check_tokens
from tiedbert.errors import InputError, lfs_hint, reason
from tiedbert.text.files import draft_folder

# Google's BERT stores the kernels of these two layers transposed,
_TRANSPOSED = {TRANSPOSED, "output_weights"}
# and T5 this one.
_TRANSPOSED_T5 = "/relative_attention_bias"
# Variables with a row for each token.
_OF_TOKENS = (*OF_TOKENS, "shared/embedding")
# What TensorFlow adds to the prefix of a checkpoint.
_SUFFIX = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")


def load_google_checkpoint(
    model: keras.Model,
    checkpoint_path: str | os.PathLike,
    model_kind: str | None = None,
    *,
    keep_tokens: Sequence[int] | None = None,
    compound_tokens: Sequence[Any] | None = None,
) -> None:
    """Load the weights of a checkpoint into the layers of `model` that it names.

    Every layer of the model that the format names must be in the checkpoint, in its
    shape. Other variables of the checkpoint (an optimizer's moments, another head) are
    ignored. If the checkpoint is refused, no weight has changed. A
    :func:`tiedbert.bert.classifier` may be loaded from the checkpoint of an encoder:
    its head keeps its values, and a warning names it.

    Weights of another shape are refused. To enlarge a model, let bert4keras resize the
    weights (``build_bert(..., checkpoint_path, autoresize_weights=True)``, for a head
    with ``with_mlm="linear"``), save that model and load its checkpoint.

    Args:
        model: a `keras.Model` whose layers have bert4keras' names (an encoder, a
            masked language model, a classifier on top of one).
        checkpoint_path: prefix of the checkpoint.
        model_kind: the kind whose names the checkpoint has, a key of
            :data:`tiedbert.bert.kinds.KINDS`; None (the default) for that of the model.
            Under Keras 2 a model that was loaded from a file or copied counts as a
            ``"bert"``.
        keep_tokens: the rows of the checkpoint's vocabulary that the model was built
            with (bert4keras' option of this name); None for all.
        compound_tokens: bert4keras' option, as `keep_tokens`: for each further token
            the list of rows whose mean it starts from, or a tuple of the list and its
            weights.

    Raises:
        InputError: no such checkpoint, a variable missing in it or of another shape,
            a token beyond its vocabulary, or a model of another kind or with adapters
            (load the weights first, then `enable_lora`).

    Warns:
        NewHeadWarning: the checkpoint has an encoder alone (of `UserWarning`).

    Source: the format is that of google-research/bert, albert and electra.

    Example:
        >>> import json, tempfile, os
        >>> from tiedbert.bert import build_bert, masked_lm, save_google_checkpoint
        >>> config = dict(vocab_size=30, hidden_size=8, num_hidden_layers=1,
        ...     num_attention_heads=2, intermediate_size=16, hidden_act="gelu",
        ...     max_position_embeddings=16, type_vocab_size=2)
        >>> folder = tempfile.mkdtemp()
        >>> path = os.path.join(folder, "bert_config.json")
        >>> with open(path, "w") as file:
        ...     json.dump(config, file)
        >>> checkpoint = os.path.join(folder, "bert_model.ckpt")
        >>> save_google_checkpoint(masked_lm(build_bert(path)), checkpoint)
        >>> tokens = [0, 1, 2, 3, 17]
        >>> model = masked_lm(build_bert(path, keep_tokens=tokens))
        >>> load_google_checkpoint(model, checkpoint, keep_tokens=tokens)
        >>> model.output_shape
        (None, None, 5)
    """
    check_no_adapters(model)
    layers = {layer.name: layer for layer in model.layers}
    compound_tokens = check_tokens(keep_tokens, compound_tokens)
    transformer = namesake(
        model, model_kind, keep_tokens=keep_tokens, compound_tokens=compound_tokens
    )
    warn_of_new_head(checkpoint_path, _load(transformer, layers, checkpoint_path))


def stores_pooler(checkpoint_path: str | os.PathLike) -> bool:
    """Whether a checkpoint has the pooler of an encoder, BERT's or RoBERTa's.

    InputError if there is no checkpoint.
    """
    poolers = {"bert/pooler/dense/kernel", "roberta/pooler/dense/kernel"}
    return not poolers.isdisjoint(_stored_shapes(checkpoint_path))


def load_transformer(transformer, checkpoint_path):
    """Load a bert4keras Transformer as its options (``keep_tokens``) say."""
    if transformer.autoresize_weights or transformer.ignore_invalid_weights:
        _load_by_bert4keras(transformer, checkpoint_path)
    else:
        # `transformer.layers` also contains the tensors of its inputs.
        layers = {
            name: layer
            for name, layer in transformer.layers.items()
            if isinstance(layer, keras.layers.Layer)
        }
        _load(transformer, layers, checkpoint_path)


def save_google_checkpoint(
    model: keras.Model,
    checkpoint_path: str | os.PathLike,
    model_kind: str | None = None,
) -> None:
    """Write the weights of the layers that Google's format names, in that format.

    Other layers are left out. Adapters (`enable_lora` of Keras) are added to the
    weights. The files appear under their names only when they are
    complete.

    Args:
        model: a `keras.Model` whose layers have bert4keras' names.
        checkpoint_path: prefix to write to; its folder is made if missing.
        model_kind: the kind whose names to use, a key of
            :data:`tiedbert.bert.kinds.KINDS`; None (the default) for that of the model,
            as in :func:`load_google_checkpoint`.

    Raises:
        InputError: a model of another kind; the blocks of an ``albert_unshared``,
            for which the format has one place, are not equal; or the prefix has no
            name.
        OSError: the files cannot be written.

    Example:
        >>> import json, tempfile, os
        >>> import tensorflow as tf
        >>> from tiedbert.bert import build_bert
        >>> config = dict(vocab_size=30, hidden_size=8, num_hidden_layers=1,
        ...     num_attention_heads=2, intermediate_size=16, hidden_act="gelu",
        ...     max_position_embeddings=16, type_vocab_size=2)
        >>> folder = tempfile.mkdtemp()
        >>> path = os.path.join(folder, "bert_config.json")
        >>> with open(path, "w") as file:
        ...     json.dump(config, file)
        >>> save_google_checkpoint(build_bert(path), os.path.join(folder, "bert.ckpt"))
        >>> tf.train.list_variables(os.path.join(folder, "bert.ckpt"))[3]
        ('bert/embeddings/token_type_embeddings', [2, 8])
    """
    if str(checkpoint_path).endswith(("/", os.sep)) or not Path(checkpoint_path).name:
        raise InputError(
            "checkpoint_path: expected a prefix like folder/bert_model.ckpt, received "
            f"{str(checkpoint_path)!r}"
        )
    layers = {layer.name: layer for layer in model.layers}
    values, values_of = {}, merged_values(model)
    for layer, named in named_weights(namesake(model, model_kind), layers):
        for name, weight in named:
            value = _as_stored(name, values_of(weight))
            _check_one_value(layer, name, values.setdefault(name, value), value)
    _write(values, Path(checkpoint_path))


def _load(transformer, layers, checkpoint_path) -> list:
    """Assign the values to the layers; the names of those that are a new head."""
    shapes = _stored_shapes(checkpoint_path)
    named = named_weights(transformer, layers)
    names = [(layer.name, [name for name, _ in pairs]) for layer, pairs in named]
    new = new_head(names, shapes)
    assignments = []
    for layer, pairs in named:
        if layer.name not in new:
            for name, weight in pairs:
                _check_stored(transformer, checkpoint_path, shapes, layer, name)
                assignments.append((weight, name))
    for weight, value in _values(transformer, checkpoint_path, assignments):
        weight.assign(value)
    return new


def _check_stored(transformer, checkpoint_path, shapes, layer, name):
    if name not in shapes:
        raise InputError(
            f"{checkpoint_path}: expected a variable {name} for layer "
            f'"{layer.name}", found none; {_names_there(shapes)}'
        )
    _check_tokens(transformer, checkpoint_path, name, shapes)


def _values(transformer, checkpoint_path, assignments) -> list:
    """(weight, its numbers in the checkpoint), all checked."""
    values = []
    for weight, name in assignments:
        value = _loaded(transformer, checkpoint_path, name)
        if tuple(value.shape) != tuple(weight.shape):
            raise InputError(_wrong_shape(checkpoint_path, name, weight, value))
        values.append((weight, value))
    return values


def _names_there(shapes) -> str:
    tops = sorted({name.split("/")[0] for name in shapes})
    return f"the names there begin with {', '.join(tops[:8]) or 'nothing'}"


def _load_by_bert4keras(transformer, checkpoint_path):
    """Let bert4keras load, which resizes weights or skips missing ones.

    It divides what it resizes by its norm: weights that are all zero become NaN, which
    is refused here.
    """
    shapes = _stored_shapes(checkpoint_path)
    for name in shapes:
        _check_tokens(transformer, checkpoint_path, name, shapes)
    weights = transformer.model.weights
    before = [weight.numpy() for weight in weights]
    try:
        with np.errstate(invalid="ignore"):
            transformer.load_weights_from_checkpoint(str(checkpoint_path))
    except (tf.errors.OpError, IndexError) as error:
        raise InputError(
            f"{checkpoint_path}: {reason(error)}; {_names_there(shapes)}"
        ) from None
    lost = [
        getattr(w, "path", w.name) for w in weights if not np.isfinite(w.numpy()).all()
    ]
    if lost:
        for weight, value in zip(weights, before, strict=True):
            weight.assign(value)
        raise InputError(
            f"{checkpoint_path}: weights that are all zero cannot be resized: "
            f"{', '.join(lost)}"
        )


def _loaded(transformer, checkpoint_path, name):
    try:
        value = transformer.load_variable(str(checkpoint_path), name)
    except (tf.errors.OpError, IndexError) as error:  # IndexError: the data end early
        raise InputError(
            f"{checkpoint_path}: {name} cannot be read: {reason(error)}"
            f"{lfs_hint(f'{checkpoint_path}.data-00000-of-00001')}"
        ) from None
    # bert4keras transposes the kernels that it knows, but not this one.
    return value.T if name in CLASSIFIER["Classifier"] else value


def _stored_shapes(checkpoint_path) -> dict:
    path = str(checkpoint_path)
    _check_prefix(path)
    try:
        return tf.train.load_checkpoint(path).get_variable_to_shape_map()
    except (ValueError, tf.errors.OpError) as error:
        found = f"{str(error).splitlines()[0]}{lfs_hint(f'{path}.index')}"
        raise InputError(f"no checkpoint at {path}: {found}") from None


def _check_prefix(path):
    """InputError if a path names one of the files of a checkpoint."""
    suffix = _SUFFIX.search(path)
    if suffix and not os.path.exists(f"{path}.index"):
        prefix = path.removesuffix(suffix[0])
        raise InputError(
            f"{path} is one file of a checkpoint: expected the prefix that its files "
            f"share, {prefix}, without {suffix[0]}"
        )


def _check_tokens(transformer, path, name, shapes):
    """InputError if a token to keep is not in the vocabulary of the checkpoint."""
    if name.endswith(_OF_TOKENS):
        options = transformer.keep_tokens, transformer.compound_tokens
        check_tokens(*options, shapes[name][0], f"{name} of {path}")


def _wrong_shape(path, name, weight, value) -> str:
    expected, found = tuple(weight.shape), tuple(value.shape)
    if name.endswith(_OF_TOKENS) and expected[0] != found[0]:
        return (
            f"{path}: the vocabulary does not belong to this checkpoint: expected "
            f"{expected[0]} tokens, found {found[0]} in {name}"
        )
    return f"{path}: {name}: expected shape {expected}, found {found}"


def _check_one_value(layer, name, first, value):
    if not np.array_equal(first, value):
        raise InputError(
            f'layer "{layer.name}" shares its place {name} with the layer of another '
            'block, but not its values: save such a model with model_kind="bert"'
        )


def _as_stored(name, value):
    return value.T if name in _TRANSPOSED or name.endswith(_TRANSPOSED_T5) else value


def _write(values, prefix):
    # Without the index, readers find no checkpoint.
    with draft_folder(prefix.parent, last=f"{prefix.name}.index") as draft:
        try:
            tf.raw_ops.SaveV2(
                prefix=str(draft / prefix.name),
                tensor_names=list(values),
                shape_and_slices=[""] * len(values),
                tensors=list(values.values()),
            )
        except tf.errors.OpError as error:
            raise OSError(f"{prefix} cannot be written: {reason(error)}") from None
