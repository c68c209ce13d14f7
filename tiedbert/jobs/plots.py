"""Pictures of a run, as PNG: the loss of pretraining, accuracy under attack."""

import importlib.util

from tiedbert.errors import InputError


def plot_losses(metrics, path):
    """Training and held-out loss in nats against the optimizer step.

    Args:
        metrics: dicts with ``step``, ``loss`` and ``val_loss``, as in metrics.jsonl.
        path: PNG file to write.
    """
    steps = [line["step"] for line in metrics]
    figure, axes = _axes("optimizer step", "masked LM loss (nats)")
    axes.plot(steps, [line["loss"] for line in metrics], label="training")
    axes.plot(steps, [line["val_loss"] for line in metrics], label="held out")
    _save(figure, axes, path)


def plot_curves(curves, path, norm="L2 norm per text"):
    """Accuracy against the radius of the attack, a line a model.

    Args:
        curves: dict name -> list of ``(epsilon, accuracy)``.
        path: PNG file to write.
        norm: what the radius measures.
    """
    figure, axes = _axes(f"attack radius epsilon ({norm})", "accuracy")
    for name, points in curves.items():
        epsilons, accuracies = zip(*points, strict=True)
        axes.plot(epsilons, accuracies, marker="o", label=name)
    _save(figure, axes, path)


def plot_comparison(curves, path, norm="L2 norm per text"):
    """Mean accuracy and its spread over seeds against the radius, a line a method.

    Args:
        curves: dict name -> list of ``(epsilon, mean, standard deviation)``.
        path: PNG file to write.
        norm: what the radius measures.
    """
    figure, axes = _axes(f"attack radius epsilon ({norm})", "accuracy", (9, 5.5))
    for i, (name, points) in enumerate(curves.items()):
        epsilons, means, spreads = zip(*points, strict=True)
        # Ten colors and as many methods as there are: the shapes differ too.
        marker = "osDv^<>pP*Xhd"[i % 13]
        axes.errorbar(epsilons, means, spreads, label=name, capsize=3, marker=marker)
    _save(figure, axes, path, loc="center left", bbox_to_anchor=(1, 0.5))


def check_matplotlib():
    """InputError without matplotlib; asked before hours of work end in a picture."""
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("plots need matplotlib: pip install matplotlib")


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
