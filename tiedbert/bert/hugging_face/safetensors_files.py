"""Reads tensors in the safetensors format, which holds numbers and no code."""

import json
import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from tiedbert.errors import InputError, lfs_hint, reason

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"  # of a model in several files
_FLOATS = {"F16", "BF16", "F32", "F64"}
# Suffixes of other formats.
_OTHER_FORMATS = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".h5", ".msgpack", ".onnx")


class StoredTensors:
    """The tensors of a file, or of a folder as Hugging Face writes it.

    Args:
        path: a ``.safetensors`` file, or a folder with ``model.safetensors`` or the
            index of several files.

    Attributes:
        path: the file that was opened.
        names: the names of the tensors.

    Raises:
        InputError: no such file, or no complete safetensors file.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = _find(Path(path))
        if self.path.name == INDEX:
            self._files = _shards(self.path)
        else:
            opened = _open(self.path)
            self._files = dict.fromkeys(opened.keys(), opened)
        self.names = list(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading its numbers."""
        return tuple(self._files[name].get_slice(name).get_shape())

    def read(self, name: str) -> np.ndarray:
        """A tensor as float32; the file may have any floating-point type."""
        dtype = self._files[name].get_slice(name).get_dtype()
        if dtype not in _FLOATS:
            raise InputError(
                f"{self.path}: {name}: expected floating-point numbers "
                f"({', '.join(sorted(_FLOATS))}), found {dtype}"
            )
        return self._files[name].get_tensor(name).astype(np.float32)


def _find(path):
    if not path.is_dir():
        return path
    for name in (FILE, INDEX):
        if (path / name).exists():
            return path / name
    found = ", ".join(sorted(file.name for file in path.iterdir())) or "nothing"
    raise InputError(
        f"{path}: expected {FILE} or {INDEX}, found {found} (other formats, pickles "
        "above all, are not read: save_pretrained of transformers writes this one)"
    )


def _open(path):
    if path.suffix in _OTHER_FORMATS:
        raise InputError(
            f"{path}: expected a .safetensors file or its folder, found {path.suffix}: "
            "such files are not read, those of PyTorch above all, pickles that can run "
            "code (save_pretrained of transformers writes model.safetensors)"
        )
    try:
        # The numbers stay on disk until a tensor is read.
        return safe_open(path, framework="numpy")
    except FileNotFoundError:
        raise InputError(f"no safetensors file at {path}") from None
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is not a safetensors file, or not a whole one: {reason(error)}"
            f"{lfs_hint(path)}"
        ) from None


def _shards(index) -> dict:
    """name -> opened file, for the files beside an index."""
    files = _weight_map(index)
    opened = {file: _open(_beside(index, file)) for file in set(files.values())}
    there = {file: set(handle.keys()) for file, handle in opened.items()}
    for name, file in files.items():
        if name not in there[file]:
            raise InputError(f"{index}: expected {name} in {file}, found none")
    return {name: opened[file] for name, file in files.items()}


def _weight_map(index) -> dict:
    """name of a tensor -> name of a file."""
    try:
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        if all(isinstance(file, str) for file in files.values()):
            return files
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        pass  # not such an index: refused below
    raise InputError(
        f"{index} is not an index of safetensors files: expected a weight_map from "
        "names of tensors to names of files"
    )


def _beside(index, file):
    """The path of a file that an index names; no name leads out of its folder."""
    if Path(file).name != file or "\\" in file or not file.endswith(".safetensors"):
        raise InputError(
            f"{index}: expected names of .safetensors files beside it, found {file!r}"
        )
    return index.parent / file
