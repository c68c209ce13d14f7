"""Fine-tune a pretrained model as a text classifier, plainly or adversarially.

    tiedbert finetune --pretrained runs/pretrain --train train.tsv \\
        --validation validation.tsv --output_dir runs/classifier --adversary fgm

Files are TSV or CSV with the columns `label` and `text`, UTF-8. Writes into
--output_dir: config.json, metrics.jsonl, events/ for TensorBoard, checkpoints/ for
--resume, and model/ with the classifier for bert4keras and for Hugging Face, its
tokenizer and its labels. The saved weights are those of the epoch with the best
validation accuracy.

An adversary is a class of tiedbert.adversarial in lower case; its options are the
arguments of that class (`python -m pydoc tiedbert.adversarial.PGD`), e.g.

    --adversary pgd --epsilon 0.5 --method_option steps=3 step_size=0.2 norm=linf
"""

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiedbert.command import (
    VERBOSITY,
    non_negative_float,
    parser,
    positive_int,
    quiet_import,
    seed,
)
from tiedbert.errors import InputError
from tiedbert.jobs.method_options import METHODS, method_of, pairs, settings_of
from tiedbert.jobs.runs import (
    check_run,
    keep_metrics,
    open_run,
    read_metrics,
    read_run,
)
from tiedbert.jobs.training_options import (
    add_data_options,
    add_restart_options,
    add_training_options,
)
from tiedbert.text import labelled

if TYPE_CHECKING:
    import tensorflow as tf
    from tensorflow import keras

    from tiedbert.adversarial import AdversarialTraining, Method
    from tiedbert.bert.saved_models import SavedModel

# Texts and their labels.
Data = tuple[list[str], list[str]]

# Options that have no effect on plain training.
ONLY_ADVERSARIAL = (
    *("epsilon", "method_option", "at", "one_of"),
    *("warm_up", "same_dropout", "micro_batches"),
)


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    command = parser(__doc__)
    add_data_options(command)
    add = command.add_argument
    add("--random_init", action="store_true",
        help="use the architecture of --pretrained alone")  # fmt: skip
    add_adversary_options(command)
    add("--epochs", type=positive_int, default=3, help="passes over the training file")
    add("--patience", type=positive_int,
        help="epochs without a better validation accuracy after which training ends "
        "(default: never)")  # fmt: skip
    add_training_options(command)
    add("--seed", type=seed, default=0, help="of weights, order and dropout")
    add_restart_options(command)
    return resolve(command.parse_args(argv))


def add_adversary_options(command: argparse.ArgumentParser) -> None:
    """The method of adversarial training, and how it is applied."""
    add = command.add_argument
    add("--adversary", choices=["none", *METHODS], default="none",
        help="method of adversarial training")  # fmt: skip
    add("--epsilon", type=non_negative_float,
        help="its radius per text, short for --method_option epsilon=... "
        "(default: that of the method)")  # fmt: skip
    add("--method_option", metavar="NAME=VALUE", nargs="+", action="extend",
        default=[], help="its other options; a wrong name lists them")  # fmt: skip
    add("--at", metavar="LAYER", nargs="+",
        help="layers whose outputs are perturbed, by bert4keras' names "
        "(default with --adversary: Embedding-Norm)")  # fmt: skip
    add("--one_of", action="store_true",
        help="perturb one layer of --at in each step, drawn at random")  # fmt: skip
    add("--warm_up", type=positive_int,
        help="steps in which the radius grows from 0")  # fmt: skip
    add("--same_dropout", action="store_true",
        help="the same dropout in all passes of a step, with an --adversary "
        "(default: as the method is defined)")  # fmt: skip
    add("--micro_batches", type=positive_int,
        help="gradient accumulation with an --adversary: the number of micro-batches "
        "into which a batch is split (default: 1)")  # fmt: skip


def resolve(args: argparse.Namespace) -> argparse.Namespace:
    """Fill in what depends on other options; refuse options without effect."""
    args.method = pairs(args.method_option)
    if args.epsilon is not None:
        if "epsilon" in args.method:
            raise InputError("the radius is given twice: --epsilon and --method_option")
        args.method["epsilon"] = args.epsilon
    if args.adversary == "none":
        for name in ONLY_ADVERSARIAL:
            if getattr(args, name) not in (None, [], False):
                raise InputError(f"--{name} has no effect without --adversary: add it")
    elif args.at is None:
        args.at = ["Embedding-Norm"]
    if args.one_of and len(args.at) < 2:
        raise InputError("--one_of needs two layers or more: name them with --at")
    del args.epsilon, args.method_option  # `method` holds both
    return args


def read_data(args: argparse.Namespace) -> tuple[list[str], Data, Data]:
    """Label names, and texts and labels for training and validation."""
    paths = args.train, args.validation
    train, validation = (labelled.read_labelled(path, args.errors) for path in paths)
    labelled.check_same_labels({args.train: train[1], args.validation: validation[1]})
    names = labelled.label_names(train[1])
    if len(names) < 2:
        raise InputError(f"{args.train}: expected at least two labels, found {names}")
    return names, train, validation


def batches(
    data: Data,
    names: list[str],
    tokenizer: Any,
    args: argparse.Namespace,
    shuffle_seed: int | None = None,
) -> "tf.data.Dataset":
    """A dataset of texts and labels."""
    texts, labels = data
    return labelled.classification_dataset(
        texts,
        labelled.label_ids(labels, names),
        tokenizer,
        args.batch_size,
        args.max_length,
        shuffle_seed,
    )


def build(
    args: argparse.Namespace,
    method: "Method | None",
    pretrained: "SavedModel",
    num_labels: int,
) -> "tuple[keras.Model, keras.Model | AdversarialTraining]":
    """The classifier, and the model to fit: itself, or its adversarial training."""
    from tensorflow import keras

    from tiedbert.bert import classifier
    from tiedbert.jobs.max_length import check_max_length

    keras.utils.set_random_seed(args.seed)
    bert = pretrained.encoder(
        args.random_init,
        dropout_rate=args.dropout,
        attention_dropout_rate=args.dropout,
    )
    check_max_length(bert, args.max_length)
    model = classifier(bert, num_labels, args.dropout)
    if method is None:
        return model, model
    return model, adversarial_training(
        args, model, method, pretrained.tokenizer.special_ids
    )


def adversarial_training(
    args: argparse.Namespace,
    model: "keras.Model",
    method: Any,
    special_ids: Sequence[int],
) -> "AdversarialTraining":
    """The adversarial training of `model`; `method` is one that `method_of` makes."""
    from tiedbert import adversarial

    if args.warm_up:
        if not hasattr(method, "epsilon"):
            raise InputError(
                f"--warm_up has no effect on {args.adversary}: it has no radius"
            )
        radius = adversarial.WarmUp(method.epsilon, args.warm_up)
        method = dataclasses.replace(method, epsilon=radius)
    return adversarial.AdversarialTraining(
        model,
        method,
        at=adversarial.OneOf(*args.at) if args.one_of else args.at,
        perturbation_mask=adversarial.except_tokens(special_ids),
        same_dropout=args.same_dropout or None,
        micro_batches=args.micro_batches or 1,
    )


def compile_training(
    args: argparse.Namespace,
    model: "keras.Model",
    trained: "keras.Model | AdversarialTraining",
    batches_per_epoch: int,
) -> "keras.optimizers.Optimizer":
    """Compile `trained` with AdamW; the optimizer."""
    from tensorflow import keras

    from tiedbert.jobs.optimization import adamw

    # FreeAT takes several optimizer steps for each batch.
    steps = batches_per_epoch * (trained.method.replays if trained is not model else 1)
    optimizer = adamw(args.learning_rate, args.epochs * steps)
    trained.compile(
        optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    return optimizer


def averages(
    model: "keras.Model", trained: "keras.Model | AdversarialTraining"
) -> dict[str, "keras.Model"]:
    """What a checkpoint holds beside model and optimizer: SMART averages weights."""
    if trained is model or trained.average is None:
        return {}
    return {"average": trained.average}


def fit(
    model: "keras.Model",
    trained: "keras.Model | AdversarialTraining",
    data: "tuple[tf.data.Dataset, tf.data.Dataset]",
    args: argparse.Namespace,
    folder: Path,
    save: Callable[[], None],
) -> float:
    """Train; `save` is called after each epoch that is the best so far.

    Returns:
        The best accuracy on the validation data.
    """
    from tiedbert.jobs.callbacks import BestEpoch, MetricsLog, StepTime, TrainingState

    train, validation = data
    optimizer = compile_training(args, model, trained, len(train))
    state = TrainingState(folder, model, optimizer, **averages(model, trained))
    done = state.restore()
    keep_metrics(folder, done)
    earlier = [line["val_accuracy"] for line in read_metrics(folder)]
    best = BestEpoch(save, "val_accuracy", earlier, args.patience)
    trained.fit(
        train,
        validation_data=validation,
        initial_epoch=args.epochs if best.done else done,
        epochs=args.epochs,
        shuffle=False,  # the dataset does
        callbacks=[StepTime(), MetricsLog(folder), best, state],
        verbose=VERBOSITY,
    )
    return best.best


def main(argv: Sequence[str] | None = None) -> None:
    """Read everything, then train and save."""
    args = options(argv)
    started = time.perf_counter()
    inputs = [args.pretrained, args.train, args.validation]
    method_options = vars(args).pop("method")
    check_run("finetune", vars(args), inputs)
    read_run(args.pretrained)
    names, train, validation = read_data(args)
    with quiet_import():
        import tiedbert.bert  # noqa: F401  (TensorFlow says much)
    from tiedbert.bert.saved_models import open_pretrained, save_classifier

    method = None
    if args.adversary != "none":
        method = method_of(args.adversary, method_options)
    args.method = settings_of(method) if method else None
    pretrained = open_pretrained(args.pretrained)
    model, trained = build(args, method, pretrained, len(names))
    data = (
        batches(train, names, pretrained.tokenizer, args, args.seed),
        batches(validation, names, pretrained.tokenizer, args),
    )
    folder = open_run("finetune", vars(args), inputs)

    def save():
        save_classifier(folder, model, names, pretrained)

    best = fit(model, trained, data, args, folder, save)
    seconds = time.perf_counter() - started
    print(f"{folder}: best validation accuracy {best:.4f}, {seconds:.0f} s")
