"""``python -m tiedbert``: see :mod:`tiedbert.cli`."""

from tiedbert.cli import main

if __name__ == "__main__":
    main()
