"""What this process uses of the machine, for the records."""

from __future__ import annotations

import resource
import sys


def used_threads() -> int:
    """Threads that torch computes with; 1 where it is not loaded."""
    torch = sys.modules.get("torch")
    return 1 if torch is None else int(torch.get_num_threads())


def peak_mib() -> float:
    """The most memory that this process has held, in MiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most / (2**20 if sys.platform == "darwin" else 2**10), 1)
