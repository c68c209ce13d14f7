"""Command lines: their options, their errors, and how they import TensorFlow."""

import argparse
import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator

from tiedbert.errors import InputError

# For `fit`: a progress bar in a terminal, one line an epoch in a file.
VERBOSITY = 1 if sys.stdout.isatty() else 2


class _Formatter(
    argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter
):
    """Shows the default of each option, and the description as it is written."""

    def _get_help_string(self, action):
        if action.default is None or action.default is False:  # 0 is shown
            return action.help
        return super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        """End in one line, as every other mistake of a user ends."""
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def program() -> str:
    """The name of the program as it was called, with which every message begins."""
    return os.path.basename(sys.argv[0])


def parser(description: str) -> argparse.ArgumentParser:
    """A parser that shows defaults and takes no abbreviated options."""
    return _Parser(
        prog=program(),
        description=description,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )


def positive_int(text: str) -> int:
    """An argparse type: a whole number above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0, received {text}")
    return value


def seed(text: str) -> int:
    """An argparse type: a seed for NumPy, 0 to 2**32 - 1."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(
            f"expected a number from 0 to 2**32 - 1, received {text}"
        )
    return value


def non_negative_float(text: str) -> float:
    """An argparse type: a number of at least zero."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number >= 0, received {text}")
    return value


def fraction(text: str) -> float:
    """An argparse type: a number of at least 0 and below 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected 0 <= fraction < 1, received {text}")
    return value


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Import TensorFlow in this context, without its start-up messages on stderr.

    TensorFlow writes some of them before it reads ``TF_CPP_MIN_LOG_LEVEL``. Set that
    variable to 0 to see all of them.
    """
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0":
        yield
        return
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def run(main: Callable[[], None]) -> None:
    """Call `main` and end the process if it fails.

    A user's mistake (InputError, OSError) ends in one line on stderr and exit status 2,
    an interrupt in status 130, a closed pipe in status 141. Warnings are one line too.
    """
    warnings.formatwarning = _one_line
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output has ended (`| head`): end as the signal would.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except (InputError, OSError) as error:
        sys.stdout.flush()
        print(_line("error", error), file=sys.stderr)
        sys.exit(2)


def _line(what, message) -> str:
    text = " ".join(str(message).split())
    return f"{program()}: {what}: {text}"


def _one_line(message, category, filename, lineno, line=None):
    """Format a warning as one line, without the place in our code."""
    return f"{_line('warning', message)}\n"
