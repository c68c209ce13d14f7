"""Clean and robust accuracy of fine-tuned classifiers, and a picture of them.

    python scripts/evaluate.py runs/classifier --data test.tsv \\
        --output_dir runs/evaluation --attack pgd

At the demo's size about 20 s a run for 3,400 reviews and four radii on two CPU cores by
the fast gradient method (fgm), and some minutes by ten steps of projected gradient
descent from three random starts (pgd). Prints a line a run, like

    runs/classifier: epsilon 0 accuracy 0.8464, epsilon 0.5 accuracy 0.7891, ...

The same as `tiedbert evaluate`; --help shows the options and the files written.
"""

from tiedbert.command import run
from tiedbert.jobs.evaluate import main

if __name__ == "__main__":
    run(main)
