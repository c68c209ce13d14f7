"""Labelled text for classification: reading, checking and batching."""

import csv
import itertools
import warnings
from numbers import Integral
from pathlib import Path

import numpy as np

from tiedbert.errors import InputError
from tiedbert.text.documents import read_lines
from tiedbert.text.tasks import check_columns, check_task

COLUMNS = ("label", "text")

# Tabs separate and nothing quotes; or commas, and double quotes that must close.
_DIALECTS = {
    ".tsv": {"delimiter": "\t", "quoting": csv.QUOTE_NONE},
    ".csv": {"delimiter": ",", "strict": True},
}

_LONGEST_FIELD = 2**31 - 1  # of csv: what a C long holds everywhere

_BATCHES_A_WINDOW = 50
_LENGTH_STEP = 16


def read_labelled(path, errors="strict"):
    r"""Read a UTF-8 table with the columns `label` and `text`.

    The first line names the columns; their order is free. The suffix tells the kind: in
    `.tsv` tabs separate and quotes are ordinary characters, in `.csv` commas separate
    and double quotes enclose. Blank lines are skipped.

    A label is the name of one class of a text. Tables of another task are refused: a
    second text in a row, further labels or weights (by the names of the columns), and
    labels that are measurements, one tag for each token, or several classes at once.

    Args:
        path: the file.
        errors: what to do about bytes that are not UTF-8, as in `read_documents`.

    Returns:
        (texts, labels), two lists of `str` of the same length.

    Raises:
        InputError: with the file and, where it has one, the line.

    Warns:
        UserWarning: other columns, by name: they are not read; and labels that share a
            part between commas or the like, which may be several classes each.

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


def label_names(labels):
    """The different labels, sorted: the classes of a model, in the order of its ids.

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


def label_ids(labels, names):
    """The place of each label in `names`, `int32 [labels]`.

    Raises:
        InputError: a label is not in `names`.

    >>> label_ids(["pos", "neg", "pos"], ["neg", "pos"])
    array([1, 0, 1], dtype=int32)
    """
    ids = {name: place for place, name in enumerate(names)}
    if unknown := set(labels) - set(ids):
        raise InputError(
            f"label {_quoted(unknown)} is not known: expected one of {_quoted(names)}"
        )
    return np.array([ids[label] for label in labels], np.int32)


def check_same_labels(labels_of):
    """Check that files for one task have one set of labels.

    Args:
        labels_of: a dict from the name of a file to its labels; the others are
            compared with the first.

    Raises:
        InputError: with two files and the labels that only one of them has.

    >>> check_same_labels({"train.tsv": ["neg", "pos"], "test.tsv": ["pos", "neg"]})
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
    texts, labels, tokenizer, batch_size, max_length, shuffle_seed=None
):
    """Batches for a classifier with bert4keras' inputs.

    All texts are encoded here, once. With a seed, each epoch shuffles anew, and
    batches hold texts of about the same length (drawn in windows of 50 batches), so
    that short texts do not pay for long ones; the seed fixes the order of all epochs.
    Without one the order is that of `texts`.

    Args:
        texts: a list of `str`.
        labels: `int [texts]`, 0 or more, as from `label_ids`.
        tokenizer: a `Tokenizer`.
        batch_size: texts in a batch; the last may have fewer.
        max_length: token ids of a text at most, `[CLS]` and `[SEP]` included.
        shuffle_seed: an `int`, or None.

    Returns:
        A `tf.data.Dataset` of known cardinality, of
        `({"Input-Token": int32 [B, T], "Input-Segment": int32 [B, T]}, int32 [B])`.
        T is that of the longest text in the batch, rounded up to a multiple of 16
        (so that shapes are few) but at most `max_length`; the rest is 0.

    Raises:
        InputError: no text, another number of labels, or labels that are no such ids.
    """
    import tensorflow as tf  # here: the readers above do not need it

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
    except ValueError:  # rows of several lengths
        ids = np.asarray(labels, object)
    if ids.dtype.kind not in "iu" or ids.ndim != 1 or ids.min() < 0:
        raise InputError(
            "labels: expected one whole number a text, 0 or more, received "
            f"{ids.dtype} {list(ids.shape)}, {labels!r:.60}"
        )
    return ids.astype(np.int32)


def _rows_of_ids(texts, tokenizer, max_length):
    """All texts as one ragged tensor: no memory goes to padding."""
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
        places = tf.argsort(tf.gather(lengths, window))
        ordered = tf.data.Dataset.from_tensor_slices(tf.gather(window, places))
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
    """Where `label` and `text` are."""
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
