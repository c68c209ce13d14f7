"""Pretrain a tied masked language model on a prepared corpus.

    tiedbert pretrain --corpus runs/corpus --output_dir runs/pretrain

Reads what `tiedbert prepare-corpus` wrote. Writes into --output_dir: config.json,
metrics.jsonl (loss in nats), events/ for TensorBoard, checkpoints/ for --resume,
loss.png, and model/ with bert_config.json, a Google checkpoint, the same for Hugging
Face, and tokenizer.model.
"""

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiedbert.command import (
    VERBOSITY,
    fraction,
    non_negative_float,
    parser,
    positive_int,
    quiet_import,
    seed,
)
from tiedbert.errors import InputError
from tiedbert.jobs.plots import plot_losses
from tiedbert.jobs.runs import check_run, keep_metrics, open_run, read_metrics
from tiedbert.text.manifest import read_manifest
from tiedbert.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import tensorflow as tf
    from tensorflow import keras


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    command = parser(__doc__)
    add = command.add_argument
    add("--corpus", required=True, type=Path, help="folder of a prepared corpus")
    add("--output_dir", required=True, type=Path, help="run directory to write")
    add("--steps", type=positive_int, default=1000, help="optimizer steps")
    add("--batch_size", type=positive_int, default=32, help="sequences a step")
    add(
        "--learning_rate",
        type=non_negative_float,
        default=1e-3,
        help="peak; linear warm-up, cosine decay",
    )
    add("--layers", type=positive_int, default=4, help="Transformer blocks")
    add("--hidden_size", type=positive_int, default=256, help="width of the model")
    add("--heads", type=positive_int, default=4, help="attention heads")
    add("--initializer_range", type=non_negative_float, default=0.02,
        help="standard deviation of the first weights")  # fmt: skip
    add("--dropout", type=fraction, default=0.0, help="rate while pretraining")
    add("--mask_rate", type=fraction, default=0.15,
        help="fraction of the tokens to predict")  # fmt: skip
    add("--held_out", type=positive_int, default=128, help="sequences to validate on")
    add("--log_every", type=positive_int, default=50, help="steps between reports")
    add("--seed", type=seed, default=0, help="of weights, order and masks")
    used = command.add_mutually_exclusive_group().add_argument
    used("--resume", action="store_true", help="continue the run in --output_dir")
    used("--overwrite", action="store_true", help="replace the run in --output_dir")
    return command.parse_args(argv)


def bert_config(
    args: argparse.Namespace, tokenizer: Tokenizer, sequence_length: int
) -> dict[str, Any]:
    """A configuration in Google's format, with the fingerprint of the tokenizer."""
    if args.hidden_size % args.heads:
        raise InputError(
            f"--hidden_size {args.hidden_size} is not a multiple of "
            f"--heads {args.heads}"
        )
    return {
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": args.hidden_size,
        "num_hidden_layers": args.layers,
        "num_attention_heads": args.heads,
        "intermediate_size": 4 * args.hidden_size,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": max(128, sequence_length),
        "type_vocab_size": 2,
        "initializer_range": args.initializer_range,
        "tokenizer_sha256": tokenizer.fingerprint,
    }


def open_corpus(corpus: Path) -> tuple[dict[str, Any], Tokenizer]:
    """The manifest and the tokenizer of a corpus; InputError for a damaged record."""
    from tiedbert.text.records import find_damage

    if damage := find_damage(corpus):
        raise InputError(damage)
    manifest = read_manifest(corpus)
    return manifest, Tokenizer(corpus / manifest["tokenizer"]["file"])


def check_same_vocabulary(args: argparse.Namespace, tokenizer: Tokenizer) -> None:
    """Refuse --resume when the corpus was prepared anew with another vocabulary."""
    from tiedbert.bert.saved_models import saved_tokenizer

    first = saved_tokenizer(args.output_dir) if args.resume else None
    if first is not None and first.fingerprint != tokenizer.fingerprint:
        raise InputError(
            f"cannot resume {args.output_dir}: {args.corpus} has another vocabulary "
            "than when the run began; use --overwrite to begin again"
        )


def build(args: argparse.Namespace, config_path: Path) -> "keras.Model":
    """The model with its loss, not compiled."""
    from tiedbert.bert import build_bert, masked_lm
    from tiedbert.text.pretraining import predictions_per_text

    bert = build_bert(
        config_path,
        dropout_rate=args.dropout,
        attention_dropout_rate=args.dropout,
    )
    predictions = predictions_per_text(args.corpus, args.mask_rate)
    return masked_lm(bert, predictions=predictions, early_gather=True, with_loss=True)


def batches(
    args: argparse.Namespace, tokenizer: Tokenizer, first_step: int
) -> "tuple[tf.data.Dataset, tf.data.Dataset]":
    """The batches to train on, from `first_step` on, and those to validate on."""
    from tiedbert.text import pretraining

    training = pretraining.masked_batches(
        args.corpus,
        tokenizer,
        args.batch_size,
        rate=args.mask_rate,
        seed=args.seed,
        held_out=args.held_out,
        start=first_step,
    )
    validation = pretraining.held_out_batches(
        args.corpus, tokenizer, args.batch_size, args.held_out, rate=args.mask_rate
    )
    return training, validation


def train(
    args: argparse.Namespace, folder: Path, config_path: Path, tokenizer: Tokenizer
) -> "keras.Model":
    """Build the model, fit it and return it."""
    from tensorflow import keras

    from tiedbert.jobs.callbacks import MetricsLog, StopAfter, TrainingState
    from tiedbert.jobs.optimization import adamw

    keras.utils.set_random_seed(args.seed)
    model = build(args, config_path)
    optimizer = adamw(args.learning_rate, args.steps)
    model.compile(optimizer)
    state = TrainingState(folder, model, optimizer)
    done = state.restore()
    keep_metrics(folder, done)
    epoch_steps = min(args.log_every, args.steps)
    training, validation = batches(args, tokenizer, done * epoch_steps)
    model.fit(
        training,
        validation_data=validation,
        initial_epoch=done,
        epochs=math.ceil(args.steps / epoch_steps),
        steps_per_epoch=epoch_steps,
        shuffle=False,  # the dataset does
        callbacks=[StopAfter(args.steps), MetricsLog(folder), state],
        verbose=VERBOSITY,
    )
    return model


def check_sequences(args: argparse.Namespace, manifest: Mapping[str, Any]) -> None:
    """Refuse a corpus without enough sequences to validate on and for one batch."""
    if manifest["sequences"] < args.held_out + args.batch_size:
        raise InputError(
            f"{args.corpus} has {manifest['sequences']} sequences, fewer than "
            f"--held_out {args.held_out} + --batch_size {args.batch_size}"
        )


def train_and_name_damage(
    args: argparse.Namespace, folder: Path, config_path: Path, tokenizer: Tokenizer
) -> "keras.Model":
    """Train; InputError with the record if one of the corpus cannot be read."""
    import tensorflow as tf

    from tiedbert.text.records import find_damage

    try:
        return train(args, folder, config_path, tokenizer)
    except (tf.errors.DataLossError, tf.errors.FailedPreconditionError):
        if damage := find_damage(args.corpus):
            raise InputError(damage) from None
        raise


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the run directory, train, save."""
    args = options(argv)
    started = time.perf_counter()
    check_run("pretrain", vars(args), [args.corpus])
    with quiet_import():
        import tiedbert.bert  # noqa: F401  (TensorFlow says much)
    manifest, tokenizer = open_corpus(args.corpus)
    check_same_vocabulary(args, tokenizer)
    length = manifest["config"]["sequence_length"]
    config = bert_config(args, tokenizer, length)
    check_sequences(args, manifest)
    folder = open_run("pretrain", vars(args), [args.corpus])

    from tiedbert.bert.saved_models import save_description, save_weights

    config_path = save_description(folder, config, tokenizer)
    model = train_and_name_damage(args, folder, config_path, tokenizer)
    save_weights(folder, model)
    plot_losses(read_metrics(folder), folder / "loss.png")
    print(f"{folder}: {args.steps} steps in {time.perf_counter() - started:.0f} s")
