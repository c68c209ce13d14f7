"""What the scripts share: how options look, how errors end, how TensorFlow starts."""

import argparse
import contextlib
import os
import signal
import sys
import warnings

from tiedbert.errors import InputError

# For `fit`: a moving bar where somebody watches, a line an epoch in a file.
VERBOSITY = 1 if sys.stdout.isatty() else 2


class _Formatter(
    argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter
):
    """Defaults after each option; the script's docstring as it is written."""

    def _get_help_string(self, action):
        if action.default is None or action.default is False:  # 0 is worth showing
            return action.help
        return super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        """End a wrong command line as every other mistake ends: in one line."""
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def parser(description) -> argparse.ArgumentParser:
    """A parser that shows defaults and takes no abbreviated options."""
    return _Parser(
        description=description, formatter_class=_Formatter, allow_abbrev=False
    )


def positive_int(text) -> int:
    """An argparse type: a whole number above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0, received {text}")
    return value


def seed(text) -> int:
    """An argparse type: a seed that numpy takes."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(
            f"expected a number from 0 to 2**32 - 1, received {text}"
        )
    return value


def non_negative_float(text) -> float:
    """An argparse type: a number of at least zero."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number >= 0, received {text}")
    return value


def share(text) -> float:
    """An argparse type: a number of at least 0 and below 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected 0 <= share < 1, received {text}")
    return value


@contextlib.contextmanager
def quiet_import():
    """Import TensorFlow inside, without its start-up notes on stderr.

    Some of them are written before TensorFlow reads its own switch. With
    ``TF_CPP_MIN_LOG_LEVEL=0`` in the environment all are shown.
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


def run(main):
    """Run a script's `main`; a user's mistake ends in one line and exit status 2."""
    warnings.formatwarning = _one_line
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read the output has gone (`| head`): end as the signal would.
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
    return f"{os.path.basename(sys.argv[0])}: {what}: {text}"


def _one_line(message, category, filename, lineno, line=None):
    """A warning as an error ends: where in our code it was found is of no use."""
    return f"{_line('warning', message)}\n"
