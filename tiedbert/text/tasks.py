"""Refuses labelled tables of another task than one class for each text."""

import math
import re
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from tiedbert.errors import InputError

# Columns that say that a row has more than one text and one class.
_ONE_OF_SEVERAL = r"[ _-]?([a-h]|\d+|one|two|first|second|pair)"
_SECOND_TEXT = re.compile(
    r"(text|sentence|sent|question|query|passage|document|doc|sequence|seq|choice|"
    rf"ending|option|answer|response|candidate){_ONE_OF_SEVERAL}|"
    r"(first|second|other)[ _-]?(text|sentence)|"
    r"hypo(thesis)?|premise|pair|question|query|passage|context|response|"
    r"reference|(choice|ending|option|candidate|answer)s?"
)
_MORE_LABELS = re.compile(
    rf"labels|tags|(label|class|target|tag){_ONE_OF_SEVERAL}|"
    r"(soft|hard|gold|silver|coarse|fine|other|second|multi|token)[ _-]?labels?|"
    r"(ner|pos|bio|chunk|slot|token)[ _-]?tags?"
)
_WEIGHT = re.compile(r"((sample|example|instance|class|label|row|loss)[ _-]?)?weights?")
_OTHER_TASKS = {
    "a second text": _SECOND_TEXT,
    "further labels": _MORE_LABELS,
    "a weight": _WEIGHT,
}

_TAG = re.compile(r"O|[BIESLUM]([-_].+)?")
_LIST = re.compile(r"\[.*\]|\{.*\}|\(.*,.*\)")
_BETWEEN_TAGS = re.compile(r"[\s,]+")
_BETWEEN_CLASSES = re.compile("[,;|，；、]")


def check_columns(place: str, names: Sequence[str]) -> None:
    """InputError if a column beside label and text belongs to another task.

    Args:
        place: file and line, for the message.
        names: the other columns.
    """
    for name in names:
        for what, pattern in _OTHER_TASKS.items():
            if pattern.fullmatch(name.lower()):
                raise InputError(
                    f"{place}: the column {name!r} looks like {what} in each row: "
                    "expected one text and the name of its class; rename or remove "
                    "the column if it is to be left out"
                )


def check_task(path: Path, texts: Sequence[str], labels: Sequence[str]) -> None:
    """InputError if the labels are not the names of classes.

    Args:
        path: the file, for the message.
        texts: the texts of the table.
        labels: the label of each text.

    Warns:
        UserWarning: labels share a part, as labels of several classes do. That may be
            right ("Paris, Texas" and "Austin, Texas"), so it is no error.
    """
    names = set(labels)
    what = (
        _measurements(names)
        or _lists(names)
        or _tags(texts, labels)
        or _several_classes(names)
    )
    if what:
        raise InputError(
            f"{path}: expected the name of one class a text, found {what}: that is "
            "another task, which tiedbert does not do"
        )
    _warn_of_shared_parts(path, names)


def _measurements(names):
    """Labels like 2.5; whole numbers (1 or 1.0) can be names of classes."""
    found = sorted(filter(_has_fraction, names))
    return f"numbers with a fraction as labels ({found[0]!r})" if found else None


def _has_fraction(name) -> bool:
    """Whether a label is a number with a fraction; "nan" is a word here."""
    try:
        value = float(name.replace(",", "."))
    except ValueError:
        return False
    return math.isfinite(value) and value % 1 != 0


def _lists(names):
    lists = sorted(filter(_LIST.fullmatch, names))
    return f"a list as a label ({lists[0]!r:.60})" if lists else None


def _tags(texts, labels):
    """Labels of tags (B-PER, O), or of as many parts as the text has words."""
    parts = [_BETWEEN_TAGS.split(label) for label in labels]
    longest = max(parts, key=len)
    if len(longest) < 2:
        return None
    counted = all(
        len(tags) in (len(text.split()), len("".join(text.split())))
        for tags, text in zip(parts, texts, strict=True)
    )
    in_scheme = all(_TAG.fullmatch(tag) for tag in longest)
    found = " ".join(longest)
    return f"a tag for each token ({found!r:.60})" if counted or in_scheme else None


def _several_classes(names):
    """A label of several parts, each of which is in another label too."""
    users = _users_of_parts(names)
    for name in sorted(names):
        parts = _parts(name)
        if len(parts) > 1 and all(len(users[part]) > 1 for part in parts):
            return f"several classes as a label ({name!r:.60})"
    return None


def _warn_of_shared_parts(path, names):
    for part, users in sorted(_users_of_parts(names).items()):
        if len(users) > 1:
            one, two, *_ = sorted(users)
            warnings.warn(
                f"{path}: the labels {one!r:.60} and {two!r:.60} share {part!r:.60}: "
                "each was read as the name of one class",
                UserWarning,
                stacklevel=4,
            )
            return


def _users_of_parts(names) -> dict:
    """Each part -> the labels that have it."""
    users = defaultdict(list)
    for name in names:
        for part in _parts(name):
            users[part].append(name)
    return users


def _parts(name) -> set:
    """The parts of a label between commas and the like."""
    return {part.strip() for part in _BETWEEN_CLASSES.split(name)} - {""}
