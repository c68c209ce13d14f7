"""Clean and robust accuracy of fine-tuned classifiers, and a picture of them.

    python scripts/evaluate.py runs/classifier --data test.tsv \\
        --output_dir runs/evaluation

Perturbs the activations at a cut point by the fast gradient method, within an L2
radius per text, and counts right answers. Several runs are drawn into one picture.
Writes into --output_dir: config.json, results.json and robustness.png. At the demo's
size about 20 s a run for 3,400 reviews and four radii on two CPU cores.
"""

import time
from pathlib import Path

from tiedbert.command import (
    non_negative_float,
    parser,
    positive_int,
    quiet_import,
    run,
)
from tiedbert.plots import check_matplotlib, plot_curves
from tiedbert.runs import check_run, open_run, read_run, write_json
from tiedbert.text import labelled
from tiedbert.text.documents import ENCODING_ERRORS

EPSILONS = [0.0, 0.5, 1.0, 2.0]


def options():
    """The command line."""
    command = parser(__doc__)
    add = command.add_argument
    add("runs", nargs="+", type=Path, help="runs of scripts/finetune.py")
    add("--data", required=True, type=Path, help="labelled text: TSV or CSV")
    add("--output_dir", required=True, type=Path, help="folder to write")
    add("--epsilons", nargs="+", type=non_negative_float, default=EPSILONS,
        help="L2 radii per text; 0 is clean")  # fmt: skip
    add("--at", default="Embedding-Norm", help="layer whose output is perturbed")
    add("--batch_size", type=positive_int, default=64, help="texts a step")
    add("--max_length", type=positive_int, default=128, help="tokens a text")
    add("--errors", choices=ENCODING_ERRORS, default="strict",
        help="what to do with bytes that are not UTF-8")  # fmt: skip
    add("--overwrite", action="store_true", help="replace what is in --output_dir")
    return command.parse_args()


def robustness_of(run_folder, texts, labels, args) -> list:
    """``(epsilon, accuracy)`` of one run."""
    from tensorflow import keras

    from tiedbert import robustness
    from tiedbert.adversarial import FGM, except_tokens
    from tiedbert.saved_models import check_length, load_classifier

    model, names, tokenizer = load_classifier(run_folder)
    check_length(model, args.max_length)
    labelled.check_same_labels({run_folder: names, args.data: labels})
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    dataset = labelled.classification_dataset(
        texts,
        labelled.label_ids(labels, names),
        tokenizer,
        args.batch_size,
        args.max_length,
    )
    positions = except_tokens(tokenizer.special_ids)
    return robustness.curve(model, dataset, args.at, FGM(), args.epsilons, positions)


def titles(run_folders) -> list:
    """The last part of each path, or the whole path where two of those are the same."""
    last = [Path(folder).name for folder in run_folders]
    return last if len(set(last)) == len(last) else list(run_folders)


def main():
    """Evaluate every run, then write."""
    args = options()
    started = time.perf_counter()
    inputs = [*args.runs, args.data]
    check_matplotlib()
    check_run("evaluate", vars(args), inputs)
    for run_folder in args.runs:
        read_run(run_folder, "finetune")
    texts, labels = labelled.read_labelled(args.data, args.errors)
    with quiet_import():
        import tiedbert.bert  # noqa: F401  (first: it chooses legacy Keras)
    curves = {}
    for run_folder in args.runs:
        curves[str(run_folder)] = robustness_of(run_folder, texts, labels, args)
        print(
            f"{run_folder}:",
            ", ".join(
                f"epsilon {e:g} accuracy {a:.4f}" for e, a in curves[str(run_folder)]
            ),
            flush=True,
        )
    folder = open_run("evaluate", vars(args), inputs)
    write_json(folder / "results.json", curves)
    plot_curves(
        dict(zip(titles(curves), curves.values(), strict=True)),
        folder / "robustness.png",
    )
    print(f"{folder}: {len(texts)} texts, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    run(main)
