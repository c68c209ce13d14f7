"""The conventions of scripts: options, errors, a quiet start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tiedbert import command

ROOT = Path(__file__).parents[1]


def script(tmp_path, body):
    """A script whose `main` is `body`; what it does when it is run."""
    path = tmp_path / "job.py"
    path.write_text(
        "import os, sys, signal\n"
        "from tiedbert.command import *\n"
        "from tiedbert.command import run\n"
        "from tiedbert.errors import InputError\n"
        f"def main():\n    {body}\n"
        "run(main)\n"
    )
    return [sys.executable, path]


def run(tmp_path, body, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = script(tmp_path, body)
    return subprocess.run(
        process, capture_output=True, text=True, env=environment, **options
    )


@pytest.fixture
def parser():
    parser = command.parser("What it does.\n\n    python job.py --steps 3\n")
    parser.prog = "job.py"
    parser.add_argument("--steps", type=command.positive_int, default=7, help="count")
    parser.add_argument("--rate", type=command.fraction, default=0.0, help="fraction")
    parser.add_argument("--radius", type=command.non_negative_float, help="L2 norm")
    parser.add_argument("--resume", action="store_true", help="go on")
    return parser


def test_help_shows_defaults_but_none_that_say_nothing(parser):
    text = parser.format_help()
    assert "count (default: 7)" in text
    assert "fraction (default: 0.0)" in text
    assert "go on\n" in text
    assert "L2 norm\n" in text


def test_help_keeps_the_lines_of_the_docstring(parser):
    assert "What it does.\n\n    python job.py --steps 3\n" in parser.format_help()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "3"], "unrecognized arguments: --epochs 3"),
        (["--step", "3"], "unrecognized arguments: --step 3"),
        (["--steps", "0"], "--steps: expected a number above 0, received 0"),
        (["--steps", "1.5"], "--steps: invalid positive_int value: '1.5'"),
        (["--rate", "1"], "--rate: expected 0 <= fraction < 1, received 1"),
        (["--rate", "-0.1"], "--rate: expected 0 <= fraction < 1, received -0.1"),
        (["--rate", "nan"], "--rate: expected 0 <= fraction < 1, received nan"),
        (["--radius", "-1"], "--radius: expected a number >= 0, received -1"),
        (["--radius", "inf"], "--radius: expected a number >= 0, received inf"),
    ],
)
def test_a_wrong_option_ends_in_one_line(parser, capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        parser.parse_args(arguments)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("job.py: error: ")
    assert error.endswith(f"{message} (see --help)\n")
    assert error.count("\n") == 1


def test_right_options_are_numbers(parser):
    args = parser.parse_args(["--steps", "2", "--rate", "0.9", "--radius", "1e3"])
    assert (args.steps, args.rate, args.radius) == (2, 0.9, 1000.0)


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("raise InputError('two\\nlines')", "two lines"),
        ("open('/nowhere/x')", "No such file or directory: '/nowhere/x'"),
        ("raise PermissionError(13, 'Permission denied', 'x')", "denied: 'x'"),
    ],
)
def test_a_users_mistake_ends_in_one_line_and_status_2(tmp_path, body, line):
    done = run(tmp_path, f"print('so far'); {body}")
    assert (done.returncode, done.stdout) == (2, "so far\n")
    assert done.stderr.startswith("job.py: error: ")
    assert done.stderr.endswith(f"{line}\n")
    assert done.stderr.count("\n") == 1


def test_a_warning_is_one_line(tmp_path):
    done = run(tmp_path, "import warnings; warnings.warn('two\\nlines')")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "job.py: warning: two lines\n"


@pytest.mark.parametrize("error", ["ValueError", "RuntimeError"])
def test_a_mistake_of_ours_keeps_its_traceback(tmp_path, error):
    done = run(tmp_path, f"raise {error}('ours')")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert done.stderr.splitlines()[-1] == f"{error}: ours"


def test_success_is_status_0_and_silent(tmp_path):
    done = run(tmp_path, "print('done')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_an_interrupt_is_status_130(tmp_path):
    # A process in the background may have been told to ignore interrupts.
    heed = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    done = run(tmp_path, f"{heed}; os.kill(os.getpid(), signal.SIGINT)")
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize("text", ["few", "much" * 100_000])
def test_a_reader_that_has_gone_is_no_error(tmp_path, text):
    """As in `job.py | true`; little text is written at the end only."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        done = subprocess.run(
            script(tmp_path, f"print({text!r})"),
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert (done.returncode, done.stderr) == (141, "")


NOISE = "os.write(2, b'note\\n')"


@pytest.mark.parametrize(
    ("level", "expected"), [(None, "after\n"), ("2", "after\n"), ("0", "note\nafter\n")]
)
def test_notes_at_the_import_of_tensorflow_are_dropped(
    tmp_path, monkeypatch, level, expected
):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    if level is not None:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    body = (
        f"\n    with quiet_import():\n        {NOISE}\n"
        "    print('after', file=sys.stderr)\n"
        "    print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    )
    done = run(tmp_path, body)
    assert done.stderr == expected
    assert done.stdout == f"{level or 3}\n"


def test_an_error_at_the_import_is_not_dropped(tmp_path):
    body = "\n    with quiet_import():\n        raise InputError('mend it')"
    assert run(tmp_path, body).stderr == "job.py: error: mend it\n"
