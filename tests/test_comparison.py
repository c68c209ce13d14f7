"""Results of a comparison from the files of its runs, and the tables of a report."""

import json

import numpy as np
import pytest

from tiedbert.jobs.compare_report import (
    accuracy_table,
    compute_table,
    difference_table,
)
from tiedbert.jobs.compare_results import compare, result_of
from tiedbert.jobs.significance import paired_test

EPSILONS = [0.0, 1.0]
PLAIN = {"name": "none", "passes": 1, "cost": 1.0, "epochs": 4}
FGM = {"name": "fgm", "passes": 2, "cost": 2.0, "epochs": 2}
NOISE = {"name": "random_noise", "passes": 1, "cost": 1.0, "epochs": 4}


def finished(folder, right, seconds=(0.2, 0.1), accuracies=(0.7, 0.8)):
    """A folder as a run leaves it; `right` is a share of 10 texts an epsilon."""
    (folder / "training").mkdir(parents=True)
    (folder / "evaluation").mkdir()
    pairs = zip(seconds, accuracies, strict=True)
    lines = [json.dumps({"step_seconds": s, "val_accuracy": a}) for s, a in pairs]
    (folder / "training" / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    answers = np.arange(10) < 10 * np.array(right)[:, None]
    np.save(folder / "evaluation" / "correct.npy", answers[None])
    return folder


@pytest.fixture
def results(tmp_path):
    plain = {
        seed: finished(tmp_path / f"plain-{seed}", right)
        for seed, right in {0: [0.9, 0.1], 1: [0.7, 0.3]}.items()
    }
    fgm = {1: finished(tmp_path / "fgm", [0.6, 0.6], seconds=(0.5, 0.2))}
    noise = {0: finished(tmp_path / "noise", [0.8, 0.1])}
    return {
        "none": result_of(PLAIN, plain),
        "noise": result_of(NOISE, noise),
        "fgm:clean=true": result_of(FGM, fgm),
    }


def test_a_result_is_the_mean_over_the_seeds(results):
    plain = results["none"]
    assert plain["seeds"] == [0, 1]
    assert plain["accuracy"] == pytest.approx([0.8, 0.2])
    assert plain["accuracy_sd"] == pytest.approx([np.sqrt(0.02)] * 2)
    assert plain["validation_accuracy"] == pytest.approx(0.8)  # the best epoch
    assert plain["step_seconds"] == pytest.approx(0.15)
    assert plain["correct"].shape == (2, 2, 10)
    assert plain["cost"] == 1.0
    assert results["noise"]["accuracy_sd"] == [0.0, 0.0]


def test_methods_are_compared_over_the_seeds_that_both_have(results):
    rows = compare(results, EPSILONS)
    kinds = [(row["method"], row["against"], row["epsilon"]) for row in rows]
    fgm = "fgm:clean=true"
    assert kinds == [
        ("noise", "none", 0.0),
        ("noise", "none", 1.0),
        (fgm, "none", 0.0),
        (fgm, "none", 1.0),
    ]  # fgm and noise have no seed in common
    assert [row["difference"] for row in rows] == pytest.approx([-0.1, 0.0, -0.1, 0.3])
    ours, theirs = results[fgm]["correct"][0], results["none"]["correct"][1]
    assert rows[3]["p"] == paired_test(ours[1], theirs[1]) == pytest.approx(0.25)
    assert rows[3]["p_holm"] == 1.0  # one of four


def test_without_baselines_there_is_nothing_to_compare(results):
    only = {"fgm": results["fgm:clean=true"]}
    assert compare(only, EPSILONS) == []
    assert compute_table(only).endswith("| 350 | — |")


def test_the_tables_show_every_method(results):
    lines = accuracy_table(results, EPSILONS).splitlines()
    assert lines[0] == "| method | clean | epsilon 1 | seeds |"
    assert lines[2] == "| none | 80.0% ± 14.1 | 20.0% ± 14.1 | 2 |"
    assert lines[4] == "| fgm:clean=true | 60.0% | 60.0% | 1 |"
    lines = difference_table(compare(results, EPSILONS), "none").splitlines()
    assert lines[0] == "| minus none | clean | epsilon 1 |"
    assert lines[3] == "| fgm:clean=true | -10.0 (p 1) | +30.0 (p 1) |"
    lines = compute_table(results).splitlines()
    assert lines[2] == "| none | 1 | 1 | 4 | 80.0% | 4 | 150 | 1.00 |"
    assert lines[4] == "| fgm:clean=true | 2 | 2 | 2 | 80.0% | 4 | 350 | 2.33 |"


def test_what_chance_does_not_explain_has_a_star(tmp_path):
    texts = np.ones((1, 1, 40), bool)
    plain = {**PLAIN, "seeds": [0], "correct": ~texts}
    fgm = {**FGM, "seeds": [0], "correct": texts}
    table = difference_table(compare({"none": plain, "fgm": fgm}, [2.0]), "none")
    assert table.splitlines()[-1] == "| fgm | +100.0* (p 1.8e-12) |"
