"""What a comparison of methods shows: means over seeds, tests, tables.

A *result* of a method is a dict: what scripts/compare.py planned for it (``name``,
``options``, ``passes``, ``cost``, ``epochs``), and of its finished runs ``seeds``,
``accuracy`` and ``accuracy_sd`` (one number an epsilon), ``validation_accuracy``,
``step_seconds`` and ``correct``, bool ``[seeds, epsilons, texts]``.
"""

import numpy as np

from tiedbert.jobs.runs import read_metrics
from tiedbert.jobs.significance import holm, paired_test

# What the methods are compared with, by the names of methods.
BASELINES = ("none", "random_noise")
LEVEL = 0.05


def result_of(planned, folders) -> dict:
    """The result of a method.

    Args:
        planned: dict, kept in the result.
        folders: dict seed -> folder of a finished run, which holds ``training`` and
            ``evaluation``; at least one.
    """
    metrics = [read_metrics(folder / "training") for folder in folders.values()]
    files = [folder / "evaluation" / "correct.npy" for folder in folders.values()]
    correct = np.stack([np.load(file)[0] for file in files])
    accuracies = correct.mean(axis=2)
    spread = accuracies.std(axis=0, ddof=1 if len(files) > 1 else 0)
    best = [max(line["val_accuracy"] for line in lines) for lines in metrics]
    times = [line["step_seconds"] for lines in metrics for line in lines]
    return {
        **planned,
        "seeds": list(folders),
        "accuracy": accuracies.mean(axis=0).tolist(),
        "accuracy_sd": spread.tolist(),
        "validation_accuracy": float(np.mean(best)),
        "step_seconds": float(np.median(times)),
        "correct": correct,
    }


def compare(results, epsilons) -> list:
    """Every method against plain training and against noise, at every radius.

    Args:
        results: dict method -> result.
        epsilons: the radii of the results.

    Returns:
        list of dicts ``method``, ``against``, ``epsilon``, ``difference`` of the
        accuracies over the seeds that both have, ``p`` of
        :func:`tiedbert.jobs.significance.paired_test`, and ``p_holm``, corrected for
        all that is in the list.
    """
    found = []
    for name in BASELINES:
        base = next((m for m, r in results.items() if r["name"] == name), None)
        for method, result in results.items():
            # Of two baselines the first was compared with the second.
            if base is None or method == base or result["name"] in BASELINES[:1]:
                continue
            found += _differences(method, base, results, epsilons)
    adjusted = holm([row["p"] for row in found])
    return [{**row, "p_holm": p} for row, p in zip(found, adjusted, strict=True)]


def _differences(method, base, results, epsilons):
    ours, theirs = results[method], results[base]
    seeds = [seed for seed in ours["seeds"] if seed in theirs["seeds"]]
    if not seeds:
        return
    ours, theirs = (
        r["correct"][[r["seeds"].index(seed) for seed in seeds]] for r in (ours, theirs)
    )
    for i, epsilon in enumerate(epsilons):
        yield {
            "method": method,
            "against": base,
            "epsilon": epsilon,
            "difference": float(ours[:, i].mean() - theirs[:, i].mean()),
            "p": paired_test(ours[:, i], theirs[:, i]),
        }


def table(head, rows) -> str:
    """A table in Markdown.

    Example:
        >>> print(table(["a", "b"], [["1", "2"]]))
        | a | b |
        | --- | --- |
        | 1 | 2 |
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def accuracy_table(results, epsilons) -> str:
    """Mean and standard deviation over the seeds, in percent."""

    def cell(mean, spread, seeds):
        return f"{mean:.1%}" + (f" ± {100 * spread:.1f}" if seeds > 1 else "")

    rows = []
    for method, r in results.items():
        seeds = len(r["seeds"])
        pairs = zip(r["accuracy"], r["accuracy_sd"], strict=True)
        rows.append([method, *(cell(*pair, seeds) for pair in pairs), str(seeds)])
    return table(["method", *_radii(epsilons), "seeds"], rows)


def difference_table(comparisons, against) -> str:
    """Differences from one method in points, and their p-values."""
    rows = {}
    for row in comparisons:
        if row["against"] == against:
            star = "*" if row["p_holm"] < LEVEL else ""
            p = "< 1e-12" if row["p_holm"] < 1e-12 else f"{row['p_holm']:.2g}"
            text = f"{100 * row['difference']:+.1f}{star} (p {p})"
            rows.setdefault(row["method"], {})[row["epsilon"]] = text
    epsilons = next(iter(rows.values()))
    lines = [[method, *cells.values()] for method, cells in rows.items()]
    return table([f"minus {against}", *_radii(epsilons)], lines)


def compute_table(results) -> str:
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


def _radii(epsilons) -> list:
    return [f"epsilon {epsilon:g}" if epsilon else "clean" for epsilon in epsilons]
