"""What mkdocstrings reads differently from the rest of Python's tools.

The docstrings of tiedbert have `Example:` sections and roles of Sphinx. Griffe calls
the first `Examples:` and does not know the second.
"""

import re

import griffe


class PlainDocstrings(griffe.Extension):
    """Rewrite each docstring that griffe has read."""

    def on_object(self, *, obj, **_):
        if obj.docstring:
            text = re.sub(r":\w+:`([^`]+)`", r"`\1`", obj.docstring.value)
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.M)
