"""examples/adversarial_keras_hub.py on English text that every Python has: its help."""

import os
import re
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "adversarial_keras_hub.py"
TOPICS = {"methods": "specialnames", "statements": "compound"}


def test_the_classifier_learns_under_attack(tmp_path):
    """Is a paragraph about special methods, or about statements?"""
    table = tmp_path / "table.tsv"
    rows = [
        f"{label}\t{' '.join(paragraph.split())}"
        for label, topic in TOPICS.items()
        for paragraph in topics[topic].split("\n\n")
        if paragraph.strip()
    ]
    table.write_text("\n".join(["label\ttext", *rows]), encoding="utf-8")
    command = [sys.executable, "-W", "error", EXAMPLE, table, "--texts", "100"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    place, *_, last = done.stdout.splitlines()[-4:]
    assert re.fullmatch(r"perturbed at \w+/embeddings_layer_norm", place)
    assert re.fullmatch(r"FGM( +\d+\.\d%){4}", last)
