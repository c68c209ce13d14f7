"""Files that appear under their names only when they are complete."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def write_file(path: str | os.PathLike, content: bytes) -> None:
    """Write a file under a temporary name, then rename it.

    Another process finds the old file or the new one, never a part. The folder of
    `path` is made if missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_bytes(content)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` as JSON, in UTF-8, as :func:`write_file` does."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_file(path, text.encode())


@contextlib.contextmanager
def draft_folder(folder: str | os.PathLike, last: str = "") -> Iterator[Path]:
    """A hidden folder for files of `folder`; moves them there when all are complete.

    If the context ends with an error, no file is moved.

    Args:
        folder: where the files are to be; made if missing.
        last: the name of the file without which readers find none: it is moved last.
    """
    folder = Path(folder)
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder) as name:
            draft = Path(name)
            yield draft
            for file in sorted(draft.iterdir(), key=lambda file: file.name == last):
                os.replace(file, folder / file.name)
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
