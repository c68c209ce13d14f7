"""The jobs from text to robust accuracy, by their scripts.

Most are called in this process; those that are killed, and one of each kind that ends
well, are processes of their own.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from generation import IS_LEGACY
from job_calls import ROOT, arguments, call, finish, output_of, start
from text_samples import VOCAB_SIZE, documents

from tiedbert.bert import load_classifier
from tiedbert.errors import InputError
from tiedbert.jobs import evaluate, finetune, pretrain
from tiedbert.jobs.runs import read_metrics, read_run
from tiedbert.text.tokenizer import Tokenizer, train_tokenizer

SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))

SMALL = {"layers": 1, "hidden_size": 16, "heads": 2, "batch_size": 8, "held_out": 16}
PRETRAIN = {**SMALL, "steps": 35, "log_every": 3, "learning_rate": 1e-2}
# A rate at which the first weights of either Keras learn the task in time.
RATE = 1e-2 if IS_LEGACY else 2e-2
FINETUNE = {"epochs": 12, "batch_size": 8, "learning_rate": RATE, "dropout": 0}
ADVERSARIES = {
    "none": {},
    "fgm": {"adversary": "fgm", "warm_up": 2, "same_dropout": True, "micro_batches": 2},
}


def run(script, *positional, **options):
    """Call a script in this process; what it printed."""
    return output_of(call(script, *positional, *arguments(options)))


# --help.


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_defaults_and_does_not_wait_for_tensorflow(script, tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('was imported')")
    command = [sys.executable, ROOT / "scripts" / f"{script}.py", "--help"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stderr) == (0, "")
    header = (ROOT / "scripts" / f"{script}.py").read_text(encoding="utf-8")
    assert f"\n    python scripts/{script}.py " in header.split('"""')[1]
    assert f"usage: {script}.py " in done.stdout
    if script in ("demo", "demo_data"):  # they have nothing to choose
        assert f"    python scripts/{script}.py " in done.stdout
    else:
        assert f"    tiedbert {script.replace('_', '-')} " in done.stdout
        assert " ".join(done.stdout.split()).count("(default: ") >= 5
    assert after.ru_utime - before.ru_utime < 3


# The job, once.


def write_tsv(path, rows):
    lines = ["label\ttext", *("\t".join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Texts, and reviews whose first words tell the label."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "texts.txt").write_text("\n".join(documents()), encoding="utf-8")
    draw = random.Random(0)
    rows = [
        (label, word * 3 + text[:20])
        for text in documents(40, seed=1)
        for label, word in (("good", "喜欢"), ("bad", "糟"))
    ]
    draw.shuffle(rows)
    write_tsv(folder / "train.tsv", rows[:60])
    write_tsv(folder / "validation.tsv", rows[60:])
    return folder


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def corpus(runs, data):
    options = {"vocab_size": VOCAB_SIZE, "sequence_length": 16, "shards": 2}
    folder = runs / "corpus"
    run("prepare_corpus", data / "texts.txt", output_dir=folder, **options)
    return folder


@pytest.fixture(scope="session")
def pool():
    """Processes run beside this one, as each loads TensorFlow for itself."""
    pool = ThreadPoolExecutor(1)
    yield pool
    pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def killed_pretraining(pool, runs, corpus):
    options = {"corpus": corpus, "output_dir": runs / "killed_pretrain", **PRETRAIN}
    return options, pool.submit(kill, "pretrain", 3, options)


@pytest.fixture(scope="session")
def pretrained(killed_pretraining, runs, corpus):
    run("pretrain", corpus=corpus, output_dir=runs / "pretrain", **PRETRAIN)
    return runs / "pretrain"


def finetune_options(data, pretrained, **changes):
    files = {"train": data / "train.tsv", "validation": data / "validation.tsv"}
    return {"pretrained": pretrained, **files, **FINETUNE, **changes}


@pytest.fixture(scope="session")
def classifiers(runs, data, pretrained):
    """Fine-tuned without and with an adversary: what that printed."""
    options = finetune_options(data, pretrained)
    return {
        name: run("finetune", output_dir=runs / name, **options, **adversary)
        for name, adversary in ADVERSARIES.items()
    }


@pytest.fixture(scope="session")
def evaluation(classifiers, runs, data):
    """The folder of an evaluation, and what it printed, in a process of its own."""
    folder = runs / "evaluation"
    options = {"data": data / "validation.tsv", "epsilons": [0, 1, 100]}
    given = arguments({"output_dir": folder, **options})
    process = start("evaluate", runs / "none", runs / "fgm", *given)
    return folder, output_of(finish(process))


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


MODEL_FILES = {
    "config.json",
    "metrics.jsonl",
    "events",
    "checkpoints/checkpoint",
    "model/bert_config.json",
    "model/bert_model.ckpt.index",
    "model/bert_model.ckpt.data-00000-of-00001",
    "model/config.json",
    "model/model.safetensors",
    "model/tokenizer.model",
}


@pytest.mark.both_kerases
def test_pretraining_writes_its_run(pretrained):
    assert names(pretrained) > MODEL_FILES | {"loss.png"}
    config = read_run(pretrained, "pretrain")
    assert {name: config[name] for name in PRETRAIN} == PRETRAIN
    assert config["mask_rate"] == 0.15  # a default, resolved


def test_pretraining_learns(pretrained):
    lines = read_metrics(pretrained)
    assert [line["epoch"] for line in lines] == list(range(1, 13))
    assert [line["step"] for line in lines][-2:] == [33, 35]
    assert np.isfinite([[*line.values()] for line in lines]).all()
    assert lines[-1]["val_loss"] < lines[0]["val_loss"] - 0.1


def test_fine_tuning_writes_its_runs(runs, classifiers):
    for name in classifiers:
        assert names(runs / name) > MODEL_FILES | {"model/labels.json"}
        lines = read_metrics(runs / name)
        assert [line["epoch"] for line in lines] == list(range(1, 13))
        assert np.isfinite([[*line.values()] for line in lines]).all()
        assert lines[-1]["val_loss"] > 0


def test_fine_tuning_solves_an_easy_task(runs, classifiers):
    for name, printed in classifiers.items():
        assert "best validation accuracy 1.0000" in printed
        assert max(line["val_accuracy"] for line in read_metrics(runs / name)) == 1.0


def test_an_adversary_perturbs_each_text_by_epsilon(runs, classifiers):
    first, *others = read_metrics(runs / "fgm")
    assert 0 < first["delta_norm"] < 0.9  # --warm_up
    for line in others:
        assert line["delta_norm"] == pytest.approx(1, abs=1e-4)
        assert line["adversarial_loss"] > line["clean_loss"]
    assert "delta_norm" not in read_metrics(runs / "none")[0]


def test_evaluation_writes_and_prints_the_curves(runs, evaluation):
    folder, printed = evaluation
    written = {"config.json", "correct.npy", "results.json", "robustness.png"}
    assert names(folder) == written | {".lock"}
    right = np.load(folder / "correct.npy")
    assert (right.dtype, right.shape) == (bool, (2, 3, 20))
    curves = json.loads((folder / "results.json").read_text())
    assert set(curves) == {str(runs / "none"), str(runs / "fgm")}
    for name, curve in curves.items():
        epsilons, accuracies = zip(*curve, strict=True)
        assert epsilons == (0, 1, 100)
        assert accuracies[0] == 1.0
        assert accuracies[0] >= accuracies[1] >= accuracies[2]
        assert accuracies[2] < 1.0
        assert f"{name}: epsilon 0 accuracy 1.0000, epsilon 1 accuracy " in printed
    means = [[accuracy for _, accuracy in curve] for curve in curves.values()]
    assert right.mean(axis=2).tolist() == means


def test_the_pictures_of_the_runs_are_png(pretrained, evaluation):
    for path in (pretrained / "loss.png", evaluation[0] / "robustness.png"):
        assert path.read_bytes().startswith(b"\x89PNG\r\n")


def test_a_fine_tuned_model_answers_from_its_files(runs, classifiers):
    model, labels, tokenizer = load_classifier(runs / "none")
    ids = tokenizer.encode_batch(["喜欢喜欢喜欢价格", "糟糟糟价格"], 16)
    logits = model([ids, np.zeros_like(ids)])
    assert [labels[i] for i in np.argmax(logits, -1)] == ["good", "bad"]


def test_runs_of_the_same_name_stay_apart_in_the_picture():
    assert evaluate.titles(["runs/a", "runs/b"]) == ["a", "b"]
    assert evaluate.titles(["x/run", "y/run"]) == ["x/run", "y/run"]


def test_one_file_can_be_trained_on_and_validated_on(data):
    path = data / "validation.tsv"
    args = argparse.Namespace(train=path, validation=path, errors="strict")
    names, train, validation = finetune.read_data(args)
    assert names == ["bad", "good"]
    assert train == validation


def test_a_run_is_not_resumed_with_another_vocabulary(corpus, pretrained):
    check = pretrain.check_same_vocabulary
    args = argparse.Namespace(output_dir=pretrained, corpus=corpus, resume=True)
    check(args, Tokenizer(corpus / "tokenizer.model"))
    other = argparse.Namespace(fingerprint="another")
    with pytest.raises(InputError, match="corpus has another vocabulary than when"):
        check(args, other)
    check(argparse.Namespace(**{**vars(args), "resume": False}), other)


# Going on after a kill.


def lines_of(folder):
    """How many epochs a run that goes on has told of."""
    path = folder / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def kill(script, after, options):
    """SIGKILL once there are metrics of so many epochs; the exit code, the epochs."""
    folder = options["output_dir"]
    process = start(script, *arguments(options))
    while process.poll() is None and lines_of(folder) < after:
        time.sleep(0.01)
    process.kill()
    killed = finish(process).returncode, lines_of(folder)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"epoch": ')  # as if it had been writing at that moment
    return killed


@pytest.fixture(scope="session")
def killed_fine_tuning(pool, classifiers, runs, data, pretrained):
    folder = runs / "killed_finetune"
    options = finetune_options(data, pretrained, output_dir=folder)
    options |= ADVERSARIES["fgm"]
    return options, pool.submit(kill, "finetune", 3, options)


def weights_of(folder):
    reader = tf.train.load_checkpoint(str(folder / "model" / "bert_model.ckpt"))
    names = sorted(reader.get_variable_to_shape_map())
    return {name: reader.get_tensor(name) for name in names}


def assert_same_weights(first, second):
    first, second = weights_of(first), weights_of(second)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def without_seconds(lines):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def test_a_killed_pretraining_ends_as_an_uninterrupted_one(
    killed_pretraining, runs, pretrained
):
    options, killed = killed_pretraining
    status, epochs = killed.result()
    assert status == -signal.SIGKILL
    assert 3 <= epochs < 12
    printed = run("pretrain", **options, resume=True)
    assert "Epoch 1/12" not in printed
    assert "Epoch 12/12" in printed
    folder = runs / "killed_pretrain"
    assert_same_weights(folder, pretrained)
    ours, theirs = read_metrics(folder), read_metrics(pretrained)
    assert without_seconds(ours) == without_seconds(theirs)


@pytest.mark.slow
def test_a_killed_fine_tuning_goes_on(killed_fine_tuning, runs):
    options, killed = killed_fine_tuning
    status, epochs = killed.result()
    assert status == -signal.SIGKILL
    assert 3 <= epochs < 12
    given = arguments({**options, "resume": True})
    printed = output_of(finish(start("finetune", *given)))
    assert "Epoch 1/12" not in printed
    lines = read_metrics(runs / "killed_finetune")
    assert [line["epoch"] for line in lines] == list(range(1, 13))
    best = max(line["val_accuracy"] for line in lines)
    assert f"best validation accuracy {best:.4f}" in printed
    assert load_classifier(runs / "killed_finetune")[1] == ["bad", "good"]


# Bad input: one line, status 2, and no file is lost.


@contextlib.contextmanager
def limited_files():
    """A stand-in for a full disk: no file can grow beyond 400 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="session")
def desk(tmp_path_factory, data, corpus, pretrained, classifiers, runs):
    """A folder with good files and runs, and broken copies of them."""
    desk = tmp_path_factory.mktemp("desk")
    for path in (*data.iterdir(), corpus, pretrained, runs / "none"):
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, desk / path.name)
    write_tsv(desk / "no_label.tsv", [("good", "text"), ("", "text")])
    write_tsv(desk / "one_label.tsv", [("good", "text"), ("good", "words")])
    write_tsv(desk / "other_labels.tsv", [("good", "text"), ("awful", "text")])
    (desk / "pairs.tsv").write_text("label\ttext\ttext_b\ngood\tone\tanother\n")
    write_tsv(desk / "scores.tsv", [("0.5", "text"), ("2.25", "text")])
    (desk / "thesis").mkdir()
    (desk / "thesis" / "thesis.txt").write_text("precious")

    flipped = shutil.copytree(corpus, desk / "flipped_corpus")
    shard = flipped / "corpus-00001-of-00002.tfrecord"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    short = shutil.copytree(corpus, desk / "short_corpus")
    os.truncate(short / shard.name, 100)

    model = shutil.copytree(pretrained, desk / "other_vocabulary") / "model"
    train_tokenizer(documents(), model / "tokenizer.model", 100)
    config = json.loads((model / "bert_config.json").read_text())
    del config["tokenizer_sha256"]  # as in a model from elsewhere
    (model / "bert_config.json").write_text(json.dumps({**config, "vocab_size": 100}))
    model = shutil.copytree(pretrained, desk / "swapped_tokenizer") / "model"
    backwards = [text[::-1] for text in documents()]
    train_tokenizer(backwards, model / "tokenizer.model", config["vocab_size"])
    model = shutil.copytree(pretrained, desk / "other_model") / "model"
    config |= {"position_embedding_type": "relative_key"}
    (model / "bert_config.json").write_text(json.dumps(config))
    cut = shutil.copytree(pretrained, desk / "cut_checkpoint")
    os.truncate(cut / "model" / "bert_model.ckpt.data-00000-of-00001", 5000)
    return desk


GOOD = {
    "pretrain": {**SMALL, "steps": 3, "corpus": "corpus"},
    "finetune": {
        **FINETUNE,
        "pretrained": "pretrain",
        "train": "train.tsv",
        "validation": "validation.tsv",
    },
    "evaluate": {"data": "validation.tsv"},
}

# Name -> (script, the option that is wrong, what the line says).
BAD = {
    "missing file": (
        "finetune",
        {"train": "none.tsv"},
        "none.tsv: expected a text file, found no such file",
    ),
    "row without label": (
        "finetune",
        {"train": "no_label.tsv"},
        "no_label.tsv, line 3: expected a label, found none",
    ),
    "a second text in each row": (
        "finetune",
        {"train": "pairs.tsv"},
        "pairs.tsv, line 1: the column 'text_b' looks like a second text in each row",
    ),
    "scores as labels": (
        "evaluate",
        {"data": "scores.tsv"},
        "scores.tsv: expected the name of one class a text, found numbers with a fract",
    ),
    "configuration of another model": (
        "finetune",
        {"pretrained": "other_model"},
        "is 'relative_key': a 'bert' model of tiedbert has 'absolute'",
    ),
    "other labels in validation": (
        "finetune",
        {"validation": "other_labels.tsv"},
        "only train.tsv has 'bad', only other_labels.tsv has 'awful'",
    ),
    "other labels than the model's": (
        "evaluate",
        {"data": "other_labels.tsv"},
        "only none has 'bad', only other_labels.tsv has 'awful'",
    ),
    "no corpus": (
        "pretrain",
        {"corpus": "nowhere"},
        "nowhere/manifest.json: expected the manifest of a prepared corpus, found no",
    ),
    "corrupt record": (
        "pretrain",
        {"corpus": "flipped_corpus"},
        "flipped_corpus/corpus-00001-of-00002.tfrecord: record ",
    ),
    "truncated records": (
        "pretrain",
        {"corpus": "short_corpus"},
        "short_corpus/corpus-00001-of-00002.tfrecord: record ",
    ),
    "overwriting with a corrupt corpus": (
        "pretrain",
        {"corpus": "flipped_corpus", "output_dir": "pretrain", "overwrite": True},
        "flipped_corpus/corpus-00001-of-00002.tfrecord: record ",
    ),
    "vocabulary of the same size": (
        "finetune",
        {"pretrained": "swapped_tokenizer"},
        "the vocabulary does not belong to this model: expected ",
    ),
    "a single label": (
        "finetune",
        {"train": "one_label.tsv", "validation": "one_label.tsv"},
        "one_label.tsv: expected at least two labels, found ['good']",
    ),
    "vocabulary of another checkpoint": (
        "finetune",
        {"pretrained": "other_vocabulary"},
        "the vocabulary does not belong to this checkpoint: "
        "expected 100 tokens, found 120",
    ),
    "checkpoint cut short": (
        "finetune",
        {"pretrained": "cut_checkpoint"},
        "cut_checkpoint/model/bert_model.ckpt: bert/",
    ),
    "not a run": (
        "finetune",
        {"pretrained": "thesis"},
        "thesis is not a run directory: it has no config.json",
    ),
    "not a run of finetune": (
        "evaluate",
        {"runs": ["pretrain"]},
        "pretrain: expected a run of finetune, found pretrain",
    ),
    "misspelt cut point": (
        "finetune",
        {"adversary": "fgm", "at": "Embeding-Norm"},
        'no layer "Embeding-Norm" in model \'classifier\': did you mean "Embedding-N',
    ),
    "option that the method has not": (
        "finetune",
        {"adversary": "pgd", "method_option": "stps=3"},
        "pgd has no option 'stps': it has epsilon, steps, step_size, random_start, ",
    ),
    "option without a method": (
        "finetune",
        {"epsilon": 0.5},
        "--epsilon has no effect without --adversary: add it",
    ),
    "warm-up of no radius": (
        "finetune",
        {"adversary": "rdrop", "warm_up": 5},
        "--warm_up has no effect on rdrop: it has no radius",
    ),
    "micro-batches without a method": (
        "finetune",
        {"micro_batches": 2},
        "--micro_batches has no effect without --adversary: add it",
    ),
    "one of one layer": (
        "finetune",
        {"adversary": "fgm", "one_of": True},
        "--one_of needs two layers or more: name them with --at",
    ),
    "steps of an attack that has one": (
        "evaluate",
        {"attack_steps": 3},
        "--attack_steps has no effect without --attack pgd",
    ),
    "longer texts than positions": (
        "finetune",
        {"max_length": 129},
        "--max_length 129: the model has 128 positions; choose 128 or less",
    ),
    "width that heads cannot share": (
        "pretrain",
        {"hidden_size": 10, "heads": 3},
        "--hidden_size 10 is not a multiple of --heads 3",
    ),
    "more held out than there is": (
        "pretrain",
        {"held_out": 10_000},
        "fewer than --held_out 10000 + --batch_size 8",
    ),
    "unknown option": (
        "pretrain",
        {"layer": 2},
        "unrecognized arguments: --layer 2 (see --help)",
    ),
    "folder in use": (
        "pretrain",
        {"output_dir": "thesis"},
        "--output_dir thesis is not empty: use --resume or --overwrite",
    ),
    "folder in use by an evaluation": (
        "evaluate",
        {"output_dir": "thesis"},
        "--output_dir thesis is not empty: use --overwrite",
    ),
    "overwriting what is not a run": (
        "pretrain",
        {"output_dir": "thesis", "overwrite": True},
        "thesis is not a run directory",
    ),
    "overwriting what it reads": (
        "finetune",
        {"output_dir": "pretrain", "overwrite": True},
        "--overwrite would remove pretrain, which this run reads",
    ),
    "overwriting with a bad file": (
        "finetune",
        {"output_dir": "none", "overwrite": True, "train": "no_label.tsv"},
        "no_label.tsv, line 3: expected a label",
    ),
    "resuming with other options": (
        "pretrain",
        {"output_dir": "pretrain", "resume": True},
        "cannot resume pretrain with other options: ",
    ),
    "folder that may not be made": (
        "pretrain",
        {"output_dir": "/sys/new"},
        ": '/sys/new'",
    ),
    "full disk": (
        "pretrain",
        {"hidden_size": 64, "output_dir": "out_full", "within": limited_files},
        "out_full/checkpoints cannot be written: ",
    ),
}


def files(folder):
    """Path -> content of everything in a folder but what failed half-way."""
    return {
        path: path.is_file() and path.read_bytes()
        for path in folder.rglob("*")
        if "out_" not in str(path.relative_to(folder))
    }


def refuse(script, desk, changes):
    options = {"output_dir": "new", **GOOD[script], **changes}
    runs = options.pop("runs", ["none"]) if script == "evaluate" else []
    with options.pop("within", contextlib.nullcontext)():
        return call(script, *runs, *arguments(options), cwd=desk)


@pytest.fixture(scope="session")
def refused(desk):
    """How the jobs of BAD ended; what was on the desk before is at ``None``."""
    before = files(desk)
    ended = {
        name: refuse(script, desk, changes)
        for name, (script, changes, _) in BAD.items()
    }
    return {None: before, **ended}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_in_one_line(refused, name):
    script, _, message = BAD[name]
    done = refused[name]
    assert done.stderr.startswith(f"{script}.py: error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.returncode == 2


def test_bad_input_costs_no_file(refused, desk):
    assert files(desk) == refused[None]
