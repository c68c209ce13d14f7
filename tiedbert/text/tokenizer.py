"""A sentencepiece unigram tokenizer with BERT's special tokens."""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import sentencepiece

from tiedbert.errors import InputError, lfs_hint
from tiedbert.text.files import write_file

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# The trainer ignores long sentences and holds all others in memory, about 55 bytes a
# character. Documents are cut into pieces of this length, and the trainer draws a
# random sample of at most so many: every document may be in it, and the memory stays
# below 3 GB.
_PIECE_LENGTH = 256
_SAMPLE_SIZE = 200_000

# The trainer also ignores every sentence with this character (a block element).
_RESERVED = "\u2585"

# The trainer adds floats per thread, so the number of threads changes the vocabulary.
# A constant number gives the same vocabulary on every machine.
_TRAINING_THREADS = 16


def train_tokenizer(
    documents: Iterable[str],
    model_file: str | os.PathLike,
    vocab_size: int = 8000,
    character_coverage: float = 0.9995,
) -> "Tokenizer":
    """Train a unigram tokenizer (Kudo 2018) and write it to a file.

    The same documents in the same order give the same file, byte for byte, on any
    machine. The text is normalized (NFKC: full-width forms become half-width). No space
    is put before it: Chinese has none, and the vocabulary would need a second copy of
    each word that can begin a document.

    Args:
        documents: the texts; read once, as a stream.
        model_file: where to write the model; its folder is made if missing.
        vocab_size: number of token ids, the five special tokens included.
        character_coverage: fraction of the characters in the text that get an id of
            their own, 0.98 to 1; the others become `[UNK]`.

    Returns:
        The trained tokenizer.

    Raises:
        InputError: there is no text, or too little for such a vocabulary.

    Example:
        >>> import tempfile
        >>> words = ["to be or not to be", "that is the question", "或者不"]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tokenizer = train_tokenizer(words, f"{folder}/my.model", vocab_size=22)
        >>> tokenizer.decode(tokenizer.encode(["not the question"])[0])
        'not the question'
    """
    failures = []
    model = _Buffer()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_pieces(documents, failures),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            add_dummy_prefix=False,
            input_sentence_size=_SAMPLE_SIZE,
            max_sentence_length=4 * _PIECE_LENGTH,  # bytes
            num_threads=_TRAINING_THREADS,
            minloglevel=3,  # fatal only: its errors arrive as exceptions
            **_special_token_options(),
        )
    except RuntimeError as error:
        if failures:
            raise failures[0] from None
        message = _explain(str(error), vocab_size, character_coverage)
        raise InputError(message) from error
    write_file(model_file, model.content)
    return Tokenizer(model_file)


class Tokenizer:
    """A trained tokenizer, read from a sentencepiece model file.

    Attributes:
        model_file: `Path` the model was read from.
        vocab_size: number of token ids.
        pad_id, unk_id, cls_id, sep_id, mask_id: ids of the special tokens, 0 to 4.
        special_ids: all of these but `unk_id`; they stand for no text.
        fingerprint: SHA-256 of the model file, in hexadecimal digits.

    Args:
        model_file: the file, as :func:`train_tokenizer` writes it.

    Raises:
        InputError: the file is missing, is not a sentencepiece model, or has other
            special tokens.
    """

    pad_id, unk_id, cls_id, sep_id, mask_id = range(len(SPECIAL_TOKENS))
    special_ids = (pad_id, cls_id, sep_id, mask_id)

    def __init__(self, model_file: str | os.PathLike) -> None:
        self.model_file = Path(model_file)
        self._model = _read_model(self.model_file)
        self._processor = _load(self._model, self.model_file)
        self.vocab_size = self._processor.get_piece_size()
        self.fingerprint = hashlib.sha256(self._model).hexdigest()

    def encode(
        self, texts: Sequence[str], num_threads: int | None = None
    ) -> list[list[int]]:
        """Token ids of each text, without special tokens.

        The C++ library encodes the whole batch on `num_threads` threads (None: on all
        cores). No text gives a special token other than `[UNK]`: "[MASK]" in a text is
        six characters.
        """
        if isinstance(texts, str):
            raise InputError("encode: expected a list of texts, got one str: [text]")
        return self._processor.encode(list(texts), num_threads=num_threads or -1)

    def encode_rows(self, texts: Sequence[str], max_length: int) -> list[list[int]]:
        """Rows `[CLS] ids [SEP]` of each text, as a model takes them.

        A row has at most `max_length` ids, 3 or more; a longer text is cut before
        `[SEP]`.
        """
        if max_length < 3:
            raise InputError(
                f"max_length is {max_length}: expected at least 3, "
                "for [CLS], a token and [SEP]"
            )
        rows = self.encode(texts)
        return [[self.cls_id, *ids[: max_length - 2], self.sep_id] for ids in rows]

    def encode_batch(self, texts: Sequence[str], max_length: int) -> np.ndarray:
        """`encode_rows` as one array, `int32 [texts, longest row]`, padded with 0."""
        rows = self.encode_rows(texts, max_length)
        shape = len(rows), max(map(len, rows), default=0)
        batch = np.full(shape, self.pad_id, np.int32)
        for row, ids in zip(batch, rows, strict=True):
            row[: len(ids)] = ids
        return batch

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids; `[UNK]` becomes "⁇", other special tokens nothing."""
        return self._processor.decode([int(token) for token in ids])

    def save(self, model_file: str | os.PathLike) -> None:
        """Write a copy of the model file, byte for byte."""
        write_file(model_file, self._model)


class _Buffer:
    """The model writer that sentencepiece asks for; it keeps the model in memory."""

    def write(self, content):
        self.content = content


def _pieces(documents, failures):
    """Pieces for the trainer, which wraps exceptions: `failures` gets the original."""
    try:
        for document in documents:
            for start in range(0, len(document), _PIECE_LENGTH):
                piece = document[start : start + _PIECE_LENGTH]
                yield piece.replace(_RESERVED, " ")
    except BaseException as failure:
        failures.append(failure)
        raise


def _special_token_options():
    pad, unknown, *control = SPECIAL_TOKENS
    return {
        "pad_id": Tokenizer.pad_id,
        "unk_id": Tokenizer.unk_id,
        "bos_id": -1,
        "eos_id": -1,
        "pad_piece": pad,
        "unk_piece": unknown,
        "control_symbols": control,
    }


def _explain(error, vocab_size, character_coverage):
    """What the user can do about an error of the C++ trainer, in one line."""
    if "sentences_.empty()" in error or "all_chars_count" in error:
        return "the corpus is empty: expected documents with text, found none"
    if high := re.search(r"too high.*<= (\d+)", error):
        return (
            f"vocab_size is {vocab_size}, but this text supports at most {high[1]}: "
            f"choose {high[1]} or less, or add text"
        )
    if low := re.search(r"smaller than required_chars\. \d+ vs (\d+)", error):
        return (
            f"vocab_size is {vocab_size}, but the characters of this text alone need "
            f"{low[1]}: choose more than {low[1]}, or a character_coverage below "
            f"{character_coverage}"
        )
    reason = " ".join(error.split())
    return (
        f"sentencepiece cannot train with vocab_size {vocab_size} and "
        f"character_coverage {character_coverage}: {reason}"
    )


def _read_model(path):
    try:
        return path.read_bytes()
    except FileNotFoundError:
        found = "nothing there"
    except IsADirectoryError:
        found = "a directory"
    raise InputError(f"tokenizer {path}: expected a sentencepiece model, found {found}")


def _load(model, path):
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model)
    except RuntimeError as error:
        raise InputError(
            f"tokenizer {path}: expected a sentencepiece model, found a file of "
            f"{len(model)} bytes that is none{lfs_hint(path)}; train one with "
            "`tiedbert prepare-corpus`"
        ) from error
    expected = list(SPECIAL_TOKENS)
    size = processor.get_piece_size()
    found = [processor.id_to_piece(i) for i in range(min(len(expected), size))]
    if found != expected:
        raise InputError(
            f"tokenizer {path}: expected {' '.join(expected)} as the first ids, found "
            f"{' '.join(found)}; train one with `tiedbert prepare-corpus`"
        )
    return processor
