"""The demo's data and its report. The demo itself is `make demo`."""

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tiedbert.text.documents import read_documents
from tiedbert.text.labelled import read_labelled

SCRIPTS = Path(__file__).parents[1] / "scripts"
SPLITS = ("train", "validation", "test")


def script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "data"
    command = [sys.executable, SCRIPTS / "demo_data.py", "--output_dir", folder]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def reviews(data):
    return {name: read_labelled(data / f"{name}.tsv")[0] for name in SPLITS}


def test_each_review_is_there_once(reviews):
    texts = sum(reviews.values(), [])
    assert len(texts) == len(set(texts)) == 17_363


def test_the_splits_are_about_seventy_ten_twenty(reviews):
    sizes = {name: len(texts) for name, texts in reviews.items()}
    assert sizes == {"train": 12_279, "validation": 1_717, "test": 3_367}


def test_no_text_has_both_labels(data):
    labels_of = {}
    for name in SPLITS:
        for text, label in zip(*read_labelled(data / f"{name}.tsv"), strict=True):
            labels_of.setdefault(text, set()).add(label)
    assert {len(labels) for labels in labels_of.values()} == {1}


def test_the_pretraining_text_has_no_held_out_review(data, reviews):
    held_out = set(reviews["validation"] + reviews["test"])
    pretraining = [*read_documents(data / "train_reviews.txt")]
    pretraining += read_documents(data / "news.txt")
    assert held_out.isdisjoint(pretraining)
    assert len(pretraining) == len(reviews["train"]) + 19_484


def test_the_news_has_lost_its_tags(data):
    first = next(iter(read_documents(data / "news.txt")))
    assert first == "迈向充满希望的新世纪——一九九八年新年讲话（附图片１张）"
    text = (data / "news.txt").read_text(encoding="utf-8")
    assert not re.search(r"/(n|v|w|u|nr|ns|nt|vn)\b", text)


def test_a_text_is_always_in_the_same_split():
    split_of = script("demo_data").split_of
    texts = ["质量还不错", "很后悔", "小熊宝宝我觉得孩子不喜欢，能换别的吗"]
    assert [split_of(text) for text in texts] == ["train", "train", "test"]


def test_the_table_shows_every_model_and_radius():
    demo = script("demo")
    points = list(zip([0.0, 2.0, 4.0, 8.0], [0.9, 0.8, 0.5, 0.125], strict=True))
    lines = demo.table({"majority": 0.5}, dict.fromkeys(demo.FINE_TUNED, points))
    lines = lines.splitlines()
    assert lines[2] == "| majority | 50.0% | — | — | — |"
    assert lines[3] == "| BERT from scratch | 90.0% | 80.0% | 50.0% | 12.5% |"
    assert len({line.count("|") for line in lines}) == 1


def test_the_chain_fits_the_options_of_the_scripts(tmp_path, monkeypatch):
    demo = script("demo")
    calls = []
    monkeypatch.setattr(demo, "call", lambda *command: calls.append(command))
    demo.train_models(tmp_path)
    names = [name for name, *_ in calls]
    assert names[:3] == ["demo_data", "prepare_corpus", "pretrain"]
    assert names[3:] == ["finetune"] * len(demo.FINE_TUNED) + ["evaluate"]
    for name, *given in calls[1:]:
        job = importlib.import_module(f"tiedbert.jobs.{name}")
        assert job.options([str(each) for each in given]).output_dir.parent == tmp_path
