"""The comparison of methods, as a user runs it: killed, and gone on with."""

import json
import signal
import time

import numpy as np
import pytest
from job_calls import call, finish, output_of, start
from text_samples import VOCAB_SIZE, documents

from tiedbert.adversarial import FGM, PGD, SMART, RDrop
from tiedbert.bert import build_bert, masked_lm, save_google_checkpoint
from tiedbert.errors import InputError
from tiedbert.jobs.compare_plan import read_method
from tiedbert.text.files import write_json
from tiedbert.text.tokenizer import train_tokenizer

METHODS = ["none", "fgm:epsilon=1,clean=false"]
OPTIONS = ["--seeds", "3", "--budget", "40", "--epsilons", "1", "--attack_steps", "2",
           "--restarts", "1", "--max_length", "16", "--batch_size", "8"]  # fmt: skip


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """An untrained run, and reviews whose first word tells all."""
    desk = tmp_path_factory.mktemp("desk")
    model = desk / "pretrain" / "model"
    model.mkdir(parents=True)
    write_json(desk / "pretrain" / "config.json", {"tiedbert_run": "pretrain"})
    tokenizer = train_tokenizer(documents(), model / "tokenizer.model", VOCAB_SIZE)
    config = {
        **{"vocab_size": VOCAB_SIZE, "hidden_size": 16, "num_hidden_layers": 1},
        **{"num_attention_heads": 2, "intermediate_size": 32, "hidden_act": "gelu"},
        **{"max_position_embeddings": 32, "type_vocab_size": 2},
        "tokenizer_sha256": tokenizer.fingerprint,
    }
    write_json(model / "bert_config.json", config)
    bert = masked_lm(build_bert(model / "bert_config.json"))
    save_google_checkpoint(bert, model / "bert_model.ckpt")
    rows = ["label\ttext"]
    for text in documents(20, seed=1):
        rows += [f"good\t喜欢喜欢{text[:9]}", f"bad\t糟糟{text[:9]}"]
    for name in ("train", "validation", "test"):
        (desk / f"{name}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return desk


def given(*options):
    files = [f"--{name}={name}.tsv" for name in ("train", "validation", "test")]
    return ["--pretrained=pretrain", *files, "--output_dir=comparison", *OPTIONS,
            "--methods", *METHODS, *options]  # fmt: skip


@pytest.fixture(scope="module")
def gone_on(desk):
    """Killed within the second training, and gone on with: how that ended."""
    first, second = (
        desk / "comparison" / "runs" / method / "seed-3" for method in METHODS
    )
    process = start("compare", *given(), cwd=desk)
    metrics = second / "training" / "metrics.jsonl"
    while process.poll() is None and not metrics.exists():
        time.sleep(0.02)
    process.kill()
    status = finish(process).returncode
    report = (desk / "comparison" / "report.md").read_text()
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    ended = finish(start("compare", *given("--resume"), cwd=desk))
    after = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    return status, report, before == after, ended


@pytest.mark.slow
def test_a_killed_comparison_keeps_what_was_finished(gone_on):
    status, report, untouched, _ = gone_on
    assert status == -signal.SIGKILL
    assert untouched
    assert "\n1 of 2 trainings." in report


@pytest.mark.slow
def test_a_killed_comparison_goes_on(gone_on, desk):
    printed = output_of(gone_on[-1])
    assert f"1/2 {METHODS[0]}, seed 3: epsilon 0 accuracy " in printed
    assert f"2/2 {METHODS[1]}, seed 3: epsilon 0 accuracy " in printed
    for method in METHODS:
        run = desk / "comparison" / "runs" / method / "seed-3"
        lines = (run / "training" / "metrics.jsonl").read_text().splitlines()
        epochs = 40 if method == "none" else 24  # 40 / (5/3)
        assert [json.loads(line)["epoch"] for line in lines] == [*range(1, epochs + 1)]
        assert not (run / "training" / "checkpoints").exists()
        assert (run / "training" / "model" / "labels.json").exists()


@pytest.mark.slow
def test_a_comparison_reports(gone_on, desk):
    folder = desk / "comparison"
    results = json.loads((folder / "results.json").read_text())
    assert list(results["methods"]) == METHODS
    for method, result in results["methods"].items():
        run = folder / "runs" / method / "seed-3"
        right = np.load(run / "evaluation" / "correct.npy")
        assert result["accuracy"] == right[0].mean(axis=1).tolist()
        assert result["seeds"] == [3]
    fgm = results["methods"][METHODS[1]]
    assert fgm["options"]["clean"] is False
    assert fgm["cost"] == pytest.approx(5 / 3, abs=1e-3)
    assert [row["epsilon"] for row in results["differences"]] == [0, 1]
    report = (folder / "report.md").read_text()
    assert "\n2 of 2 trainings." in report
    assert f"\n| {METHODS[1]} | " in report
    assert (folder / "robustness.png").read_bytes().startswith(b"\x89PNG\r\n")


def method_of_title(title):
    return read_method(title, 0.5)


def test_a_method_is_written_with_its_options():
    assert method_of_title("none") == ("none", None)
    assert method_of_title("fgm") == ("fgm", FGM(0.5))
    assert method_of_title("pgd:steps=2,epsilon=3") == ("pgd", PGD(3.0, steps=2))
    assert method_of_title("smart") == ("smart", SMART())  # its radius is no L2 norm
    assert method_of_title("fgm:norm=linf") == ("fgm", FGM(norm="linf"))
    assert method_of_title("rdrop:weight=2") == ("rdrop", RDrop(2.0))


@pytest.mark.parametrize(
    ("title", "message"),
    [
        ("fgm:steps=3", "fgm has no option 'steps': it has epsilon, "),
        ("none:epsilon=3", "none is plain training and has no options"),
        ("fgm:epsilon", "expected option=value, received 'epsilon'"),
        ("fgm:", "'fgm:' names no option after the colon"),
        ("gan", "no method 'gan': choose from fgm, "),
    ],
)
def test_a_method_that_is_none_is_refused(title, message):
    with pytest.raises(InputError, match=message):
        method_of_title(title)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "fgm", "fgm"], "--methods names one twice"),
        (["--at", "nowhere"], 'no layer "nowhere" in model'),
        (["--test", "none.tsv"], "none.tsv: expected a text file, found no such file"),
    ],
)
def test_mistakes_are_told_before_the_work(desk, options, message):
    done = call("compare", *given(*options, "--output_dir", "other"), cwd=desk)
    assert done.returncode == 2
    assert done.stderr.startswith("compare.py: error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not (desk / "other").exists()
