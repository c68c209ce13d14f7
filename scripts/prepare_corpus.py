"""Turn plain text into a corpus of token ids for pretraining.

    python scripts/prepare_corpus.py texts.txt --output_dir runs/corpus

About half a minute for 9 MB of Chinese on two CPU cores, nearly all of it to train the
tokenizer. The last line is like

    runs/corpus: 36,894 documents, 2,206,534 tokens, 35,610 sequences, 29 s, 0.3 MB/s

The same as `tiedbert prepare-corpus`; --help shows the options and the files written.
"""

from tiedbert.command import run
from tiedbert.jobs.prepare_corpus import main

if __name__ == "__main__":
    run(main)
