"""The console command ``tiedbert``: the jobs of this package by name.

The module of a job is imported when the job is called, so that ``tiedbert --help`` does
not wait for TensorFlow.
"""

import importlib
import sys
from collections.abc import Sequence

from tiedbert import __version__
from tiedbert.command import parser, quiet_import, run

# Job -> its module, which has a function `main(argv)`, and its help line.
JOBS = {
    "prepare-corpus": (
        "tiedbert.jobs.prepare_corpus",
        "turn plain text into a corpus of token ids",
    ),
    "pretrain": (
        "tiedbert.jobs.pretrain",
        "pretrain a tied masked language model on a corpus",
    ),
    "finetune": (
        "tiedbert.jobs.finetune",
        "fine-tune it as a text classifier, plainly or adversarially",
    ),
    "evaluate": (
        "tiedbert.jobs.evaluate",
        "measure the clean and robust accuracy of classifiers",
    ),
    "compare": (
        "tiedbert.jobs.compare",
        "compare methods of adversarial training at equal compute",
    ),
    "surgery": (
        "tiedbert.surgery.command_line",
        "list the cut points of a saved Keras model, cut it, draw it",
    ),
}


def description() -> str:
    """The text of ``tiedbert --help``, with a line a job."""
    lines = [f"  {name:<16}{line}" for name, (_, line) in JOBS.items()]
    return "\n".join(
        [
            "Train BERTs on your own text, attack them, and cut Keras models.",
            "",
            "jobs (`tiedbert JOB --help` shows the options of a job):",
            *lines,
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job that the first argument names, with the other arguments.

    Args:
        argv: the arguments; None for those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    sys.argv[0] = "tiedbert"  # the name in messages; python -m has a path there
    command = parser(description())
    command.usage = "tiedbert [-h] [--version] JOB [ARGUMENT ...]"
    command.add_argument(
        "--version", action="version", version=f"tiedbert {__version__}"
    )
    command.add_argument("job", metavar="JOB", choices=JOBS, help="one of these jobs")
    job = command.parse_args(arguments[:1]).job
    sys.argv[0] = f"tiedbert {job}"
    run(lambda: _main_of(job)(arguments[1:]))


def _main_of(job):
    """The function of a job; its module may import TensorFlow."""
    with quiet_import():
        return importlib.import_module(JOBS[job][0]).main
