"""The one exception for what a user can mend, and what messages say."""

import re

_LFS_POINTER = b"version https://git-lfs"


class InputError(ValueError):
    """A mistake in what the user gave: a file, an option, a name.

    The message is one line that says what was asked, what was expected, what
    was received and how to mend it; scripts print it without a traceback.
    """

    # AutoGraph and Keras wrap what is raised in a layer, as in `fit`, in paths of files
    # and in arguments. Each passes on what has its mark, so that the line stays one.
    ag_pass_through = True
    _keras_call_info_injected = True


class NewHeadWarning(UserWarning):
    """Files of an encoder were loaded into a model with a head: the head is new."""


def lfs_hint(path) -> str:
    """What to add to a message about a file that only stands for another."""
    try:
        with open(path, "rb") as file:
            is_pointer = file.read(len(_LFS_POINTER)) == _LFS_POINTER
    except OSError:
        return ""
    return "; it is a pointer of git-lfs: `git lfs pull` fetches it" * is_pointer


def reason(error) -> str:
    """What an error of TensorFlow says, in one line, without names of operations."""
    line = " ".join(getattr(error, "message", str(error)).split())
    return re.sub(r"\{\{.*?\}\} *|\[Op:.*", "", line).strip()
