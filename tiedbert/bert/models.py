"""Building bert4keras models from a configuration, whole or from a cut point on."""

import json
from pathlib import Path

from bert4keras.models import build_transformer_model

from tiedbert.bert.checkpoints import load_transformer
from tiedbert.bert.hugging_face_config import keras_activation
from tiedbert.bert.kinds import kind, version_of
from tiedbert.errors import InputError
from tiedbert.surgery import split

# What bert4keras cannot do without.
_REQUIRED = {
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
}


def build_bert(
    config_path,
    checkpoint_path=None,
    model="bert",
    application="encoder",
    **bert4keras_options,
):
    """Build a bert4keras model, its kernels initialized apart from each other.

    Args:
        config_path: ``bert_config.json`` in Google's format, or the ``config.json``
            of a Hugging Face folder.
        checkpoint_path: prefix of a Google checkpoint (``.../bert_model.ckpt``);
            every name and shape is checked, unless bert4keras' ``autoresize_weights``
            or ``ignore_invalid_weights`` is among the options.
        model: the kind, a key of :data:`tiedbert.bert.kinds.KINDS`.
        application: ``"encoder"``, ``"lm"`` or ``"unilm"``.
        **bert4keras_options: passed to bert4keras, over the configuration.

    Returns:
        A functional `keras.Model`; for BERT ``[token_ids, segment_ids]``
        ``[batch, time]`` -> hidden ``[batch, time, width]``.

    Raises:
        InputError: a file that is missing or not JSON, an unknown kind, a checkpoint
            that lacks a variable or whose shapes (the vocabulary's size first of
            all) differ from the configuration.

    Example:
        >>> import json, tempfile, os
        >>> config = dict(vocab_size=30, hidden_size=8, num_hidden_layers=1,
        ...     num_attention_heads=2, intermediate_size=16, hidden_act="gelu",
        ...     max_position_embeddings=16, type_vocab_size=2)
        >>> path = os.path.join(tempfile.mkdtemp(), "bert_config.json")
        >>> with open(path, "w") as file:
        ...     json.dump(config, file)
        >>> build_bert(path).output_shape
        (None, None, 8)
    """
    config = {**read_config(config_path), **version_of(model), **bert4keras_options}
    config["hidden_act"] = keras_activation(config["hidden_act"])
    transformer = build_transformer_model(
        model=kind(model),
        application=_application(application, model),
        return_keras_model=False,
        **config,
    )
    if checkpoint_path is not None:
        load_transformer(transformer, checkpoint_path)
    return transformer.model


def build_bert_from(
    start,
    config_path,
    checkpoint_path=None,
    model="bert",
    application="encoder",
    **bert4keras_options,
):
    """Build the part of a BERT after a cut point, e.g. from ``"Embedding-Norm"`` on.

    The `rest` of :func:`tiedbert.surgery.split`; the other arguments are those of
    :func:`build_bert`.

    Returns:
        A functional `keras.Model` of the crossing tensors: for BERT and
        ``"Embedding-Norm"``, ``[hidden, mask]``, float ``[batch, time, width]`` and
        bool ``[batch, time]``.

    Raises:
        InputError: as :func:`build_bert`, or no such cut point.

    Example:
        >>> import json, tempfile, os
        >>> config = dict(vocab_size=30, hidden_size=8, num_hidden_layers=1,
        ...     num_attention_heads=2, intermediate_size=16, hidden_act="gelu",
        ...     max_position_embeddings=16, type_vocab_size=2)
        >>> path = os.path.join(tempfile.mkdtemp(), "bert_config.json")
        >>> with open(path, "w") as file:
        ...     json.dump(config, file)
        >>> build_bert_from("Embedding-Norm", path).input_shape
        [(None, None, 8), (None, None)]
    """
    whole = build_bert(
        config_path, checkpoint_path, model, application, **bert4keras_options
    )
    return split(whole, start)[1]


def read_config(config_path) -> dict:
    """The settings in a ``bert_config.json``; InputError when it is not one."""
    try:
        config = json.loads(Path(config_path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no BERT configuration at {config_path}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{config_path} is not a JSON file: {error}") from None
    missing = _REQUIRED - set(config if isinstance(config, dict) else ())
    if missing:
        raise InputError(
            f"{config_path}: expected a BERT configuration, a JSON object; it lacks "
            f"{', '.join(sorted(missing))}"
        )
    return config


def _application(application, model) -> str:
    """`application`, if this kind of model has it."""
    has = {"encoder", "lm", "unilm"}
    if model.lower().startswith(("electra", "gpt", "t5", "mt5")):
        # GPT looks back only as it is; only the first one has segments for unilm.
        has = {"encoder", "unilm"} if model.lower() == "gpt" else {"encoder"}
    if application.lower() not in has:
        raise InputError(
            f"a {model!r} model has no application {application!r}: expected "
            f"{' or '.join(sorted(has))}"
        )
    return application
