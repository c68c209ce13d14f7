"""Candidates in a process of another Keras, to be timed in turn with those here.

One process cannot hold both Kerases. A script that serves calls :func:`serve` with its
candidates in the other one; the script that measures has them as an :class:`Other`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any


class Other:
    """A process of this script in Keras 2 that runs candidates when it is asked to.

    Args:
        *arguments: of the command line, for the script that serves.

    Attributes:
        candidates: dict, name -> function without arguments that waits for its result.
    """

    def __init__(self, *arguments: str) -> None:
        keras_2 = {"TF_USE_LEGACY_KERAS": "1", "TF_KERAS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, sys.argv[0], *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **keras_2},
        )
        names = self._answer()
        self.candidates = {name: self._candidate(name) for name in names}

    def _candidate(self, name) -> Callable[[], Any]:
        def run():
            print(json.dumps(name), file=self._process.stdin, flush=True)
            return self._answer()

        return run

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"the process of Keras 2 ended with {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()


def serve(candidates: Mapping[str, Callable[[], Any]]) -> None:
    """Run the candidates whose names come in, until no more come."""
    print(json.dumps(list(candidates)), flush=True)
    for line in sys.stdin:
        print(json.dumps(candidates[json.loads(line)]()), flush=True)
