"""Whether a labelled table is of texts with one class each, or of another task."""

import re

from tiedbert.errors import InputError

# Columns that say that a row has more than one text and one class.
_SECOND_TEXT = re.compile(
    r"(text|sentence|sent|question|query|passage|document|doc|sequence|seq)"
    r"[ _-]?(b|2|two|pair|second)|"
    r"(second|other)[ _-]?(text|sentence)|"
    r"hypothesis|premise|pair|question|query|passage|context|answer|response|reference"
)
_MORE_LABELS = re.compile(r"labels|label[ _-]?(b|2|two|second)|(ner|pos)[ _-]?tags?")
_WEIGHT = re.compile(r"((sample|example)[ _-]?)?weights?")
_OTHER_TASKS = {
    "a second text": _SECOND_TEXT,
    "further labels": _MORE_LABELS,
    "a weight": _WEIGHT,
}

_TAG = re.compile(r"O|[BIESLUM]([-_].+)?")
_LIST = re.compile(r"\[.*\]|\{.*\}|\(.*,.*\)")
_BETWEEN_TAGS = re.compile(r"[\s,]+")
_BETWEEN_CLASSES = re.compile(r"[,;|]")


def check_columns(place, names):
    """InputError when a column beside label and text makes it another task.

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


def check_task(path, texts, labels):
    """InputError when labels are not the names of classes.

    Args:
        path: the file, for the message.
        texts: a list of `str`.
        labels: as many `str`.
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
            "another task, which is not there"
        )


def _measurements(names):
    """Whole numbers may be names, 1.0 for 1 too; of those with a fraction none is."""
    values = {name: _number(name) for name in names}
    if None in values.values():
        return None
    parts = sorted(name for name, value in values.items() if value % 1 != 0)
    return f"numbers with a fraction as labels ({parts[0]!r})" if parts else None


def _number(name):
    try:
        return float(name.replace(",", ".")) if name.count(",") < 2 else None
    except ValueError:
        return None


def _lists(names):
    lists = sorted(filter(_LIST.fullmatch, names))
    return f"a list as a label ({lists[0]!r:.60})" if lists else None


def _tags(texts, labels):
    """A tag a token: of the usual scheme, or as many as the text has words or signs."""
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
    """Labels that are made of others, as those of several classes a text are."""
    for name in sorted(names):
        parts = {part.strip() for part in _BETWEEN_CLASSES.split(name)}
        if len(parts) > 1 and parts <= names:
            return f"several classes as a label ({name!r:.60})"
    return None
