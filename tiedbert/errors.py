"""The one exception for what a user can mend."""

import re


class InputError(ValueError):
    """A mistake in what the user gave: a file, an option, a name.

    The message is one line that says what was asked, what was expected, what
    was received and how to mend it; scripts print it without a traceback.
    """


def reason(error) -> str:
    """What an error of TensorFlow says, in one line, without names of operations."""
    line = " ".join(getattr(error, "message", str(error)).split())
    return re.sub(r"\{\{.*?\}\} *|\[Op:.*", "", line).strip()
