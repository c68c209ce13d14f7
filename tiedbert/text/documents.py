"""Plain text: one document a line."""

import codecs
import os
from collections.abc import Iterator
from pathlib import Path

from tiedbert.errors import InputError

ENCODING_ERRORS = ("strict", "replace", "ignore")


def read_documents(path: str | os.PathLike, errors: str = "strict") -> Iterator[str]:
    r"""Read the documents of a UTF-8 text file, one a line, as a stream.

    Only a line feed ends a line: the other line separators of Unicode are text.
    Blank lines and a byte order mark are skipped.

    Args:
        path: the file.
        errors: what happens to bytes that are not UTF-8: "strict" (the default) raises,
            "replace" puts U+FFFD in their place, "ignore" drops them.

    Yields:
        Each document, a `str` without the end of its line.

    Raises:
        InputError: the file is missing or a directory, is not UTF-8 (the message
            has the line number), or has no document. Raised while reading, the
            last one at the end.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write("一\r\n\ntwo words\n".encode())
        ...     file.flush()
        ...     list(read_documents(file.name))
        ['一', 'two words']
    """
    empty = True
    for _, line in read_lines(path, errors):
        document = line.rstrip("\r\n")
        if document.strip():
            empty = False
            yield document
    if empty:
        raise InputError(f"{path}: expected one document a line, found no text")


def read_lines(
    path: str | os.PathLike, errors: str = "strict"
) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, decoded line with its end) of a UTF-8 file."""
    if errors not in ENCODING_ERRORS:
        choices = ", ".join(ENCODING_ERRORS)
        raise InputError(f"errors is {errors!r}: expected one of {choices}")
    with _open(Path(path)) as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            yield number, _decode(line, errors, path, number)


def _open(path):
    try:
        return path.open("rb")
    except FileNotFoundError:
        found = "no such file"
    except IsADirectoryError:
        found = "a directory"
    raise InputError(f"{path}: expected a text file, found {found}")


def _decode(line, errors, path, number):
    try:
        return line.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, line {number}: expected UTF-8, found the byte "
            f"0x{line[error.start]:02x} at position {error.start + 1}; convert the "
            "file, or pass over such bytes with errors='replace' or errors='ignore' "
            "(--errors replace, --errors ignore; the default, --errors strict, stops)"
        ) from None
