"""Building BERTs from a configuration, whole or from a cut point on."""

import json
import os
from pathlib import Path
from typing import Any

from tensorflow import keras

from tiedbert.bert import backend
from tiedbert.bert.checkpoints import load_transformer
from tiedbert.bert.kinds import checked_kind
from tiedbert.bert.model_types import SYNONYMS, completed, kind_of_type
from tiedbert.bert.settings import settings_of
from tiedbert.errors import InputError, lfs_hint
from tiedbert.surgery import split

# The settings that bert4keras needs.
_REQUIRED = {
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
}


def build_bert(
    config_path: str | os.PathLike,
    checkpoint_path: str | os.PathLike | None = None,
    model: str | None = None,
    application: str | None = None,
    **bert4keras_options: Any,
) -> keras.Model:
    """Build a bert4keras model; each of its kernels is initialized separately.

    Args:
        config_path: ``bert_config.json`` in Google's format, or the ``config.json``
            of a Hugging Face folder.
        checkpoint_path: prefix of a Google checkpoint (``.../bert_model.ckpt``);
            every name and shape is checked, unless bert4keras' ``autoresize_weights``
            or ``ignore_invalid_weights`` is among the options.
        model: the kind, a key of :data:`tiedbert.bert.kinds.KINDS`; None for the
            ``model`` of the configuration, else the kind of its ``model_type``
            (Hugging Face's ``"roberta"`` is ``"hf_roberta"``), or ``"bert"`` if it has
            neither.
        application: ``"encoder"``, ``"lm"`` or ``"unilm"``; None for the
            ``application`` of the configuration, or ``"encoder"`` if it has none.
        **bert4keras_options: settings that replace those of the configuration:
            bert4keras' options, ``initializer_range`` (default 0.02),
            ``layer_norm_eps`` (of every norm; default: that of bert4keras, for BERT the
            1e-12 of Google and Hugging Face), ``pad_token_id`` (an id of the whole
            vocabulary that ``keep_tokens`` has; default 0) and, under Keras 3,
            ``with_pack`` (an input ``Input-Pack``, int ``[batch, time]``: which text of
            its row a token belongs to, 0 for padding; default False). A
            ``"modernbert"``, of Keras 3, has ``embedding_dropout`` and ``mlp_dropout``
            (default 0; ``dropout_rate`` sets both), ``local_attention`` (default 128; a
            token of a local layer sees half as many on each side), ``layer_types`` or
            ``global_attn_every_n_layers`` (default 3), ``global_rope_theta`` (160,000)
            and ``local_rope_theta`` (10,000); its padding is 50283 by default, its
            epsilon 1e-5.

    Returns:
        A functional `keras.Model`; for BERT ``[token_ids, segment_ids]``
        ``[batch, time]`` -> hidden ``[batch, time, width]``. A ``distilbert``, a
        ``modernbert``, and a ``hf_roberta`` of one segment type, have token ids alone,
        in a list of one.

    Raises:
        InputError: a file that is missing or not JSON, an unknown kind or option, a
            setting that asks for another model (``model_type`` of another kind, several
            ``num_hidden_groups`` of other kinds than ``"albert"`` or under Keras 2,
            relative positions ...), a checkpoint that lacks a
            variable or has another shape than the configuration says. The model raises
            it too, if it is called with texts longer than its positions.

    Warns:
        UserWarning: the configuration has settings that tiedbert does not know.

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
    model_type = bert4keras_options.get("model_type")
    config = read_config(config_path, model_type, model)
    usual = "bert"
    said_type = config.get("model_type")
    if model is None and config.get("model") is None and said_type is not None:
        usual = kind_of_type(config_path, said_type)
    model = _file_or_argument(config_path, config, "model", model, usual).lower()
    application = _file_or_argument(
        config_path, config, "application", application, "encoder"
    )
    model = checked_kind(model)
    application = _application(application.lower(), model)
    if checkpoint_path is not None and config.get("use_task_id"):
        raise InputError(
            f"{config_path}: use_task_id is True: a Google checkpoint has no place for "
            "the task types of ERNIE: use load_safetensors on its Hugging Face folder"
        )
    settings = settings_of(model, application, config_path, config, bert4keras_options)
    transformer = backend.build(model, application, settings)
    if checkpoint_path is not None:
        load_transformer(transformer, checkpoint_path)
    return transformer.model


def build_bert_from(
    start: str,
    config_path: str | os.PathLike,
    checkpoint_path: str | os.PathLike | None = None,
    model: str | None = None,
    application: str | None = None,
    **bert4keras_options: Any,
) -> keras.Model:
    """Build the part of a BERT after a cut point, e.g. from ``"Embedding-Norm"`` on.

    Args:
        start: the cut point, as in :func:`tiedbert.surgery.split`.
        config_path: as in :func:`build_bert`.
        checkpoint_path: as there.
        model: as there.
        application: as there.
        **bert4keras_options: as there.

    Returns:
        The `rest` of the split, a functional `keras.Model` of the crossing tensors: for
        BERT and ``"Embedding-Norm"``, ``[hidden, mask]``, float
        ``[batch, time, width]`` and bool ``[batch, time]``.

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


def read_config(
    config_path: str | os.PathLike,
    model_type: str | None = None,
    kind: str | None = None,
) -> dict[str, Any]:
    """The settings in a ``bert_config.json`` or Hugging Face's ``config.json``.

    Settings of Hugging Face have BERT's names, and those that are absent the values
    that its library gives them.

    Args:
        config_path: the file.
        model_type: what counts in place of the ``model_type`` in the file; None for
            that of the file.
        kind: the kind to build, which matters if there is no ``model_type``; None for
            the ``model`` in the file.

    Raises:
        InputError: it is no such file.
    """
    try:
        config = json.loads(Path(config_path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"no BERT configuration at {config_path}") from None
    except IsADirectoryError:
        raise InputError(
            f"{config_path} is a folder: expected the file in it, bert_config.json or "
            "config.json"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(
            f"{config_path} is not a JSON file: {error}{lfs_hint(config_path)}"
        ) from None
    said = config if isinstance(config, dict) else {}
    if model_type is not None:
        said = {**said, "model_type": model_type}
    said = completed(said, config_path, kind)
    missing = _REQUIRED - {SYNONYMS.get(k, k) for k, v in said.items() if v is not None}
    if missing:
        raise InputError(
            f"{config_path}: expected a BERT configuration, a JSON object; it lacks "
            f"{', '.join(sorted(missing))}"
        )
    return said


def _file_or_argument(path, config, name, given, default) -> str:
    """The value of the configuration or of the argument; InputError if they differ."""
    said = config.pop(name, None)
    for value in (said, given):
        if value is not None and not isinstance(value, str):
            raise InputError(f"{path}: {name}: expected a name, received {value!r}")
    if said is None or given is None:
        found = given if said is None else said
        return default if found is None else found
    if said.lower() != given.lower():
        raise InputError(
            f"{path} says {name} {said!r}, the argument {name} is {given!r}: leave one "
            "of them out"
        )
    return given


def _application(application, model) -> str:
    """`application`; InputError if this kind of model does not have it."""
    has = {"encoder", "lm", "unilm"}
    if model.startswith(("electra", "gpt", "t5", "mt5", "modernbert")):
        # GPT always looks back only; only the first GPT has the segments for unilm.
        has = {"encoder", "unilm"} if model == "gpt" else {"encoder"}
    elif model in ("hf_roberta", "distilbert"):
        has = {"encoder", "lm"}  # unilm needs segments
    if application not in has:
        raise InputError(
            f"a {model!r} model has no application {application!r}: expected "
            f"{' or '.join(sorted(has))}"
        )
    return application
