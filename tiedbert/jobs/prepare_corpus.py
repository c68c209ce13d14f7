"""Turn plain text into a corpus of token ids for pretraining.

    tiedbert prepare-corpus texts.txt --output_dir runs/corpus

Texts are UTF-8 with one document a line. Writes into --output_dir: config.json,
tokenizer.model (sentencepiece), corpus-*.tfrecord and manifest.json (counts, sizes and
hashes; written last).
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from tiedbert.command import parser, positive_int, quiet_import
from tiedbert.errors import InputError
from tiedbert.jobs.runs import check_run, open_run
from tiedbert.text.documents import ENCODING_ERRORS, read_documents
from tiedbert.text.manifest import check_sizes
from tiedbert.text.tokenizer import Tokenizer, train_tokenizer

PROGRESS_SECONDS = 5


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    command = parser(__doc__)
    add = command.add_argument
    add("texts", metavar="TEXT", nargs="+", type=Path, help="text, a document a line")
    add("--output_dir", required=True, type=Path, help="run directory to write")
    add("--vocab_size", type=positive_int, default=8000, help="number of token ids")
    add("--tokenizer", type=Path, help="use this tokenizer.model, do not train one")
    add("--sequence_length", type=positive_int, default=64, help="token ids, at most")
    add("--shards", type=positive_int, default=4, help="record files to write")
    add(
        "--errors",
        choices=ENCODING_ERRORS,
        default="strict",
        help="bytes that are not UTF-8: stop, put U+FFFD, or drop them",
    )
    add(
        "--threads",
        type=positive_int,
        default=os.cpu_count(),
        help="threads that tokenize",
    )
    add("--overwrite", action="store_true", help="replace the run in --output_dir")
    return command.parse_args(argv)


def check(args: argparse.Namespace) -> None:
    """Refuse at once what would stop the job after its work."""
    check_sizes(args.sequence_length, args.shards)
    for path in args.texts:
        if not path.is_file():
            raise InputError(
                f"{path}: expected a text file, found "
                f"{'no regular file' if path.exists() else 'nothing there'}"
            )


def documents(args: argparse.Namespace) -> Iterator[str]:
    """All documents of all files, as a stream."""
    return chain.from_iterable(read_documents(path, args.errors) for path in args.texts)


def train(args: argparse.Namespace) -> Tokenizer:
    """A tokenizer trained on the documents."""
    print(f"training a tokenizer of {args.vocab_size} ids", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        model_file = Path(folder) / "tokenizer.model"
        return train_tokenizer(documents(args), model_file, args.vocab_size)


def load(args: argparse.Namespace) -> Tokenizer:
    """The tokenizer of --tokenizer, once all documents were read without an error."""
    tokenizer = Tokenizer(args.tokenizer)
    texts = documents(args)
    if not any(tokenizer.encode([text])[0] for text in texts):
        raise InputError("the corpus is empty: expected documents with text")
    for _ in texts:
        pass
    return tokenizer


def reporter() -> Callable[[int, int], None]:
    """A progress function that prints a line every few seconds."""
    started = last = time.perf_counter()

    def report(documents, tokens):
        nonlocal last
        now = time.perf_counter()
        if now - last >= PROGRESS_SECONDS:
            last = now
            print(
                f"{documents:,} documents, {tokens:,} tokens, {now - started:.0f} s",
                flush=True,
            )

    return report


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the corpus and sum up."""
    args = options(argv)
    inputs = [*args.texts, *filter(None, [args.tokenizer])]
    check_run("prepare_corpus", vars(args), inputs)
    check(args)
    started = time.perf_counter()
    tokenizer = load(args) if args.tokenizer else train(args)
    # The inputs are valid, so --overwrite may now remove the old run.
    folder = open_run("prepare_corpus", vars(args), inputs)

    # Imported late: TensorFlow takes seconds, and most mistakes show before.
    with quiet_import():
        from tiedbert.text.records import write_corpus

    manifest = write_corpus(
        documents(args),
        tokenizer,
        folder,
        args.sequence_length,
        args.shards,
        args.threads,
        reporter(),
    )
    seconds = time.perf_counter() - started
    megabytes = sum(path.stat().st_size for path in args.texts) / 1e6
    print(
        f"{folder}: {manifest['documents']:,} documents, "
        f"{manifest['tokens']:,} tokens, {manifest['sequences']:,} sequences, "
        f"{seconds:.0f} s, {megabytes / seconds:.1f} MB/s"
    )
