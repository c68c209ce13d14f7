"""Compare methods of adversarial training at equal compute, over several seeds.

    tiedbert compare --pretrained runs/pretrain --train train.tsv \\
        --validation validation.tsv --test test.tsv --output_dir runs/comparison

Each method is trained by `tiedbert finetune`, once a seed, and attacked by `tiedbert
evaluate` with projected gradient descent from random starts, which none of the methods
was trained on. A method is `name` or `name:option=value,option=value`; `none` is plain
training, and names and options are those of `tiedbert finetune`.

Equal compute: --budget is in epochs of plain training. A method whose step costs as
much as c plain ones (`passes()` of the method counts them) trains for budget / c
epochs, rounded down, at least one, and its learning rate falls over its own number of
steps; plain training has all the epochs. The epoch with the best validation accuracy of
each training is saved.

Differences from plain training and from noise are tested text by text, with the exact
paired permutation test on correct answers, averaged over seeds (McNemar's test for a
single seed). The test compares these trained models on other texts; the standard
deviations show how much the seeds matter. The p-values of a report are Holm-adjusted
together.

Writes into --output_dir: config.json, plan.json, runs/ with a folder a method and seed,
and after each of these results.json, report.md and robustness.png of what is finished.
--resume continues a comparison that was killed, and may name further methods and seeds.
"""

import argparse
import ctypes
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tiedbert.command import (
    non_negative_float,
    parser,
    positive_int,
    quiet_import,
    seed,
)
from tiedbert.errors import InputError
from tiedbert.jobs.compare_plan import Plan, plan_of
from tiedbert.jobs.compare_report import write_report
from tiedbert.jobs.compare_results import result_of
from tiedbert.jobs.method_options import METHODS
from tiedbert.jobs.runs import check_run, open_run, read_run
from tiedbert.jobs.training_options import (
    add_data_options,
    add_restart_options,
    add_training_options,
)
from tiedbert.text import labelled
from tiedbert.text.files import write_json

EPSILONS = [0.5, 1.0, 2.0]
DONE = "evaluation/results.json"  # what an evaluation writes last
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    command = parser(__doc__)
    add_data_options(command)
    add = command.add_argument
    add("--test", required=True, type=Path, help="labelled text to compare on")
    add("--methods", metavar="METHOD", nargs="+", default=["none", *METHODS],
        help="what to compare")  # fmt: skip
    add("--epsilon", type=non_negative_float, default=0.5,
        help="radius of the methods in the L2 norm that name none")  # fmt: skip
    add("--seeds", type=seed, nargs="+", default=[0, 1, 2], help="of the trainings")
    add("--budget", type=positive_int, default=6, help="compute, in plain epochs")
    add("--epsilons", nargs="+", type=non_negative_float, default=EPSILONS,
        help="L2 radii of the attack; 0, clean, is always added")  # fmt: skip
    add("--attack_steps", type=positive_int, default=10, help="of the attack")
    add("--restarts", type=positive_int, default=3, help="attacks on each text")
    add("--at", metavar="LAYER", nargs="+", default=["Embedding-Norm"],
        help="layers perturbed in training and by the attack")  # fmt: skip
    add_training_options(command)
    add_restart_options(command)
    args = command.parse_args(argv)
    for name in ("methods", "seeds"):
        if len(set(getattr(args, name))) < len(getattr(args, name)):
            raise InputError(f"--{name} names one twice")
    args.epsilons = sorted({0.0, *args.epsilons})
    return args


def folder_of(args: argparse.Namespace, title: str, number: int) -> Path:
    """Where the run of a method and a seed is."""
    return args.output_dir / "runs" / title.replace("/", "-") / f"seed-{number}"


def is_done(folder: Path) -> bool:
    """Whether a run is finished."""
    return (folder / DONE).exists()


def work(
    args: argparse.Namespace, folder: Path, number: int, method: Mapping[str, Any]
) -> None:
    """Train with a seed and attack; a training that was killed is resumed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("training", "evaluation"):
        # A process that was killed as it began left a folder that is no run.
        if not (folder / name / "config.json").exists():
            shutil.rmtree(folder / name, ignore_errors=True)
    train(args, folder, number, method)
    attack(args, folder)


def train(
    args: argparse.Namespace, folder: Path, number: int, method: Mapping[str, Any]
) -> None:
    """Run `tiedbert finetune`."""
    values = [f"{name}={as_text(v)}" for name, v in method["options"].items()]
    adversary = ["--at", *args.at, "--method_option", *values] if values else []
    call(
        *("finetune", "--output_dir", folder / "training", "--resume"),
        *("--pretrained", args.pretrained, "--train", args.train),
        *("--validation", args.validation, "--seed", number),
        *("--epochs", method["epochs"], "--batch_size", args.batch_size),
        *("--learning_rate", args.learning_rate, "--dropout", args.dropout),
        *("--max_length", args.max_length, "--errors", args.errors),
        *("--adversary", method["name"], *adversary),
        log=folder / "training.log",
    )


def attack(args: argparse.Namespace, folder: Path) -> None:
    """Run `tiedbert evaluate`."""
    call(
        *("evaluate", folder / "training", "--data", args.test),
        *("--output_dir", folder / "evaluation", "--overwrite"),
        *("--attack", "pgd", "--attack_steps", args.attack_steps),
        *("--restarts", args.restarts, "--at", *args.at),
        *("--epsilons", *args.epsilons),
        *("--max_length", args.max_length, "--errors", args.errors),
        log=folder / "evaluation.log",
    )


def as_text(value: Any) -> str:
    """A value as `tiedbert finetune` reads it."""
    return (
        value if isinstance(value, str) else json.dumps(value).replace("null", "none")
    )


def end_with_parent() -> None:
    """Let this process be killed when the one that started it ends (on Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def call(job: str, *arguments: Any, log: Path) -> None:
    """Run another job in a process of its own; if it fails, end with its status."""
    command = [sys.executable, "-m", "tiedbert", job, *map(str, arguments)]
    with open(log, "a", encoding="utf-8") as file:
        print("$", " ".join(command), file=file, flush=True)
        # A comparison that is killed must not leave a training behind.
        status = subprocess.run(
            command, stdout=file, preexec_fn=end_with_parent
        ).returncode
    if status:
        sys.exit(status)


def report_finished(args: argparse.Namespace, plan: Plan) -> None:
    """Write the report of the methods and seeds that are finished."""
    results = {}
    for title, planned in plan.items():
        folders = {seed: folder_of(args, title, seed) for seed in args.seeds}
        if done := {seed: f for seed, f in folders.items() if is_done(f)}:
            results[title] = result_of(planned, done)
    write_report(args, results, len(plan) * len(args.seeds))


def check_data(args: argparse.Namespace) -> list[str]:
    """The label names; InputError if a file is not labelled text of these labels."""
    read_run(args.pretrained)
    paths = args.train, args.validation, args.test
    labels = {path: labelled.read_labelled(path, args.errors)[1] for path in paths}
    labelled.check_same_labels(labels)
    return labelled.label_names(labels[args.train])


def main(argv: Sequence[str] | None = None) -> None:
    """Check all, then work through seeds and methods."""
    args = options(argv)
    inputs = [args.pretrained, args.train, args.validation, args.test]
    # A comparison that is resumed may have more methods and seeds.
    fixed = {k: v for k, v in vars(args).items() if k not in ("methods", "seeds")}
    check_run("compare", fixed, inputs)
    names = check_data(args)
    with quiet_import():
        import tiedbert.bert  # noqa: F401  (TensorFlow says much)
    plan = plan_of(args, names)
    open_run("compare", fixed, inputs)
    write_json(args.output_dir / "plan.json", {"seeds": args.seeds, "methods": plan})
    tasks = [(title, number) for number in args.seeds for title in plan]
    for i, (title, number) in enumerate(tasks, 1):
        line = train_and_attack(args, plan, title, number)
        print(f"{i}/{len(tasks)} {title}, seed {number}: {line}", flush=True)
    report_finished(args, plan)
    print(f"\n{(args.output_dir / 'report.md').read_text(encoding='utf-8')}")
    print(args.output_dir / "report.md")


def train_and_attack(
    args: argparse.Namespace, plan: Plan, title: str, number: int
) -> str:
    """Finish the run of a method and a seed, if it is not; its accuracies, a line."""
    started = time.perf_counter()
    folder = folder_of(args, title, number)
    if not is_done(folder):
        work(args, folder, number, plan[title])
        report_finished(args, plan)
    # The checkpoints are larger than the model, and only a resume needs them.
    shutil.rmtree(folder / "training" / "checkpoints", ignore_errors=True)
    (curve,) = json.loads((folder / DONE).read_text(encoding="utf-8")).values()
    points = ", ".join(f"epsilon {e:g} accuracy {a:.4f}" for e, a in curve)
    return f"{points}, {time.perf_counter() - started:.0f} s"
