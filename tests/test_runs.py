"""Run directories: nothing is lost that nobody asked to lose."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tiedbert.errors import InputError
from tiedbert.jobs import runs
from tiedbert.jobs.runs import check_run, open_run, read_metrics, read_run
from tiedbert.text.files import write_json

OPTIONS = {"steps": 3, "overwrite": False, "resume": False}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def options(folder, **changes):
    return {"output_dir": folder, **OPTIONS, **changes}


def files(folder):
    """Path -> content of everything in a folder."""
    found = {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}
    return {path.relative_to(folder): content for path, content in found.items()}


@pytest.fixture
def old_run(folder):
    open_run("pretrain", options(folder))
    (folder / "model").mkdir()
    (folder / "model" / "weights").write_text("precious")
    return folder


def test_a_new_run_holds_its_resolved_options(folder):
    given = options(folder / "deep", texts=[Path("a"), Path("b")], pair=(1, 2.5))
    assert open_run("prepare_corpus", given) == folder / "deep"
    assert json.loads((folder / "deep" / "config.json").read_text()) == {
        "tiedbert_run": "prepare_corpus",
        "output_dir": str(folder / "deep"),
        **OPTIONS,
        "texts": ["a", "b"],
        "pair": [1, 2.5],
    }


def test_an_empty_folder_is_as_good_as_none(folder):
    folder.mkdir()
    open_run("pretrain", options(folder))
    assert read_run(folder, "pretrain")["steps"] == 3


@pytest.mark.parametrize(
    ("has_resume", "choices"),
    [(True, "--resume or --overwrite"), (False, "--overwrit")],
)
def test_a_folder_in_use_is_refused_with_the_choices(old_run, has_resume, choices):
    given = options(old_run)
    if not has_resume:
        del given["resume"]
    before = files(old_run)
    with pytest.raises(InputError, match=f"is not empty: use {choices}"):
        open_run("pretrain", given)
    assert files(old_run) == before


def test_overwrite_replaces_a_run(old_run):
    open_run("finetune", options(old_run, overwrite=True))
    left = sorted(path.name for path in old_run.iterdir())
    assert left == [".lock", "config.json"]
    assert read_run(old_run, "finetune")["overwrite"] is True


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("thesis.txt", "precious", "is not a run directory: it has no config.json"),
        ("config.json", '{"model": 1}', "expected a tiedbert run, found another file"),
        ("config.json", "[]", "expected a tiedbert run, found another file"),
        ("config.json", "{", "cannot be read"),
        ("config.json", "\x80", "cannot be read"),
    ],
)
def test_overwrite_leaves_what_is_not_a_run(folder, name, content, message):
    folder.mkdir()
    (folder / name).write_bytes(content.encode("latin-1"))
    before = files(folder)
    with pytest.raises(InputError, match=message):
        open_run("pretrain", options(folder, overwrite=True))
    assert files(folder) == before


@pytest.mark.parametrize("inside", ["", "model/weights"])
def test_overwrite_leaves_a_run_that_holds_an_input(old_run, inside, monkeypatch):
    before = files(old_run)
    monkeypatch.chdir(old_run.parent)
    inputs = [Path("elsewhere"), Path("run") / inside]
    with pytest.raises(InputError, match="--overwrite would remove run"):
        open_run("pretrain", options(old_run, overwrite=True), inputs)
    assert files(old_run) == before


def test_an_input_beside_the_run_is_no_hindrance(old_run):
    beside = old_run.with_name("run2")
    open_run("pretrain", options(old_run, overwrite=True), [beside, old_run.parent])


def test_a_file_is_not_a_folder_to_write_to(folder):
    folder.write_text("precious")
    with pytest.raises(InputError, match="run is a file: name a folder"):
        open_run("pretrain", options(folder, overwrite=True))
    with pytest.raises(InputError, match="run is a file: name a folder"):
        check_run("pretrain", options(folder / "below"))
    assert folder.read_text() == "precious"


def test_resume_goes_on_with_the_same_options(old_run):
    before = files(old_run)
    assert open_run("pretrain", options(old_run, resume=True)) == old_run
    assert files(old_run) == before


def test_resume_of_nothing_is_a_new_run(folder):
    open_run("pretrain", options(folder, resume=True))
    assert read_run(folder)["steps"] == 3


def test_resume_with_other_options_names_them(folder):
    open_run("pretrain", options(folder, corpus=Path("a"), seed=0))
    given = options(folder, corpus=Path("b"), seed=0, steps=4, resume=True)
    changed = "with other options: --steps was 3, is 4; --corpus was 'a', is 'b'$"
    with pytest.raises(InputError, match=changed):
        open_run("pretrain", given)


def test_resume_of_another_job_is_refused(old_run):
    with pytest.raises(InputError, match="expected a run of finetune, found pretrain"):
        open_run("finetune", options(old_run, resume=True))


@pytest.mark.parametrize(
    "changes", [{}, {"resume": True, "steps": 4}, {"overwrite": True}]
)
def test_check_run_tells_the_same_and_changes_nothing(old_run, changes):
    before = files(old_run)
    given = options(old_run, **changes), [old_run / "model"]
    with pytest.raises(InputError) as told:
        check_run("pretrain", *given)
    with pytest.raises(InputError) as raised:
        open_run("pretrain", *given)
    assert str(told.value) == str(raised.value)
    assert files(old_run) == before


def test_check_run_makes_no_folder(folder):
    check_run("pretrain", options(folder))
    assert not folder.exists()


def test_what_is_not_a_run_cannot_be_read_as_one(tmp_path):
    with pytest.raises(InputError, match="nowhere is not a run directory"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is not a run directory"):
        read_run(tmp_path / "file")


def test_metrics_come_back_line_by_line(folder):
    folder.mkdir()
    assert runs.read_metrics(folder) == []
    lines = [{"step": 1, "loss": 0.1}, {"step": 2, "loss": 1e-30}]
    for line in lines:
        runs.append_metrics(folder, line)
    assert runs.read_metrics(folder) == lines


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_only_the_metrics_of_saved_epochs_are_kept(folder, kept):
    folder.mkdir()
    for step in (1, 2):
        runs.append_metrics(folder, {"step": step})
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "lo')  # killed here
    runs.keep_metrics(folder, min(kept, 2))
    assert runs.read_metrics(folder) == [{"step": 1}, {"step": 2}][:kept]


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, {"名": 1})
    assert path.read_text(encoding="utf-8") == '{\n  "名": 1\n}\n'
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(path, {"名": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"名": 1}
    assert os.listdir(tmp_path) == ["results.json"]


def test_two_processes_cannot_write_one_run(tmp_path):
    """The second is refused while the first lives, and let in when it has died."""
    code = (
        "import sys; from tiedbert.jobs.runs import open_run;"
        f"open_run('job', {{'output_dir': {str(tmp_path / 'run')!r}, 'resume': True}});"
        "print('open', flush=True); sys.stdin.read()"
    )
    options = {"output_dir": str(tmp_path / "run"), "resume": True}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout.readline() == b"open\n"
        with pytest.raises(InputError, match="in use by another process"):
            open_run("job", options)
        first.kill()
    assert open_run("job", options) == tmp_path / "run"


def test_a_torn_line_of_metrics_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epo')
    with pytest.raises(InputError, match="metrics.jsonl cannot be read"):
        read_metrics(tmp_path)
