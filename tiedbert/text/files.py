"""Files that appear under their names only when they are complete."""

import json
import os
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
