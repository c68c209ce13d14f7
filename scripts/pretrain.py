"""Pretrain a tied masked language model on a prepared corpus.

    python scripts/pretrain.py --corpus runs/corpus --output_dir runs/pretrain

Reads what scripts/prepare_corpus.py wrote. Writes into --output_dir: config.json,
metrics.jsonl (loss in nats), events/ for TensorBoard, checkpoints/ for --resume,
loss.png, and model/ with bert_config.json, a Google checkpoint, the same for Hugging
Face, and tokenizer.model. About 0.3 s a step at the default size on two CPU cores.
"""

import math
import time
from pathlib import Path

from tiedbert.command import (
    VERBOSITY,
    non_negative_float,
    parser,
    positive_int,
    quiet_import,
    run,
    seed,
    share,
)
from tiedbert.errors import InputError
from tiedbert.jobs.plots import check_matplotlib, plot_losses
from tiedbert.jobs.runs import (
    MODEL,
    check_run,
    keep_metrics,
    open_run,
    read_metrics,
    write_json,
)
from tiedbert.text.manifest import read_manifest
from tiedbert.text.tokenizer import Tokenizer


def options():
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
    add("--dropout", type=share, default=0.0, help="rate while pretraining")
    add("--mask_rate", type=share, default=0.15, help="share of the tokens to predict")
    add("--held_out", type=positive_int, default=128, help="sequences to validate on")
    add("--log_every", type=positive_int, default=50, help="steps between reports")
    add("--seed", type=seed, default=0, help="of weights, order and masks")
    used = command.add_mutually_exclusive_group().add_argument
    used("--resume", action="store_true", help="go on with the run in --output_dir")
    used("--overwrite", action="store_true", help="replace the run in --output_dir")
    return command.parse_args()


def bert_config(args, tokenizer, sequence_length) -> dict:
    """A configuration in Google's format, and which vocabulary it is for."""
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


def open_corpus(corpus):
    """The manifest and the tokenizer of a corpus in which every record can be read."""
    from tiedbert.text.records import find_damage

    if damage := find_damage(corpus):
        raise InputError(damage)
    manifest = read_manifest(corpus)
    return manifest, Tokenizer(corpus / manifest["tokenizer"]["file"])


def check_same_vocabulary(args, tokenizer):
    """A corpus of the same name may have been prepared anew since the run began."""
    kept = args.output_dir / MODEL / "tokenizer.model"
    if not args.resume or not kept.is_file():
        return
    if Tokenizer(kept).fingerprint != tokenizer.fingerprint:
        raise InputError(
            f"cannot resume {args.output_dir}: {args.corpus} has another vocabulary "
            "than when the run began; use --overwrite to begin again"
        )


def train(args, folder, tokenizer):
    """Fit the model; the model."""
    from tensorflow import keras

    from tiedbert.bert import build_bert, masked_lm
    from tiedbert.jobs.callbacks import MetricsLog, StopAfter, TrainingState
    from tiedbert.jobs.optimization import adamw
    from tiedbert.text import masked_batches

    keras.utils.set_random_seed(args.seed)
    bert = build_bert(
        folder / MODEL / "bert_config.json",
        dropout_rate=args.dropout,
        attention_dropout_rate=args.dropout,
    )
    predictions = masked_batches.predictions_per_text(args.corpus, args.mask_rate)
    model = masked_lm(bert, predictions=predictions, early_gather=True, with_loss=True)
    optimizer = adamw(args.learning_rate, args.steps)
    epoch_steps = min(args.log_every, args.steps)
    model.compile(optimizer)
    state = TrainingState(folder, model, optimizer)
    done = state.restore()
    keep_metrics(folder, done)
    model.fit(
        masked_batches.masked_batches(
            args.corpus,
            tokenizer,
            args.batch_size,
            rate=args.mask_rate,
            seed=args.seed,
            held_out=args.held_out,
            start=done * epoch_steps,
        ),
        validation_data=masked_batches.held_out_batches(
            args.corpus, tokenizer, args.batch_size, args.held_out, rate=args.mask_rate
        ),
        initial_epoch=done,
        epochs=math.ceil(args.steps / epoch_steps),
        steps_per_epoch=epoch_steps,
        callbacks=[StopAfter(args.steps), MetricsLog(folder), state],
        verbose=VERBOSITY,
    )
    return model


def train_or_tell(args, folder, tokenizer):
    """Train; if a record of the corpus cannot be read, say which."""
    import tensorflow as tf

    from tiedbert.text.records import find_damage

    try:
        return train(args, folder, tokenizer)
    except (tf.errors.DataLossError, tf.errors.FailedPreconditionError):
        if damage := find_damage(args.corpus):
            raise InputError(damage) from None
        raise


def main():
    """Prepare the run directory, train, save."""
    args = options()
    started = time.perf_counter()
    check_matplotlib()
    check_run("pretrain", vars(args), [args.corpus])
    with quiet_import():
        import tiedbert.bert  # noqa: F401  (first: it chooses legacy Keras)
    manifest, tokenizer = open_corpus(args.corpus)
    check_same_vocabulary(args, tokenizer)
    length = manifest["config"]["sequence_length"]
    config = bert_config(args, tokenizer, length)
    if manifest["sequences"] < args.held_out + args.batch_size:
        raise InputError(
            f"{args.corpus} has {manifest['sequences']} sequences, fewer than "
            f"--held_out {args.held_out} + --batch_size {args.batch_size}"
        )
    folder = open_run("pretrain", vars(args), [args.corpus])
    (folder / MODEL).mkdir(exist_ok=True)
    write_json(folder / MODEL / "bert_config.json", config)
    tokenizer.save(folder / MODEL / "tokenizer.model")
    model = train_or_tell(args, folder, tokenizer)

    from tiedbert.bert import save_google_checkpoint, save_safetensors

    save_google_checkpoint(model, folder / MODEL / "bert_model.ckpt")
    save_safetensors(model, folder / MODEL)
    plot_losses(read_metrics(folder), folder / "loss.png")
    print(f"{folder}: {args.steps} steps in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    run(main)
