"""A corpus of token ids on disk: sharded TFRecords and a manifest.

    manifest.json                      counts, settings, names and sizes; written last
    tokenizer.model                    the tokenizer of the ids
    corpus-00000-of-00004.tfrecord     tf.train.Example, int64 feature "token_ids"

Sequence number i is record i // shards of shard i % shards, so that reading the
shards in turn gives the sequences in their order.
"""

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import tensorflow as tf

from tiedbert.errors import InputError
from tiedbert.text.files import draft_folder
from tiedbert.text.manifest import (
    MANIFEST,
    REPAIR,
    check_sizes,
    load_manifest,
    read_manifest,
    write_manifest,
)
from tiedbert.text.tokenizer import Tokenizer

TOKENIZER = "tokenizer.model"

_FEATURE = "token_ids"
_BATCH_CHARACTERS = 1 << 20  # tokenized at once: bounds the memory
_PARSE_BATCH = 256


def write_corpus(
    documents: Iterable[str],
    tokenizer: Tokenizer,
    output_dir: str | os.PathLike,
    sequence_length: int = 64,
    shards: int = 4,
    num_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Tokenize documents and pack them into sequences of token ids on disk.

    The documents, each followed by `[SEP]`, make one long row of ids, which is cut into
    sequences that each begin with `[CLS]`. So nothing is lost or padded: a long
    document continues in the next sequence, and only the last one may be shorter.
    Documents are read as a stream. The files are written in a hidden folder of
    `output_dir` and moved when they are complete; `manifest.json` appears last.

    Args:
        documents: the texts. One without any token is skipped.
        tokenizer: a copy of it is put beside the records.
        output_dir: a folder without a corpus; made if missing.
        sequence_length: ids in a sequence, `[CLS]` and `[SEP]` included.
        shards: number of record files.
        num_threads: threads that tokenize; None (the default) for all cores.
        progress: called as `progress(documents, tokens)` about every million
            characters, with the counts so far.

    Returns:
        The manifest.

    Raises:
        InputError: there is no text, `output_dir` has a corpus already, or a number
            is out of range. No file is left behind.

    Example:
        >>> import tempfile
        >>> from tiedbert.text.tokenizer import train_tokenizer
        >>> lines = ["to be or not to be", "that is the question"]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tokenizer = train_tokenizer(lines, f"{folder}/my.model", vocab_size=20)
        ...     manifest = write_corpus(lines, tokenizer, f"{folder}/corpus", 16)
        ...     first = next(corpus_dataset(f"{folder}/corpus").as_numpy_iterator())
        >>> manifest["documents"], first.shape, int(first[0]) == tokenizer.cls_id
        (2, (16,), True)
    """
    check_sizes(sequence_length, shards)
    folder = Path(output_dir)
    if (folder / MANIFEST).exists():
        raise InputError(f"{folder} holds a corpus already: name another directory")
    counts = {"documents": 0, "tokens": 0}
    rows = _token_rows(documents, tokenizer, num_threads, counts, progress)
    with draft_folder(folder) as staging:
        sequences = _sequences(rows, tokenizer, sequence_length)
        files = _write_shards(staging, sequences, shards)
        if not counts["tokens"]:
            raise InputError("the corpus is empty: expected documents with text")
        tokenizer.save(staging / TOKENIZER)
    fields = {
        **counts,
        "sequences": sum(file["records"] for file in files),
        "tokenizer": _describe(tokenizer),
        "shards": files,
        "config": {"sequence_length": sequence_length, "shards": shards},
    }
    return write_manifest(folder, fields)


def corpus_dataset(
    corpus_dir: str | os.PathLike, sequence_length: int | None = None
) -> tf.data.Dataset:
    """The sequences of a corpus as a dataset, in the order written.

    Args:
        corpus_dir: the folder.
        sequence_length: ids in an element, at least as many as a sequence has; None
            (the default) for as many.

    Returns:
        A dataset of `int32 [sequence_length]`, padded with 0, of known cardinality.
        Reading it raises `tf.errors.DataLossError` at a corrupt record and
        `tf.errors.FailedPreconditionError` where records are missing; `find_damage`
        names the place.

    Raises:
        InputError: as `read_manifest` does, or for the length.
    """
    manifest = read_manifest(corpus_dir)
    own_length = manifest["config"]["sequence_length"]
    length = sequence_length or own_length
    if length < own_length:
        raise InputError(
            f"sequence_length is {length}, but the sequences in {corpus_dir} have "
            f"up to {own_length} ids: choose at least that, or prepare it again"
        )
    files = [str(Path(corpus_dir) / shard["file"]) for shard in manifest["shards"]]
    records = tf.data.Dataset.from_tensor_slices(files).interleave(
        tf.data.TFRecordDataset,
        cycle_length=len(files),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    # Parsing in batches is eight times as fast as one by one.
    batches = records.batch(_PARSE_BATCH).map(
        lambda batch: _parse(batch, length), num_parallel_calls=tf.data.AUTOTUNE
    )
    count = tf.data.experimental.assert_cardinality(manifest["sequences"])
    return batches.unbatch().apply(count)


def find_damage(corpus_dir: str | os.PathLike) -> str | None:
    """Read every record of a corpus; check its CRC and its number of ids.

    Returns:
        None, or a sentence that names the first bad file and record.

    Raises:
        InputError: the manifest itself is missing or malformed.
    """
    folder = Path(corpus_dir)
    manifest = load_manifest(folder)
    length = manifest["config"]["sequence_length"]
    for shard in manifest["shards"]:
        path = folder / shard["file"]
        if not path.is_file():
            return f"{path} is missing; {REPAIR}"
        if fault := _shard_fault(str(path), shard["records"], length):
            return f"{path}: {fault}; {REPAIR}"
    return None


def _shard_fault(path, expected, length):
    records = tf.data.TFRecordDataset(path)
    try:
        shapes = [_ids(batch).shape for batch in records.batch(_PARSE_BATCH)]
    except tf.errors.DataLossError:
        return f"record {_readable(records)} (from 0) of {expected} is corrupt"
    except tf.errors.InvalidArgumentError:
        return f"expected records with integers named {_FEATURE}"
    found = sum(count for count, _ in shapes)
    if found != expected:
        return f"expected {expected} records, found {found}"
    longest = max((ids for _, ids in shapes), default=0)
    if longest > length:
        return (
            f"expected records of at most {length} ids, the sequence_length of "
            f"{MANIFEST}, found one of {longest}"
        )
    return None


def _readable(records):
    """How many records can be read before the first bad one."""
    count = 0
    with contextlib.suppress(tf.errors.DataLossError):
        for _ in records:
            count += 1
    return count


def _ids(records):
    """int64 ``[records, longest]``, padded with 0."""
    feature = tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True)
    return tf.io.parse_example(records, {_FEATURE: feature})[_FEATURE]


def _parse(records, length):
    ids = _ids(records)
    padding = length - tf.shape(ids)[1]  # negative if too long: tf.pad refuses it
    ids = tf.pad(tf.cast(ids, tf.int32), [[0, 0], [0, padding]])
    return tf.ensure_shape(ids, [None, length])


def _describe(tokenizer):
    return {
        "file": TOKENIZER,
        "sha256": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
    }


def _batches(documents):
    batch, characters = [], 0
    for document in documents:
        batch.append(document)
        characters += len(document)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    yield batch


def _token_rows(documents, tokenizer, num_threads, counts, progress):
    """Yield the ids of each document, and count."""
    for batch in _batches(documents):
        for ids in filter(None, tokenizer.encode(batch, num_threads)):
            counts["documents"] += 1
            counts["tokens"] += len(ids)
            yield ids
        if progress:
            progress(counts["documents"], counts["tokens"])


def _sequences(rows, tokenizer, sequence_length):
    """Cut the row of all documents into sequences, each after a `[CLS]`."""
    size = sequence_length - 1
    pending = []
    for ids in rows:
        pending += [*ids, tokenizer.sep_id]
        whole = len(pending) - len(pending) % size
        for start in range(0, whole, size):
            yield [tokenizer.cls_id, *pending[start : start + size]]
        del pending[:whole]
    if pending:
        yield [tokenizer.cls_id, *pending]


def _example(ids):
    feature = tf.train.Feature(int64_list=tf.train.Int64List(value=ids))
    features = tf.train.Features(feature={_FEATURE: feature})
    return tf.train.Example(features=features).SerializeToString()


def _write_shards(folder, sequences, shards):
    """Deal the sequences out to the shards; their entries for the manifest."""
    names = [f"corpus-{i:05d}-of-{shards:05d}.tfrecord" for i in range(shards)]
    records = [0] * shards
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(tf.io.TFRecordWriter(str(folder / name)))
            for name in names
        ]
        for number, ids in enumerate(sequences):
            writers[number % shards].write(_example(ids))
            records[number % shards] += 1
    return [
        {"file": name, "records": count, "bytes": (folder / name).stat().st_size}
        for name, count in zip(names, records, strict=True)
    ]
