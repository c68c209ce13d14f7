"""examples/minilm_masked_lm.py on English text that is in every Python: its help."""

import re
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

import transformers

EXAMPLE = Path(__file__).parents[2] / "examples" / "minilm_masked_lm.py"


def test_it_learns_and_what_it_writes_is_loaded(tmp_path):
    text, folder = tmp_path / "text.txt", tmp_path / "folder"
    text.write_text("\n".join(topics.values()), encoding="utf-8")
    command = [sys.executable, "-W", "error", EXAMPLE, text, folder, "--steps", "30"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    losses = re.search(r"lines: (\S+) before, (\S+) after", done.stdout)
    before, after = map(float, losses.groups())
    assert before > 9
    assert after < before - 2, "what a shifted or shuffled head never learns"
    theirs, notes = transformers.BertForMaskedLM.from_pretrained(
        folder, output_loading_info=True
    )
    assert not notes["missing_keys"] | notes["unexpected_keys"]
    fill = transformers.pipeline("fill-mask", model=str(folder), top_k=2)
    assert len(fill("The function returns a new [MASK].")) == 2
    assert theirs.config.vocab_size == 30522


def test_a_text_that_is_too_short_is_said_so(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("One line.\nAnd another one.\n")
    command = [sys.executable, EXAMPLE, text, tmp_path / "folder"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "the text is too short: 1 lines fill no batch" in done.stderr
