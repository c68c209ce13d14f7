"""The console command: its jobs, its help, and how its errors begin."""

import subprocess
import sys
from pathlib import Path

import pytest
from job_calls import ROOT

from tiedbert import __version__, cli

SCRIPTS = {path.stem for path in (ROOT / "scripts").glob("*.py")} - {
    "demo",
    "demo_data",
}


@pytest.fixture(autouse=True)
def _called(monkeypatch):
    """`main` names the program in sys.argv."""
    monkeypatch.setattr(sys, "argv", ["tiedbert"])


def ended(capsys, *arguments):
    """The exit status of the command, its stdout and stderr."""
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    printed = capsys.readouterr()
    return end.value.code or 0, printed.out, printed.err


def test_every_script_is_a_job():
    assert {job.replace("-", "_") for job in cli.JOBS} == SCRIPTS | {"surgery"}
    for job, (module, _) in cli.JOBS.items():
        if job != "surgery":
            name = job.replace("-", "_")
            script = (ROOT / "scripts" / f"{name}.py").read_text(encoding="utf-8")
            assert f"from {module} import main\n" in script


def test_help_lists_the_jobs_and_does_not_wait_for_tensorflow(tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('was imported')")
    command = [sys.executable, "-m", "tiedbert", "--help"]
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: tiedbert [-h] [--version] JOB ")
    for job, (_, line) in cli.JOBS.items():
        assert f"\n  {job} ".rstrip() in done.stdout
        assert line in done.stdout


def test_the_version(capsys):
    assert ended(capsys, "--version") == (0, f"tiedbert {__version__}\n", "")


@pytest.mark.parametrize("job", [job for job in cli.JOBS if job != "surgery"])
def test_the_help_of_a_job_begins_with_its_command(capsys, job):
    status, text, errors = ended(capsys, job, "--help")
    assert (status, errors) == (0, "")
    assert text.startswith(f"usage: tiedbert {job} [-h] ")
    assert f"\n    tiedbert {job} " in text


def test_surgery_is_a_job(capsys):
    status, text, _ = ended(capsys, "surgery", "--help")
    assert status == 0
    assert text.startswith("usage: tiedbert surgery [-h] ")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "tiedbert: error: the following arguments are required: JOB (see --help)"),
        (["fintune"], "tiedbert: error: argument JOB: invalid choice: 'fintune' "),
        (["--overwrite"], "tiedbert: error: the following arguments are required: JOB"),
        (
            ["pretrain", "--layer", "2"],
            "tiedbert pretrain: error: the following arguments are required: --corpus",
        ),
        (
            ["prepare-corpus", "none.txt", "--output_dir", "new"],
            "tiedbert prepare-corpus: error: none.txt: expected a text file, found",
        ),
        (
            ["surgery", "none.keras"],
            "tiedbert surgery: error: nothing to do: give --list, --cut or --draw",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_the_job(
    capsys, monkeypatch, tmp_path, arguments, line
):
    monkeypatch.chdir(tmp_path)
    status, printed, errors = ended(capsys, *arguments)
    assert (status, printed) == (2, "")
    assert errors.startswith(line)
    assert errors.count("\n") == 1
    assert list(Path(tmp_path).iterdir()) == []
