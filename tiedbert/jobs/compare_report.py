"""The report of `tiedbert compare`: JSON, Markdown tables and a picture."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tiedbert.jobs.compare_results import compare
from tiedbert.jobs.plots import plot_comparison
from tiedbert.text.files import write_json

LEVEL = 0.05
_PICTURE = "robustness.png"
# Method -> result (see :mod:`tiedbert.jobs.compare_results`).
Results = Mapping[str, Mapping[str, Any]]
# What `compare` returns.
Differences = Sequence[Mapping[str, Any]]


def write_report(args: argparse.Namespace, results: Results, planned: int) -> None:
    """Write results.json, report.md and the picture.

    Args:
        args: the options of the job.
        results: the finished runs.
        planned: the number of trainings, finished or not.
    """
    differences = compare(results, args.epsilons)
    methods = {
        # Which answers are correct is in the runs.
        title: {name: value for name, value in result.items() if name != "correct"}
        for title, result in results.items()
    }
    document = {
        "epsilons": args.epsilons,
        "methods": methods,
        "differences": differences,
    }
    write_json(args.output_dir / "results.json", document)
    curves = {
        title: list(zip(args.epsilons, r["accuracy"], r["accuracy_sd"], strict=True))
        for title, r in results.items()
    }
    is_drawn = plot_comparison(curves, args.output_dir / _PICTURE)
    text = report(args, results, differences, planned, is_drawn)
    (args.output_dir / "report.md").write_text(text, encoding="utf-8")


def report(
    args: argparse.Namespace,
    results: Results,
    differences: Differences,
    planned: int,
    is_drawn: bool,
) -> str:
    """The report as Markdown, with the picture if it was drawn."""
    done = sum(len(r["seeds"]) for r in results.values())
    bases = dict.fromkeys(row["against"] for row in differences)
    tables = [difference_table(differences, base) for base in bases]
    joined = "".join(f"{table}\n\n" for table in tables)
    picture = f"![accuracy under attack]({_PICTURE})\n\n" if is_drawn else ""
    return f"""# Methods of adversarial training at equal compute

{done} of {planned} trainings. Accuracy on {args.test.name}, mean and
standard deviation over the seeds: clean, and under {args.attack_steps} steps of
projected gradient descent, {args.restarts} times from a random start, on
{", ".join(args.at)}, with L2 radius epsilon per text.

{accuracy_table(results, args.epsilons)}

{picture}## Differences

In points of accuracy. p is that of the exact paired permutation test on the answers to
each text, averaged over the seeds; the {len(differences)} p-values are Holm-adjusted
together; * marks those below {LEVEL}. They compare these trained models on other texts;
the standard deviations above show how much other seeds would change.

{joined}## Compute

A pass goes through the model behind the cut point, forward and backward; the cost of a
step is counted in plain training steps (an estimate for the gradient penalty). Every
method has the compute of {args.budget} plain epochs, rounded down to whole epochs but
at least one; the best epoch on {args.validation.name} is saved. ms is the median time
of a step on this machine, other load included.

{compute_table(results)}
"""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown.

    Example:
        >>> print(table(["a", "b"], [["1", "2"]]))
        | a | b |
        | --- | --- |
        | 1 | 2 |
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def accuracy_table(results: Results, epsilons: Iterable[float]) -> str:
    """Mean and standard deviation over the seeds, in percent."""

    def cell(mean, spread, seeds):
        return f"{mean:.1%}" + (f" ± {100 * spread:.1f}" if seeds > 1 else "")

    rows = []
    for method, r in results.items():
        seeds = len(r["seeds"])
        pairs = zip(r["accuracy"], r["accuracy_sd"], strict=True)
        rows.append([method, *(cell(*pair, seeds) for pair in pairs), str(seeds)])
    return table(["method", *_radii(epsilons), "seeds"], rows)


def difference_table(differences: Differences, against: str) -> str:
    """Differences from one method in points, and their p-values."""
    rows = {}
    for row in differences:
        if row["against"] == against:
            star = "*" if row["p_holm"] < LEVEL else ""
            p = "< 1e-12" if row["p_holm"] < 1e-12 else f"{row['p_holm']:.2g}"
            text = f"{100 * row['difference']:+.1f}{star} (p {p})"
            rows.setdefault(row["method"], {})[row["epsilon"]] = text
    epsilons = next(iter(rows.values()))
    lines = [[method, *cells.values()] for method, cells in rows.items()]
    return table([f"minus {against}", *_radii(epsilons)], lines)


def compute_table(results: Results) -> str:
    """What the training of each method cost, as counted and as measured."""
    plain = [r["step_seconds"] for r in results.values() if r["name"] == "none"]
    rows = [
        [
            method,
            f"{r['passes']:g}",
            f"{r['cost']:.3g}",
            str(r["epochs"]),
            f"{r['validation_accuracy']:.1%}",
            f"{r['cost'] * r['epochs']:.3g}",
            f"{1000 * r['step_seconds']:.0f}",
            f"{r['step_seconds'] / plain[0]:.2f}" if plain else "—",
        ]
        for method, r in results.items()
    ]
    head = ["method", "passes a step", "cost of a step", "epochs", "best on validation"]
    return table([*head, "cost in all", "ms a step", "times plain"], rows)


def _radii(epsilons: Iterable[float]) -> list[str]:
    return [f"epsilon {epsilon:g}" if epsilon else "clean" for epsilon in epsilons]
