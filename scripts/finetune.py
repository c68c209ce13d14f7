"""Fine-tune a pretrained model as a text classifier, plainly or adversarially.

    python scripts/finetune.py --pretrained runs/pretrain --train train.tsv \\
        --validation validation.tsv --output_dir runs/classifier --adversary fgm

At the demo's size about a minute for three epochs of 12,000 reviews on two CPU cores, a
minute and a half with FGM. The last line is like

    runs/classifier: best validation accuracy 0.8521, 92 s

The same as `tiedbert finetune`; --help shows the options and the files written.
"""

from tiedbert.command import run
from tiedbert.jobs.finetune import main

if __name__ == "__main__":
    run(main)
