"""Clean and robust accuracy of fine-tuned classifiers, and a picture of them.

    tiedbert evaluate runs/classifier --data test.tsv \\
        --output_dir runs/evaluation --attack pgd

Perturbs the activations at a cut point, within a radius per text, and counts the
answers that stay correct. Several runs are drawn into one picture. Writes into
--output_dir: config.json, correct.npy (which answers are correct), results.json and
robustness.png.
"""

import argparse
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tiedbert.command import (
    non_negative_float,
    parser,
    positive_int,
    quiet_import,
    seed,
)
from tiedbert.errors import InputError
from tiedbert.jobs.method_options import method_of
from tiedbert.jobs.plots import plot_curves
from tiedbert.jobs.runs import check_run, open_run, read_run
from tiedbert.text import labelled
from tiedbert.text.documents import ENCODING_ERRORS
from tiedbert.text.files import write_json

EPSILONS = [0.0, 0.5, 1.0, 2.0]
NORMS = {
    "l2": "L2 norm per text",
    "linf": "largest change of a number",
    "l2_per_token": "L2 norm per token",
}


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    command = parser(__doc__)
    add = command.add_argument
    add("runs", nargs="+", type=Path, help="runs of `tiedbert finetune`")
    add("--data", required=True, type=Path, help="labelled text: TSV or CSV")
    add("--output_dir", required=True, type=Path, help="folder to write")
    add("--attack", choices=["fgm", "pgd", "random_noise"], default="fgm",
        help="how the perturbation is found; pgd starts at random")  # fmt: skip
    add("--attack_steps", type=positive_int, help="of pgd (default: 10)")
    add("--restarts", type=positive_int,
        help="attacks on each text; one success makes the answer wrong "
        "(default: 3; fgm, which is not random: 1)")  # fmt: skip
    add("--epsilons", nargs="+", type=non_negative_float, default=EPSILONS,
        help="radii per text; 0 is clean")  # fmt: skip
    add("--norm", choices=list(NORMS), default="l2", help="norm of the radii")
    add("--at", metavar="LAYER", nargs="+", default=["Embedding-Norm"],
        help="layers whose outputs are perturbed")  # fmt: skip
    add("--batch_size", type=positive_int, default=64, help="texts a step")
    add("--max_length", type=positive_int, default=128, help="tokens a text")
    add("--errors", choices=ENCODING_ERRORS, default="strict",
        help="what to do with bytes that are not UTF-8")  # fmt: skip
    add("--seed", type=seed, default=0, help="of random starts and noise")
    add("--overwrite", action="store_true", help="replace what is in --output_dir")
    return resolve(command.parse_args(argv))


def resolve(args: argparse.Namespace) -> argparse.Namespace:
    """Fill in what depends on the attack; refuse options without effect on it."""
    if args.attack == "pgd":
        args.attack_steps = args.attack_steps or 10
    elif args.attack_steps:
        raise InputError("--attack_steps has no effect without --attack pgd")
    if args.attack == "fgm" and args.restarts not in (None, 1):
        raise InputError("--restarts has no effect on fgm: it is not random")
    args.restarts = args.restarts or (1 if args.attack == "fgm" else 3)
    return args


def attack_of(args: argparse.Namespace) -> Any:
    """The attack, without its radius."""
    values = {"norm": args.norm}
    if args.attack == "pgd":
        values |= {"steps": args.attack_steps, "random_start": True}
    return method_of(args.attack, values)


def correct(
    run_folder: Path, texts: list[str], labels: list[str], args: argparse.Namespace
) -> np.ndarray:
    """Whether a run's answer to each text is correct: bool ``[epsilons, texts]``."""
    from tensorflow import keras

    from tiedbert import robustness
    from tiedbert.adversarial import except_tokens
    from tiedbert.bert import load_classifier
    from tiedbert.jobs.max_length import check_max_length

    model, names, tokenizer = load_classifier(run_folder)
    check_max_length(model, args.max_length)
    labelled.check_same_labels({run_folder: names, args.data: labels})
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    # Texts of similar length share a batch, which keeps padding short.
    order = np.argsort([len(text) for text in texts], kind="stable")
    dataset = labelled.classification_dataset(
        [texts[i] for i in order],
        np.asarray(labelled.label_ids(labels, names))[order],
        tokenizer,
        args.batch_size,
        args.max_length,
    )
    keras.utils.set_random_seed(args.seed)
    is_correct = np.empty((len(args.epsilons), len(texts)), bool)
    is_correct[:, order] = robustness.correct_under_attack(
        model,
        dataset,
        args.at,
        attack_of(args),
        args.epsilons,
        except_tokens(tokenizer.special_ids),
        args.restarts,
    )
    return is_correct


def write_results(
    args: argparse.Namespace, folder: Path, is_correct: list[np.ndarray]
) -> None:
    """Write correct.npy, robustness.png and, last, results.json."""
    np.save(folder / "correct.npy", np.stack(is_correct))
    curves = {
        str(run): curve_of(args.epsilons, answers)
        for run, answers in zip(args.runs, is_correct, strict=True)
    }
    plot_curves(
        dict(zip(titles(curves), curves.values(), strict=True)),
        folder / "robustness.png",
        NORMS[args.norm],
    )
    write_json(folder / "results.json", curves)


def curve_of(
    epsilons: Iterable[float], is_correct: np.ndarray
) -> list[tuple[float, float]]:
    """Pairs of a radius and the accuracy under it."""
    return list(zip(epsilons, is_correct.mean(axis=1).tolist(), strict=True))


def titles(run_folders: Iterable[str]) -> list[str]:
    """The last part of each path, or the whole paths if two of those are equal."""
    last = [Path(folder).name for folder in run_folders]
    return last if len(set(last)) == len(last) else list(run_folders)


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate every run, then write."""
    args = options(argv)
    started = time.perf_counter()
    inputs = [*args.runs, args.data]
    check_run("evaluate", vars(args), inputs)
    for run_folder in args.runs:
        read_run(run_folder, "finetune")
    texts, labels = labelled.read_labelled(args.data, args.errors)
    with quiet_import():
        import tiedbert.bert  # noqa: F401  (TensorFlow says much)
    is_correct = []
    for run_folder in args.runs:
        is_correct.append(correct(run_folder, texts, labels, args))
        points = curve_of(args.epsilons, is_correct[-1])
        line = ", ".join(f"epsilon {e:g} accuracy {a:.4f}" for e, a in points)
        print(f"{run_folder}: {line}", flush=True)
    folder = open_run("evaluate", vars(args), inputs)
    write_results(args, folder, is_correct)
    print(f"{folder}: {len(texts)} texts, {time.perf_counter() - started:.0f} s")
