"""Pretrain a tied masked language model on a prepared corpus.

    python scripts/pretrain.py --corpus runs/corpus --output_dir runs/pretrain

About 0.3 s a step at the default size on two CPU cores. Prints the loss in nats, which
begins at the logarithm of the vocabulary's size, 9.0 for 8,000 tokens; loss.png in
--output_dir shows how it falls. The last line is like

    runs/pretrain: 1000 steps in 312 s

The same as `tiedbert pretrain`; --help shows the options and the files written.
"""

from tiedbert.command import run
from tiedbert.jobs.pretrain import main

if __name__ == "__main__":
    run(main)
