"""The WordPiece vocabulary in a Hugging Face folder, vocab.txt."""

import codecs
import os
from pathlib import Path

from tiedbert.errors import InputError, lfs_hint

_BYTE_ORDER_MARK = "\ufeff"


def vocabulary(vocab, vocab_size) -> str:
    """The text of a ``vocab.txt``; InputError if it does not fit a table.

    Args:
        vocab: list of `str`, or the path of a file with a token a line.
        vocab_size: number of rows of the table.
    """
    if isinstance(vocab, (str, os.PathLike)):
        where, hint = f"{vocab}", lfs_hint(vocab)
        # Only line feeds end a token: other line separators can be tokens.
        tokens = _read_vocabulary(vocab).removesuffix("\n").split("\n")
    else:
        where, hint = "vocab", ""
        is_list = hasattr(vocab, "__iter__") and not isinstance(vocab, dict)
        tokens = list(vocab) if is_list else []
        if not tokens or not all(isinstance(token, str) for token in tokens):
            raise InputError(
                "vocab: expected a list of str in the order of their ids, received "
                f"{type(vocab).__name__} {vocab!r:.60}"
            )
    if len(tokens) != vocab_size:
        raise InputError(
            f"{where}: expected {vocab_size} tokens, found {len(tokens)}{hint}"
        )
    if tokens[0].startswith(_BYTE_ORDER_MARK):
        raise InputError(
            f"{where}: the first token begins with a byte-order mark: read the file "
            'with encoding="utf-8-sig"'
        )
    if len(set(tokens)) < len(tokens) or any("\n" in token for token in tokens):
        raise InputError(f"{where}: expected each token once, and on one line")
    return "".join(f"{token}\n" for token in tokens)


def _read_vocabulary(path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"no vocabulary at {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: expected a vocabulary in UTF-8, a token a line: {error}"
        ) from None


def check_old_vocabulary(folder, vocab_size):
    """InputError if the folder has a vocab.txt that does not fit the new weights."""
    path = folder / "vocab.txt"
    if not path.is_file():
        return
    vocabulary(path, vocab_size)
    if path.read_bytes().startswith(codecs.BOM_UTF8):
        raise InputError(
            f"{path} begins with a byte-order mark, which transformers takes for a "
            "part of the first token: give it as `vocab`, and it is written without"
        )
