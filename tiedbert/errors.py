"""The exception for mistakes that a user can mend, and parts of messages."""

import os
import re

__all__ = ["InputError", "NewHeadWarning", "SetupError"]

_LFS_POINTER = b"version https://git-lfs"


class InputError(ValueError):
    """A mistake that the caller can mend: in a file, an option or a name.

    The message is one line that says what was asked, what was expected, what
    was received and how to mend it; scripts print it without a traceback.
    """

    # AutoGraph and Keras add file paths and arguments to an error raised in a layer.
    # Each leaves an error with its mark alone, so that the message stays one line.
    ag_pass_through = True
    _keras_call_info_injected = True


class SetupError(InputError, ImportError):
    """What the environment asks for is not installed; the message says how to."""


class NewHeadWarning(UserWarning):
    """Files of an encoder were loaded into a model with a head: the head is new."""


def lfs_hint(path: str | os.PathLike) -> str:
    """What to add to a message about a file that may be a pointer of git-lfs."""
    try:
        with open(path, "rb") as file:
            is_pointer = file.read(len(_LFS_POINTER)) == _LFS_POINTER
    except OSError:
        return ""
    return "; it is a pointer of git-lfs: `git lfs pull` fetches it" * is_pointer


def reason(error: Exception) -> str:
    """The message of a TensorFlow error in one line, without names of operations."""
    line = " ".join(getattr(error, "message", str(error)).split())
    return re.sub(r"\{\{.*?\}\} *|\[Op:.*", "", line).strip()
