"""Labelled text for classification: reading, checking and batching."""

import csv
import itertools
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedbert.errors import InputError
from tiedbert.text.documents import read_lines
from tiedbert.text.tasks import check_columns, check_task

if TYPE_CHECKING:
    import tensorflow as tf

    from tiedbert.text.tokenizer import Tokenizer

COLUMNS = ("label", "text")

# .tsv has no quotes; in .csv a quoted field must be closed.
_DIALECTS = {
    ".tsv": {"delimiter": "\t", "quoting": csv.QUOTE_NONE},
    ".csv": {"delimiter": ",", "strict": True},
}

_LONGEST_FIELD = 2**31 - 1  # the largest limit that csv takes on every system

_BATCHES_A_WINDOW = 50
_LENGTH_STEP = 16


def read_labelled(
    path: str | os.PathLike, errors: str = "strict"
) -> tuple[list[str], list[str]]:
    r"""Read a UTF-8 table with the columns `label` and `text`.

    The first line names the columns, in any order. The suffix of the file gives the
    format: in `.tsv` tabs separate and quotes are ordinary characters, in `.csv` commas
    separate and double quotes enclose. Blank lines are skipped.

    A label is the name of one class of a text. Tables of another task are refused: a
    second text in a row, further labels or weights (by the names of the columns), and
    labels that are measurements, one tag for each token, or several classes at once.

    Args:
        path: the file.
        errors: what happens to bytes that are not UTF-8, as in `read_documents`.

    Returns:
        (texts, labels), two lists of `str` of the same length.

    Raises:
        InputError: the table cannot be read or is of another task; with the line.

    Warns:
        UserWarning: names other columns, which are not read; or labels that share a
            part between commas or the like, which may stand for several classes.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "reviews.tsv")
        ...     _ = path.write_text("text\tlabel\nsaid \"go\"\tgood\n")
        ...     read_labelled(path)
        (['said "go"'], ['good'])
    """
    path = Path(path)
    limit = csv.field_size_limit(_LONGEST_FIELD)  # of the whole process
    try:
        texts, labels = _read(path, errors)
    finally:
        csv.field_size_limit(limit)
    if not texts:
        raise InputError(f"{path}: expected rows of label and text, found none")
    check_task(path, texts, labels)
    return texts, labels


def _read(path, errors) -> tuple:
    """The texts and the labels of a table."""
    rows = _rows(path, errors)
    number, header = next(rows, (1, []))
    where = _columns(header, f"{path}, line {number}")
    texts, labels = [], []
    for number, row in rows:
        label, text = _fields(row, where, len(header), f"{path}, line {number}")
        labels.append(label)
        texts.append(text)
    return texts, labels


def label_names(labels: Iterable[str]) -> list[str]:
    """The different labels, sorted: the classes of a model in the order of its ids.

    Example:
        >>> label_names(["pos", "neg", "pos"])
        ['neg', 'pos']

    Raises:
        InputError: a label is not a `str` or a whole number.
    """
    names = set(labels)
    wrong = [name for name in names if not isinstance(name, (str, Integral))]
    if wrong:
        raise InputError(
            f"labels: expected the names of classes, received {wrong[0]!r}: to predict "
            "numbers is another task, which tiedbert does not do"
        )
    return sorted(names)


def label_ids(labels: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """The index of each label in `names`, `int32 [labels]`.

    Raises:
        InputError: a label is not in `names`.

    Example:
        >>> label_ids(["pos", "neg", "pos"], ["neg", "pos"])
        array([1, 0, 1], dtype=int32)
    """
    ids = {name: index for index, name in enumerate(names)}
    if unknown := set(labels) - set(ids):
        raise InputError(
            f"label {_quoted(unknown)} is not known: expected one of {_quoted(names)}"
        )
    return np.array([ids[label] for label in labels], np.int32)


def check_same_labels(labels_of: Mapping[Any, Iterable[str]]) -> None:
    """Check that files for one task have one set of labels.

    Args:
        labels_of: file -> its labels; each is compared with the first.

    Raises:
        InputError: names two files and the labels that only one of them has.

    Example:
        >>> check_same_labels({"train.tsv": ["no", "yes"], "test.tsv": ["yes", "no"]})
    """
    (first, expected), *others = labels_of.items()
    for name, found in others:
        parts = [
            f"only {file} has {_quoted(extra)}"
            for file, extra in (
                (first, set(expected) - set(found)),
                (name, set(found) - set(expected)),
            )
            if extra
        ]
        if parts:
            raise InputError(
                f"the labels of {first} and {name} differ: {', '.join(parts)}; "
                "give all files of a task the same labels"
            )


def classification_dataset(
    texts: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    tokenizer: "Tokenizer",
    batch_size: int,
    max_length: int,
    shuffle_seed: int | None = None,
) -> "tf.data.Dataset":
    """Batches for a classifier with bert4keras' inputs.

    All texts are encoded once, when this is called. With a seed, each epoch has another
    order, and a batch has texts of about the same length (sorted in windows of 50
    batches), which keeps padding short; the seed fixes the order of all epochs. Without
    a seed the order is that of `texts`.

    Args:
        texts: a list of `str`.
        labels: `int [texts]`, 0 or more, as from `label_ids`.
        tokenizer: the tokenizer of the model.
        batch_size: texts in a batch; the last may have fewer.
        max_length: largest number of token ids, `[CLS]` and `[SEP]` included.
        shuffle_seed: an `int`; None (the default) does not shuffle.

    Returns:
        A `tf.data.Dataset` of known cardinality, of
        `({"Input-Token": int32 [B, T], "Input-Segment": int32 [B, T]}, int32 [B])`.
        T is the length of the longest text in the batch, rounded up to a multiple of
        16 (to have few shapes) but at most `max_length`; padding is 0.

    Raises:
        InputError: there is no text, another number of labels, or labels of another
            kind.
    """
    import tensorflow as tf  # late: the readers above do not need it

    if len(texts) != len(labels) or not len(texts):
        raise InputError(
            f"expected texts and as many labels, found {len(texts)} and {len(labels)}"
        )
    labels = _class_ids(labels)
    rows = _rows_of_ids(texts, tokenizer, max_length)

    def batch(indices):
        token_ids = _pad(tf.gather(rows, indices).to_tensor(), max_length)
        inputs = {"Input-Token": token_ids, "Input-Segment": tf.zeros_like(token_ids)}
        return inputs, tf.gather(labels, indices)

    order = _order(rows.row_lengths(), batch_size, shuffle_seed)
    batches = order.map(batch, num_parallel_calls=tf.data.AUTOTUNE)
    count = tf.data.experimental.assert_cardinality(-(-len(texts) // batch_size))
    return batches.apply(count).prefetch(tf.data.AUTOTUNE)


def _class_ids(labels):
    try:
        ids = np.asarray(labels)
    except ValueError:  # rows of different lengths
        ids = np.asarray(labels, object)
    if ids.dtype.kind not in "iu" or ids.ndim != 1 or ids.min() < 0:
        raise InputError(
            "labels: expected one whole number a text, 0 or more, received "
            f"{ids.dtype} {list(ids.shape)}, {labels!r:.60}"
        )
    return ids.astype(np.int32)


def _rows_of_ids(texts, tokenizer, max_length):
    """All texts as one ragged tensor, without padding."""
    import tensorflow as tf

    rows = tokenizer.encode_rows(texts, max_length)
    values = np.fromiter(itertools.chain.from_iterable(rows), np.int32)
    return tf.RaggedTensor.from_row_lengths(values, [len(row) for row in rows])


def _order(lengths, batch_size, seed):
    """Batches of indices into the texts."""
    import tensorflow as tf

    indices = tf.data.Dataset.range(len(lengths))
    if seed is None:
        return indices.batch(batch_size)

    def by_length(window):
        order = tf.argsort(tf.gather(lengths, window))
        ordered = tf.data.Dataset.from_tensor_slices(tf.gather(window, order))
        return ordered.batch(batch_size)

    windows = indices.shuffle(len(lengths), seed).batch(batch_size * _BATCHES_A_WINDOW)
    return windows.flat_map(by_length).shuffle(_BATCHES_A_WINDOW, seed + 1)


def _pad(token_ids, max_length):
    import tensorflow as tf

    longest = tf.shape(token_ids)[1]
    rounded = tf.minimum(-(-longest // _LENGTH_STEP) * _LENGTH_STEP, max_length)
    return tf.pad(token_ids, [[0, 0], [0, rounded - longest]])


def _rows(path, errors):
    """Yield (line number, fields) of the rows that are not blank."""
    dialect = _DIALECTS.get(path.suffix.lower())
    if dialect is None:
        raise InputError(f"{path}: expected a name that ends in .tsv or .csv")
    lines = (line for _, line in read_lines(path, errors))
    reader = csv.reader(lines, **dialect)
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise InputError(
                f"{path}, line {reader.line_num}: expected a row of a table, found "
                f"{error}"
            ) from None
        if row is None:
            return
        if any(field.strip() for field in row):
            yield reader.line_num, row


def _columns(header, place):
    """The indices of the columns `label` and `text`."""
    names = [name.strip() for name in header]
    if any(names.count(column) != 1 for column in COLUMNS):
        raise InputError(
            f"{place}: expected a header with one column label and one column text, "
            f"found {_quoted(names)}"
        )
    others = [name for name in names if name not in COLUMNS]
    check_columns(place, others)
    if others:
        warnings.warn(
            f"{place}: columns that are not read: {_quoted(others)}",
            UserWarning,
            stacklevel=4,
        )
    return [names.index(column) for column in COLUMNS]


def _fields(row, where, width, place):
    """The label and the text of a row."""
    if len(row) > width:
        raise InputError(
            f"{place}: expected {width} fields as in the header, found {len(row)}; "
            "in .csv, put double quotes around a text with commas"
        )
    values = [row[i].strip() if i < len(row) else "" for i in where]
    for column, value in zip(COLUMNS, values, strict=True):
        if not value:
            raise InputError(f"{place}: expected a {column}, found none")
    return values


def _quoted(names):
    return ", ".join(repr(name) for name in sorted(names)) or "nothing"
