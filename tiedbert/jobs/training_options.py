"""Options that the jobs which train classifiers share: finetune and compare."""

import argparse
from pathlib import Path

from tiedbert.command import fraction, non_negative_float, positive_int
from tiedbert.text.documents import ENCODING_ERRORS


def add_data_options(command: argparse.ArgumentParser) -> None:
    """What to read and where to write."""
    add = command.add_argument
    add("--pretrained", required=True, type=Path, help="run of `tiedbert pretrain`")
    add("--train", required=True, type=Path, help="labelled text to train on")
    add("--validation", required=True, type=Path, help="labelled text to validate on")
    add("--output_dir", required=True, type=Path, help="run directory to write")


def add_training_options(command: argparse.ArgumentParser) -> None:
    """How a classifier is trained."""
    add = command.add_argument
    add("--batch_size", type=positive_int, default=32, help="texts a step")
    add("--learning_rate", type=non_negative_float, default=3e-4,
        help="peak; linear warm-up, cosine decay")  # fmt: skip
    add("--dropout", type=fraction, default=0.1,
        help="rate in every block and before the last layer")  # fmt: skip
    add("--max_length", type=positive_int, default=128, help="tokens a text")
    add("--errors", choices=ENCODING_ERRORS, default="strict",
        help="what to do with bytes that are not UTF-8")  # fmt: skip


def add_restart_options(command: argparse.ArgumentParser) -> None:
    """What to do with a run directory that is not empty."""
    add = command.add_mutually_exclusive_group().add_argument
    add("--resume", action="store_true", help="continue the run in --output_dir")
    add("--overwrite", action="store_true", help="replace the run in --output_dir")
