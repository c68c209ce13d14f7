"""The results of `tiedbert compare`: means over seeds, and tests of differences.

A *result* of a method is a dict: what was planned for it (``name``,
``options``, ``passes``, ``cost``, ``epochs``), and of its finished runs ``seeds``,
``accuracy`` and ``accuracy_sd`` (one number an epsilon), ``validation_accuracy``,
``step_seconds`` and ``correct``, bool ``[seeds, epsilons, texts]``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tiedbert.jobs.runs import read_metrics
from tiedbert.jobs.significance import holm, paired_test

# The names of the methods that the others are compared with.
BASELINES = ("none", "random_noise")


def result_of(
    planned: Mapping[str, Any], folders: Mapping[int, Path]
) -> dict[str, Any]:
    """The result of a method.

    Args:
        planned: dict, the first entries of the result.
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


def compare(
    results: Mapping[str, Mapping[str, Any]], epsilons: Sequence[float]
) -> list[dict[str, Any]]:
    """Every method against plain training and against noise, at every radius.

    Args:
        results: dict method -> result.
        epsilons: the radii of the results.

    Returns:
        list of dicts ``method``, ``against``, ``epsilon``, ``difference`` of the
        accuracies over the seeds that both have, ``p`` of
        :func:`tiedbert.jobs.significance.paired_test`, and ``p_holm``, Holm-adjusted
        over the list.
    """
    found = []
    for name in BASELINES:
        base = next((m for m, r in results.items() if r["name"] == name), None)
        for method, result in results.items():
            # The second baseline is compared with the first, not the first with it.
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
