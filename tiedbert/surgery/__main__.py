"""``python -m tiedbert.surgery``: see `command_line`."""

import sys

from tiedbert.command import run
from tiedbert.surgery.command_line import main

if __name__ == "__main__":
    sys.argv[0] = "tiedbert.surgery"  # The name in messages, not "__main__.py".
    run(main)
