"""From text to a corpus, by the script."""

import json
import re
import signal
import time

import numpy as np
import pytest
from job_calls import call, finish, start
from text_samples import VOCAB_SIZE, documents, tokenizer

from tiedbert.errors import InputError
from tiedbert.text.files import write_json
from tiedbert.text.records import (
    corpus_dataset,
    find_damage,
    read_manifest,
    write_corpus,
)
from tiedbert.text.tokenizer import Tokenizer


@pytest.fixture
def text(tmp_path):
    """A file of documents, alone in its folder."""
    (tmp_path / "texts").mkdir()
    path = tmp_path / "texts" / "texts.txt"
    path.write_text("\n".join(documents()) + "\n", encoding="utf-8")
    return path


def refused(*arguments):
    """Call it, expect exit status 2 and one line; the line."""
    done = call("prepare_corpus", *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("prepare_corpus.py: error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def everything(folder):
    """Every file below a folder and what is in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_from_text_to_corpus(text, tmp_path):
    more = text.with_name("more.txt")
    more.write_text("孩子爱看\n", encoding="utf-8")
    out = tmp_path / "runs" / "corpus"
    process = start(
        *("prepare_corpus", text, more),
        *("--output_dir", out, "--vocab_size", VOCAB_SIZE),
        *("--sequence_length", 16, "--shards", 2, "--threads", 1),
    )
    done = finish(process)
    assert (done.returncode, done.stderr) == (0, "")

    texts = [*documents(), "孩子爱看"]
    trained = Tokenizer(out / "tokenizer.model")
    ids = trained.encode(texts)
    expected = [token for row in ids for token in (*row, trained.sep_id)]
    stream = np.concatenate(
        [row[1:] for row in corpus_dataset(out).as_numpy_iterator()]
    )
    assert stream[: len(expected)].tolist() == expected
    assert not stream[len(expected) :].any()

    manifest = read_manifest(out)
    assert trained.vocab_size == manifest["tokenizer"]["vocab_size"] == VOCAB_SIZE
    assert manifest["config"] == {"sequence_length": 16, "shards": 2}
    summary = done.stdout.splitlines()[-1]
    assert summary.startswith(
        f"{out}: {len(texts)} documents, {manifest['tokens']:,} tokens, "
        f"{manifest['sequences']:,} sequences, "
    )
    assert summary.endswith(" MB/s")

    config = json.loads((out / "config.json").read_text())
    assert config["texts"] == [str(text), str(more)]
    assert config["errors"] == "strict"
    assert config["vocab_size"] == VOCAB_SIZE
    # Nothing but the run was left anywhere.
    assert {path.name for path in tmp_path.iterdir()} == {"texts", "runs"}
    assert [path.name for path in out.parent.iterdir()] == ["corpus"]


@pytest.fixture
def old_run(text, tmp_path):
    """A finished run, and the tokenizer it was made with beside the text."""
    model = text.with_name("t.model")
    tokenizer().save(model)
    folder = tmp_path / "corpus"
    folder.mkdir()
    # As open_run does, which would keep this process' hand on the folder.
    write_json(folder / "config.json", {"tiedbert_run": "prepare_corpus"})
    write_corpus(documents(), Tokenizer(model), folder)
    return folder


def test_a_finished_run_is_safe_from_mistakes(old_run, text, tmp_path):
    """Each mistake ends in one line; every file stays as it was."""
    folder = text.parent
    (folder / "bad.txt").write_bytes("好\n".encode() * 3 + b"\xff\n")
    (folder / "empty.txt").write_bytes(b"\n\n")
    (folder / "invisible.txt").write_text("\u200b\n", encoding="utf-8")
    (folder / "not.model").write_bytes(b"no model")
    (folder / "letter.txt").write_text("dear")
    out = ("--output_dir", old_run, "--overwrite")
    with_model = ("--tokenizer", folder / "t.model")
    own_model = ("--tokenizer", old_run / "tokenizer.model")
    elsewhere = ("--output_dir", folder, "--overwrite")
    mistakes = [
        ((text, "--output_dir", old_run), "is not empty: use --overwrite"),
        ((folder / "none.txt", *out), "none.txt: expected a text file, found nothing"),
        ((folder, *out), "found no regular file"),
        ((text, folder / "bad.txt", *out), "bad.txt, line 4: .*--errors replace"),
        ((folder / "bad.txt", *out, *with_model), "bad.txt, line 4: expected UTF-8"),
        ((folder / "empty.txt", *out), "empty.txt: .* found no text"),
        ((folder / "invisible.txt", *out), "the corpus is empty"),
        ((folder / "invisible.txt", *out, *with_model), "the corpus is empty"),
        ((text, *out), "vocab_size is 8000, but this text supports at most"),
        ((text, *out, "--tokenizer", folder / "not.model"), "not.model: expected a"),
        ((text, *out, *own_model), "--overwrite would remove .*tokenizer.model"),
        ((text, *elsewhere, *with_model), "not a run directory"),
        ((text, *out, "--errors", "igonre"), "--errors: invalid choice"),
        ((text, *out, "--vocab", 100), "unrecognized arguments: --vocab 100"),
        ((text, *out, "--shards", 0), "--shards: expected a number above 0"),
        ((text, *out, "--sequence_length", 2), "sequence_length is 2: expected"),
    ]
    before = everything(tmp_path)
    for arguments, message in mistakes:
        line = refused(*arguments)
        assert re.search(message, line), line
        assert everything(tmp_path) == before, message


def test_overwrite_with_a_tokenizer_and_bytes_passed_over(old_run, text):
    with text.open("ab") as file:
        file.write("好看".encode() + b"\xff\n")
    done = call(
        "prepare_corpus",
        *(text, "--output_dir", old_run, "--overwrite", "--shards", 2),
        *("--tokenizer", text.with_name("t.model"), "--errors", "ignore"),
    )
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(old_run)
    assert manifest["documents"] == len(documents()) + 1
    assert manifest["tokenizer"]["sha256"] == tokenizer().fingerprint
    assert len(list(old_run.glob("*.tfrecord"))) == 2
    assert find_damage(old_run) is None


@pytest.mark.slow
def test_killed_in_the_middle_there_is_no_corpus(text, tmp_path):
    """The text is long enough that writing takes a second or more."""
    model = text.with_name("t.model")
    tokenizer().save(model)
    with text.open("w", encoding="utf-8") as file:
        for _ in range(200):
            file.write("\n".join(documents()) + "\n")
    out = tmp_path / "corpus"
    given = ("--output_dir", out, "--tokenizer", model)
    script = start("prepare_corpus", text, *given)
    while not list(tmp_path.rglob("*.tfrecord")):
        assert script.poll() is None, "it ended before it wrote"
        time.sleep(0.01)
    script.send_signal(signal.SIGKILL)
    assert finish(script).returncode == -signal.SIGKILL
    assert list(tmp_path.rglob("manifest.json")) == []
    with pytest.raises(InputError, match=r"manifest.json: expected .* found no file"):
        read_manifest(out)
