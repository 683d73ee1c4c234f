"""Times of rivals, taken in turn in one process, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Seconds:
    """Of one call: of the clock, and of processors (all threads)."""

    wall: float
    cpu: float


def timed(call: Callable[[], object]) -> Seconds:
    """One call; it ends when the GPU, if there is one, has done what it was told."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def in_turn(rivals: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[Seconds]]:
    """Each rival once a round, the order reversed in every other one; a first round warms up and does not count."""
    found: dict[str, list[Seconds]] = {name: [] for name in rivals}
    for number in range(-1, rounds):
        for name in list(rivals)[:: 1 if number % 2 else -1]:
            seconds = timed(rivals[name])
            if number >= 0:
                found[name].append(seconds)
    return found


def ratio(ours: Sequence[Seconds], theirs: Sequence[Seconds], kind: str = "cpu") -> str:
    """Median of the rounds' ratios with the least and the largest, such as `0.44 (0.42 to 0.47)`; `kind`: cpu, wall."""
    found = [getattr(a, kind) / max(getattr(b, kind), 1e-9) for a, b in zip(ours, theirs, strict=True)]
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def median(found: Sequence[Seconds], kind: str = "cpu") -> float:
    return statistics.median(getattr(one, kind) for one in found)


def clock() -> str:
    """What ratios are taken of: a GPU works while the processor waits."""
    return "wall" if torch.cuda.is_available() else "cpu"
