"""Plots of a run, as PNG: the loss of pretraining, accuracy under attack.

Without matplotlib a plot is left out, and a line says so.
"""

import importlib.util
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def plot_losses(metrics: Sequence[Mapping[str, Any]], path: str | os.PathLike) -> None:
    """Training and held-out loss in nats against the optimizer step.

    Args:
        metrics: dicts with ``step``, ``loss`` and ``val_loss``, as in metrics.jsonl.
        path: PNG file to write.
    """
    if not _can_draw(path):
        return
    steps = [line["step"] for line in metrics]
    figure, axes = _axes("optimizer step", "masked LM loss (nats)")
    axes.plot(steps, [line["loss"] for line in metrics], label="training")
    axes.plot(steps, [line["val_loss"] for line in metrics], label="held out")
    _save(figure, axes, path)


def plot_curves(
    curves: Mapping[str, Iterable[tuple[float, float]]],
    path: str | os.PathLike,
    norm: str = "L2 norm per text",
) -> None:
    """Accuracy against the radius of the attack, a line for each model.

    Args:
        curves: name -> list of ``(epsilon, accuracy)``.
        path: PNG file to write.
        norm: the norm of the radius, for the axis.
    """
    if not _can_draw(path):
        return
    figure, axes = _axes(f"attack radius epsilon ({norm})", "accuracy")
    for name, points in curves.items():
        epsilons, accuracies = zip(*points, strict=True)
        axes.plot(epsilons, accuracies, marker="o", label=name)
    _save(figure, axes, path)


def plot_comparison(
    curves: Mapping[str, Iterable[tuple[float, float, float]]],
    path: str | os.PathLike,
    norm: str = "L2 norm per text",
) -> bool:
    """Mean accuracy over seeds against the radius, a line for each method.

    Args:
        curves: name -> list of ``(epsilon, mean, standard deviation)``.
        path: PNG file to write.
        norm: the norm of the radius, for the axis.

    Returns:
        Whether it was drawn.
    """
    if not _can_draw(path):
        return False
    figure, axes = _axes(f"attack radius epsilon ({norm})", "accuracy", (9, 5.5))
    for i, (name, points) in enumerate(curves.items()):
        epsilons, means, spreads = zip(*points, strict=True)
        # matplotlib has ten colors; more lines differ by the marker.
        marker = "osDv^<>pP*Xhd"[i % 13]
        axes.errorbar(epsilons, means, spreads, label=name, capsize=3, marker=marker)
    _save(figure, axes, path, loc="center left", bbox_to_anchor=(1, 0.5))
    return True


def _can_draw(path) -> bool:
    """Whether matplotlib is there; a line says which picture is left out."""
    found = importlib.util.find_spec("matplotlib") is not None
    if not found:
        print(f"{path} is not drawn: it needs matplotlib (pip install matplotlib)")
    return found


def _axes(x_label, y_label, size=(6.4, 4)):
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure, axes, path, **legend):
    axes.legend(**legend)
    figure.savefig(path, dpi=120, metadata={"Software": None})
