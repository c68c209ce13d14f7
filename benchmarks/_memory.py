"""The memory of this process, as Linux counts it."""

import ctypes
from pathlib import Path


def status(field):
    """A field of /proc/self/status, in KB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def give_back():
    """Give the memory that is free within this process back to the system."""
    ctypes.CDLL(None).malloc_trim(0)


def peak_beyond(run):
    """Megabytes that the first call of a function needs beyond what is held."""
    give_back()
    before = status("VmRSS")
    run()
    return (status("VmHWM") - before) / 1024
