"""Lists the files of a corpus and checks them.

A manifest may come from anywhere: each field is checked before it is used, and a name
of a file is refused unless it is that of a file in the same folder.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from tiedbert.errors import InputError
from tiedbert.text.files import write_json

MANIFEST = "manifest.json"
FORMAT = {"format": "tiedbert.corpus", "version": 1}
REPAIR = "prepare the corpus again or copy this file again"

# The fields and their types, as JSON has them; a list has at least one item.
_FIELDS = {
    "documents": int,
    "sequences": int,
    "tokens": int,
    "tokenizer": {"file": str, "sha256": str, "vocab_size": int},
    "shards": [{"file": str, "records": int, "bytes": int}],
    "config": {"sequence_length": int, "shards": int},
}
_JSON_TYPES = {
    int: "a number of at least 0",
    str: "a text",
    dict: "an object",
    list: "a list that is not empty",
}


def check_sizes(sequence_length: int, shards: int) -> None:
    """InputError for sizes that no corpus can have."""
    if sequence_length < 3:
        raise InputError(
            f"sequence_length is {sequence_length}: expected at least 3, "
            "for [CLS], a token and [SEP]"
        )
    if not 1 <= shards <= 99_999:
        raise InputError(f"shards is {shards}: expected 1 to 99999")


def write_manifest(folder: str | os.PathLike, fields: dict[str, Any]) -> dict[str, Any]:
    """Write the manifest and return it."""
    manifest = {**FORMAT, **fields}
    write_json(Path(folder) / MANIFEST, manifest)
    return manifest


def read_manifest(corpus_dir: str | os.PathLike) -> dict[str, Any]:
    """The manifest of a corpus, checked against the files beside it.

    It checks fields and types, that every file named is in the folder, the sizes of the
    shards and the fingerprint of the tokenizer. It does not read the shards:
    :func:`tiedbert.text.find_damage` does.

    Args:
        corpus_dir: folder that ``tiedbert prepare-corpus`` or
            :func:`tiedbert.text.write_corpus` wrote.

    Returns:
        ``documents``, ``sequences`` and ``tokens`` (int), ``tokenizer``, ``shards`` and
        ``config`` (with ``sequence_length``).

    Raises:
        InputError: a file is missing or another one; says what was expected and found.
    """
    manifest = load_manifest(corpus_dir)
    _check_files(Path(corpus_dir), manifest)
    return manifest


def load_manifest(corpus_dir: str | os.PathLike) -> dict[str, Any]:
    """The manifest of a corpus; its fields are checked, its files are not."""
    path = Path(corpus_dir) / MANIFEST
    manifest = _load_json(path)
    _check_format(manifest, path)
    _check_fields(manifest, _FIELDS, path)
    for entry in [manifest["tokenizer"], *manifest["shards"]]:
        _check_name(entry["file"], path)
    total = sum(shard["records"] for shard in manifest["shards"])
    if total != manifest["sequences"]:
        raise InputError(
            f"{path}: expected {manifest['sequences']} records, the number of "
            f"sequences, found {total} in the list of shards"
        )
    return manifest


def _check_files(folder, manifest):
    for shard in manifest["shards"]:
        path = folder / shard["file"]
        found = path.stat().st_size if path.is_file() else "no file"
        if found != shard["bytes"]:
            raise InputError(
                f"{path}: expected {shard['bytes']} bytes, found {found}; {REPAIR}"
            )
    path = folder / manifest["tokenizer"]["file"]
    expected = manifest["tokenizer"]["sha256"]
    content = path.read_bytes() if path.is_file() else None
    found = "no file" if content is None else hashlib.sha256(content).hexdigest()
    if found != expected:
        raise InputError(
            f"{path}: expected the tokenizer of this corpus, SHA-256 {expected:.12}, "
            f"found {found:.12}; {REPAIR}"
        )


def _load_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{path}: expected the manifest of a prepared corpus, found no file; "
            "make one with `tiedbert prepare-corpus`"
        ) from None
    except ValueError as error:  # not JSON, or not UTF-8
        raise InputError(f"{path}: expected JSON, found {error}; {REPAIR}") from None


def _check_format(manifest, path):
    received = manifest if isinstance(manifest, dict) else {}
    found = {name: received.get(name) for name in FORMAT}
    if found != FORMAT:
        raise InputError(f"{path}: expected {FORMAT}, found {found}")


def _check_fields(value, expected, path, where=""):
    """Check nested types; `expected` is a type, a dict of fields or a list of one."""
    json_type = expected if isinstance(expected, type) else type(expected)
    # Not isinstance: True is not a count.
    if type(value) is not json_type or value == [] or (json_type is int and value < 0):
        found = json.dumps(value)
        raise InputError(
            f"{path}: expected {where} as {_JSON_TYPES[json_type]}, found {found:.60}"
        )
    if json_type is dict:
        for name, inner in expected.items():
            _check_fields(value.get(name), inner, path, f"{where}.{name}".lstrip("."))
    if json_type is list:
        for number, item in enumerate(value):
            _check_fields(item, expected[0], path, f"{where}[{number}]")


def _check_name(name, path):
    if name in ("", ".", "..") or set(name) & set("/\\:\0"):
        raise InputError(
            f"{path}: expected the name of a file in the same folder, found {name!r}"
        )
