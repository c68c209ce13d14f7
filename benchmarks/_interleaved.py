"""Timing of alternatives in turn, so that a machine that drifts is fair to all."""

import platform
import statistics
import time
import warnings
from pathlib import Path

import tensorflow as tf

# Tables are all that is printed: these scripts trace many functions on purpose, and
# bert4keras hands one initializer to several weights (`tiedbert.bert` does not).
tf.get_logger().setLevel("ERROR")
warnings.filterwarnings("ignore", "The initializer .* is unseeded")


def measure(candidates, repetitions):
    """Call the candidates in turn.

    Args:
        candidates: dict name -> function without arguments that waits for its result.
        repetitions: timed rounds, after two that are not.

    Returns:
        dict name -> list of seconds.
    """
    seconds = {name: [] for name in candidates}
    for round_number in range(repetitions + 2):
        for name, candidate in candidates.items():
            started = time.perf_counter()
            candidate()
            if round_number >= 2:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def print_table(seconds, title):
    """Median and minimum of each, and the ratios to the first."""
    first = next(iter(seconds.values()))
    print(f"{title} ({machine()})")
    print(f"{'':<40} {'median ms':>9} {'min ms':>9} {'ratio':>7} {'of min':>7}")
    for name, values in seconds.items():
        median, least = statistics.median(values), min(values)
        print(
            f"{name:<40} {1000 * median:9.1f} {1000 * least:9.1f} "
            f"{median / statistics.median(first):7.3f} {least / min(first):7.3f}"
        )


def machine() -> str:
    """The processor, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return f"{names[0] if names else platform.machine()}, {len(names)} cores"
