"""What the scripts share: how options look and how errors end."""

import argparse
import os
import sys

from tiedbert.errors import InputError


class _Formatter(
    argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter
):
    """Defaults after each option; the script's docstring as it is written."""

    def _get_help_string(self, action):
        if action.default in (None, False):
            return action.help
        return super()._get_help_string(action)


def parser(description) -> argparse.ArgumentParser:
    """A parser that shows defaults and takes no abbreviated options."""
    return argparse.ArgumentParser(
        description=description, formatter_class=_Formatter, allow_abbrev=False
    )


def positive_int(text) -> int:
    """An argparse type: a whole number above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0, received {text}")
    return value


def non_negative_float(text) -> float:
    """An argparse type: a number of at least zero."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number >= 0, received {text}")
    return value


def run(main):
    """Run a script's `main`; a user's mistake ends in one line and exit status 2."""
    try:
        main()
    except (InputError, OSError) as error:
        sys.stdout.flush()
        message = " ".join(str(error).split())
        print(f"{os.path.basename(sys.argv[0])}: error: {message}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
