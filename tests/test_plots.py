"""The pictures of a run."""

import numpy as np
import pytest

from tiedbert.jobs import plots
from tiedbert.jobs.plots import (
    plot_comparison,
    plot_curves,
    plot_losses,
)

METRICS = [
    {"step": 10, "loss": 3.0, "val_loss": 3.5},
    {"step": 20, "loss": 2.0, "val_loss": 2.5},
]
CURVES = {"plain": [(0.0, 0.9), (2.0, 0.5)], "fgm": [(0.0, 0.9), (2.0, 0.7)]}


@pytest.fixture
def drawn(monkeypatch):
    """What a plot shows: axis labels, and the points of each named line."""
    found = {}

    def save(figure, axes, path):
        found["labels"] = axes.get_xlabel(), axes.get_ylabel()
        for line in axes.get_lines():
            found[line.get_label()] = np.column_stack(line.get_data()).tolist()

    monkeypatch.setattr(plots, "_save", save)
    return found


def test_losses_are_drawn_against_the_step(drawn):
    plot_losses(METRICS, None)
    assert drawn == {
        "labels": ("optimizer step", "masked LM loss (nats)"),
        "training": [[10, 3.0], [20, 2.0]],
        "held out": [[10, 3.5], [20, 2.5]],
    }


def test_each_model_has_its_curve(drawn):
    plot_curves(CURVES, None)
    assert drawn.pop("labels") == (
        "attack radius epsilon (L2 norm per text)",
        "accuracy",
    )
    assert drawn == {name: [[*p] for p in points] for name, points in CURVES.items()}


def test_a_comparison_shows_means_and_their_spread(tmp_path, monkeypatch):
    shown = []

    def save(figure, axes, path, **legend):
        for container in axes.containers:
            line, _, (bars,) = container
            means = np.column_stack(line.get_data()).tolist()
            shown.append(
                (container.get_label(), means, bars.get_segments()[1].tolist())
            )

    monkeypatch.setattr(plots, "_save", save)
    plot_comparison({"fgm": [(0.0, 0.9, 0.0), (2.0, 0.5, 0.25)]}, None)
    expected = [[0.0, 0.9], [2.0, 0.5]], [[2.0, 0.25], [2.0, 0.75]]
    assert shown == [("fgm", *expected)]
    monkeypatch.undo()
    plot_comparison({"fgm": [(0.0, 0.9, 0.0)]}, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("plot", "data"), [(plot_losses, METRICS), (plot_curves, CURVES)]
)
def test_the_picture_is_a_png_and_the_same_each_time(tmp_path, plot, data):
    for name in ("a.png", "b.png"):
        plot(data, tmp_path / name)
    content = (tmp_path / "a.png").read_bytes()
    width, height = np.frombuffer(content[16:24], ">u4")
    assert content.startswith(b"\x89PNG\r\n")
    assert (width, height) == (768, 480)
    assert content == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("plot", [plot_losses, plot_curves, plot_comparison])
def test_without_matplotlib_it_is_left_out_and_said(
    plot, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    plot(None, tmp_path / "a.png")
    expected = f"{tmp_path}/a.png is not drawn: it needs matplotlib (pip install "
    assert capsys.readouterr().out.startswith(expected)
    assert not (tmp_path / "a.png").exists()
