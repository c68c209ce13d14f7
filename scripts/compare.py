"""Compare methods of adversarial training at equal compute, over several seeds.

    python scripts/compare.py --pretrained runs/pretrain --train train.tsv \\
        --validation validation.tsv --test test.tsv --output_dir runs/comparison

Each method is trained by scripts/finetune.py, once a seed, and attacked by
scripts/evaluate.py with projected gradient descent from random starts, which none of
them was trained on. A method is `name` or `name:option=value,option=value`; `none` is
plain training, and names and options are those of scripts/finetune.py.

Equal compute: --budget is in epochs of plain training. A method whose step costs as
much as c plain ones (`passes()` of the method counts them) trains for budget / c
epochs, rounded down, at least one, and its learning rate falls over its own number of
steps; plain training has all the epochs. Of each training the epoch with the best
validation accuracy is kept.

Differences from plain training and from noise are tested text by text, with the exact
paired permutation test on right answers, averaged over seeds (of one seed it is
McNemar's). It speaks of these trained models on other texts; how much seeds matter, the
standard deviations tell. The p-values of a report are corrected together, after Holm.

Writes into --output_dir: config.json, plan.json, runs/ with a folder a method and seed,
and after each of these results.json, report.md and robustness.png of what is finished.
--resume goes on where it was killed, and may name further methods and seeds. On two CPU
cores at the demo's size, with 6 epochs of 12,000 reviews, about 3 minutes of training
and 3 of attacks for each method and seed.
"""

import ctypes
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tiedbert.command import (
    non_negative_float,
    parser,
    positive_int,
    quiet_import,
    run,
    seed,
    share,
)
from tiedbert.errors import InputError
from tiedbert.jobs import comparison
from tiedbert.jobs.method_options import METHODS, method_of, pairs, settings_of
from tiedbert.jobs.plots import check_matplotlib, plot_comparison
from tiedbert.jobs.runs import check_run, open_run, read_run, write_json
from tiedbert.text import labelled
from tiedbert.text.documents import ENCODING_ERRORS

SCRIPTS = Path(__file__).parent
EPSILONS = [0.5, 1.0, 2.0]
DONE = "evaluation/results.json"  # what an evaluation writes last
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def options():
    """The command line."""
    command = parser(__doc__)
    add = command.add_argument
    add("--pretrained", required=True, type=Path, help="run of scripts/pretrain.py")
    add("--train", required=True, type=Path, help="labelled text to train on")
    add("--validation", required=True, type=Path, help="labelled text to choose by")
    add("--test", required=True, type=Path, help="labelled text to compare on")
    add("--output_dir", required=True, type=Path, help="folder to write")
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
    add("--batch_size", type=positive_int, default=32, help="texts a step")
    add("--learning_rate", type=non_negative_float, default=3e-4,
        help="peak; linear warm-up, cosine decay")  # fmt: skip
    add("--dropout", type=share, default=0.1,
        help="share dropped, in every block and before the last layer")  # fmt: skip
    add("--max_length", type=positive_int, default=128, help="tokens a text")
    add("--errors", choices=ENCODING_ERRORS, default="strict",
        help="what to do with bytes that are not UTF-8")  # fmt: skip
    used = command.add_mutually_exclusive_group().add_argument
    used("--resume", action="store_true", help="go on with the run in --output_dir")
    used("--overwrite", action="store_true", help="replace the run in --output_dir")
    args = command.parse_args()
    for name in ("methods", "seeds"):
        if len(set(getattr(args, name))) < len(getattr(args, name)):
            raise InputError(f"--{name} names one twice")
    args.epsilons = sorted({0.0, *args.epsilons})
    return args


# What is to be done.


def plan_of(args, names) -> dict:
    """Method as written -> its options, its cost and its epochs; checks them all."""
    from tiedbert.adversarial import AdversarialTraining, Passes
    from tiedbert.bert import build_bert, classifier
    from tiedbert.jobs.saved_models import check_length, open_pretrained

    bert = build_bert(open_pretrained(args.pretrained).config)
    check_length(bert, args.max_length)
    model = classifier(bert, len(names))
    blocks = sum(layer.name.endswith("-FeedForward-Norm") for layer in bert.layers)
    plan = {}
    for title in args.methods:
        name, method = read_method(title, args.epsilon)
        work = Passes(1)
        if method is not None:
            AdversarialTraining(model, method, args.at)
            work = method.passes(first_block=1 / blocks)
        plan[title] = {
            "name": name,
            "options": {} if method is None else settings_of(method),
            "passes": round(work.count, 3),
            "cost": round(work.cost, 3),
            "epochs": max(1, math.floor(args.budget / work.cost + 1e-9)),
        }
    return plan


def read_method(title, epsilon) -> tuple:
    """``name:option=value,...``: its name, and the method or None."""
    name, colon, written = title.partition(":")
    if colon and not written:
        raise InputError(f"{title!r} names no option after the colon")
    values = pairs(written.split(",") if written else [])
    if name == "none":
        if values:
            raise InputError("none is plain training and has no options")
        return name, None
    method = method_of(name, values)
    if "epsilon" not in values and getattr(method, "norm", None) == "l2":
        method = method_of(name, {**values, "epsilon": epsilon})
    return name, method


# The work, a method and a seed at a time.


def folder_of(args, title, number) -> Path:
    """Where the run of a method and a seed is."""
    return args.output_dir / "runs" / title.replace("/", "-") / f"seed-{number}"


def is_done(folder) -> bool:
    """Whether a run is finished."""
    return (folder / DONE).exists()


def work(args, folder, number, method):
    """Train with a seed, and attack; what a killed process did of it is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("training", "evaluation"):
        if not (folder / name / "config.json").exists():  # killed as it began
            shutil.rmtree(folder / name, ignore_errors=True)
    written = [f"{name}={as_text(v)}" for name, v in method["options"].items()]
    adversary = ["--at", *args.at, "--method_option", *written]
    same = ["--max_length", args.max_length, "--errors", args.errors]
    call(
        *("finetune", "--output_dir", folder / "training", "--resume"),
        *("--pretrained", args.pretrained, "--train", args.train),
        *("--validation", args.validation, "--seed", number),
        *("--epochs", method["epochs"], "--batch_size", args.batch_size),
        *("--learning_rate", args.learning_rate, "--dropout", args.dropout, *same),
        *("--adversary", method["name"], *(adversary if written else [])),
        log=folder / "training.log",
    )
    call(
        *("evaluate", folder / "training", "--data", args.test, "--overwrite", *same),
        *("--attack", "pgd", "--attack_steps", args.attack_steps),
        *("--restarts", args.restarts, "--at", *args.at),
        *("--epsilons", *args.epsilons, "--output_dir", folder / "evaluation"),
        log=folder / "evaluation.log",
    )


def as_text(value) -> str:
    """A value as scripts/finetune.py reads it."""
    return (
        value if isinstance(value, str) else json.dumps(value).replace("null", "none")
    )


def end_with_parent():
    """Let this process be killed when the one that started it ends (on Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def call(script, *arguments, log):
    """Run another script of this folder; its failure is ours."""
    command = [sys.executable, SCRIPTS / f"{script}.py", *map(str, arguments)]
    with open(log, "a", encoding="utf-8") as file:
        print("$", " ".join(map(str, command)), file=file, flush=True)
        # A killed comparison leaves no training behind that nobody waits for.
        status = subprocess.run(
            command, stdout=file, preexec_fn=end_with_parent
        ).returncode
    if status:
        sys.exit(status)


# What came of it.


def write_report(args, plan):
    """results.json, report.md and the picture, of what is finished."""
    results = {}
    for title, planned in plan.items():
        folders = {seed: folder_of(args, title, seed) for seed in args.seeds}
        if done := {seed: f for seed, f in folders.items() if is_done(f)}:
            results[title] = comparison.result_of(planned, done)
    differences = comparison.compare(results, args.epsilons)
    for result in results.values():
        del result["correct"]  # it stays in the runs
    whole = {"epsilons": args.epsilons, "methods": results, "differences": differences}
    write_json(args.output_dir / "results.json", whole)
    curves = {
        title: list(zip(args.epsilons, r["accuracy"], r["accuracy_sd"], strict=True))
        for title, r in results.items()
    }
    plot_comparison(curves, args.output_dir / "robustness.png")
    text = report(args, plan, results, differences)
    (args.output_dir / "report.md").write_text(text, encoding="utf-8")


def report(args, plan, results, differences) -> str:
    """The report as Markdown."""
    done = sum(len(r["seeds"]) for r in results.values())
    planned = len(plan) * len(args.seeds)
    bases = dict.fromkeys(row["against"] for row in differences)
    tables = [comparison.difference_table(differences, base) for base in bases]
    joined = "".join(f"{table}\n\n" for table in tables)
    return f"""# Methods of adversarial training at equal compute

{done} of {planned} trainings. Accuracy on {args.test.name}, mean and
standard deviation over the seeds: clean, and under {args.attack_steps} steps of
projected gradient descent, {args.restarts} times from a random start, on
{", ".join(args.at)}, with L2 radius epsilon per text.

{comparison.accuracy_table(results, args.epsilons)}

![accuracy under attack](robustness.png)

## Differences

In points of accuracy. p is of the exact paired permutation test on the answers to each
text, averaged over the seeds; {len(differences)} such are corrected together, after
Holm; * below {comparison.LEVEL}. They speak of these trained models on other texts; of
other seeds the standard deviations above do.

{joined}## Compute

A pass is one through the model behind the cut point, forward and backward; the cost of
a step is in plain training steps, as counted (that of the gradient penalty is an
estimate). All have the compute of {args.budget} plain epochs, rounded down to whole
ones but at least one, of which the best on {args.validation.name} is kept. ms is the
median time of a step on this machine, with all else it did.

{comparison.compute_table(results)}
"""


def check_data(args) -> list:
    """Label names; what is wrong in the files."""
    read_run(args.pretrained)
    paths = args.train, args.validation, args.test
    labels = {path: labelled.read_labelled(path, args.errors)[1] for path in paths}
    labelled.check_same_labels(labels)
    return labelled.label_names(labels[args.train])


def main():
    """Check all, then work through seeds and methods."""
    args = options()
    check_matplotlib()
    inputs = [args.pretrained, args.train, args.validation, args.test]
    # A comparison that goes on may have more methods and seeds.
    fixed = {k: v for k, v in vars(args).items() if k not in ("methods", "seeds")}
    check_run("compare", fixed, inputs)
    names = check_data(args)
    with quiet_import():
        import tiedbert.bert  # noqa: F401  (first: it chooses legacy Keras)
    plan = plan_of(args, names)
    open_run("compare", fixed, inputs)
    write_json(args.output_dir / "plan.json", {"seeds": args.seeds, "methods": plan})
    todo = [(title, number) for number in args.seeds for title in plan]
    for i, (title, number) in enumerate(todo, 1):
        started = time.perf_counter()
        folder = folder_of(args, title, number)
        if not is_done(folder):
            work(args, folder, number, plan[title])
            write_report(args, plan)
        # Larger than the model, and of no more use.
        shutil.rmtree(folder / "training" / "checkpoints", ignore_errors=True)
        (curve,) = json.loads((folder / DONE).read_text(encoding="utf-8")).values()
        points = ", ".join(f"epsilon {e:g} accuracy {a:.4f}" for e, a in curve)
        seconds = f"{time.perf_counter() - started:.0f} s"
        print(
            f"{i}/{len(todo)} {title}, seed {number}: {points}, {seconds}", flush=True
        )
    write_report(args, plan)
    print(f"\n{(args.output_dir / 'report.md').read_text(encoding='utf-8')}")
    print(args.output_dir / "report.md")


if __name__ == "__main__":
    run(main)
