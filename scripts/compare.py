"""Compare methods of adversarial training at equal compute, over several seeds.

    python scripts/compare.py --pretrained runs/pretrain --train train.tsv \\
        --validation validation.tsv --test test.tsv --output_dir runs/comparison

On two CPU cores at the demo's size, with 6 epochs of 12,000 reviews, about 3 minutes of
training and 3 of attacks for each method and seed. Prints a line for each, like

    1/39 none, seed 0: epsilon 0 accuracy 0.8461, epsilon 0.5 accuracy 0.7152, ...

and in the end the report.md that it wrote: accuracies, differences with p-values, cost.

The same as `tiedbert compare`; --help shows the options and the files written.
"""

from tiedbert.command import run
from tiedbert.jobs.compare import main

if __name__ == "__main__":
    run(main)
