"""What work is expected to cost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from pipeline.core.threads import available_cores, speed_up


@dataclass(frozen=True)
class CostEstimate:
    """Expected cost of a piece of work on this machine: floating-point operations, minutes, MiB at its peak."""

    flops: float
    minutes: float
    mib: float


MEASURED_S = 0.2
"""Seconds of computing, about, that each of a few measurements may take."""
_FEWEST = 2


class FlopCount(TorchDispatchMode):
    """Counts the floating-point operations of what runs in its `with` block, forward and backward.

    By torch's own formulas. Its `FlopCounterMode` follows modules with hooks that gradient penalties do not allow.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


@dataclass(frozen=True)
class StepCost:
    """Of one training step: floating-point operations, and seconds on one thread (or on the GPU)."""

    flops: float
    seconds: float


def step_cost(make: Callable[[int], Callable[[], object]], batch: int, device: str) -> StepCost:
    """Counted and timed on one thread, on two images and on as many as MEASURED_S has time for; the line through both
    gives `batch`, and no more than in proportion. Where two images take longer than that, the step is in proportion.

    On a CPU the time is the process's own, so that a busy machine does not look like a slow one.

    Args:
        make: number of images, at least 2 -> what does one step on them.
        batch: images of the step that is asked about.
    """
    import torch._dynamo  # noqa: F401  (optimisers import it at their first step, which would be timed)

    with one_thread():
        few = _measured(make(_FEWEST), device)
        if few.seconds > MEASURED_S:
            return StepCost(few.flops * batch / _FEWEST, few.seconds * batch / _FEWEST)
        images = min(batch, max(2 * _FEWEST, int(2 * _FEWEST * MEASURED_S / few.seconds)))
        many = few if images == _FEWEST else _measured(make(images), device)
    further = (batch - images) / max(images - _FEWEST, 1)
    line = many.seconds + further * max(many.seconds - few.seconds, 0.0)
    return StepCost(many.flops + further * (many.flops - few.flops), min(line, many.seconds * batch / images))


def wall_minutes(seconds: float, fits: int, device: str, voxels: int) -> float:
    """Minutes that `fits` fits of so many seconds on one thread take on this machine's cores, or one after the other
    on a GPU. They run side by side, one thread each; where there are fewer fits than cores, with an equal share.

    Args:
        voxels: of an image.
    """
    if device != "cpu":
        return seconds * fits / 60
    cores = available_cores()
    threads = max(1, cores // max(fits, 1))
    return seconds / speed_up(threads, voxels) * math.ceil(fits / cores) / 60


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread in the `with` block, and afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measured(step: Callable[[], object], device: str) -> StepCost:
    """A first step is counted; it is slow, so further ones are timed, unless it took far longer than they may."""
    started = _clock(device)
    with FlopCount() as counter:
        step()
    first = _clock(device) - started
    return StepCost(float(counter.total), first if first > 4 * MEASURED_S else seconds_of(step, device))


def seconds_of(step: Callable[[], object], device: str) -> float:
    """Seconds of a step: the least of as many as MEASURED_S has time for, and of at least one."""
    times: list[float] = []
    while not times or sum(times) < MEASURED_S:
        started = _clock(device)
        step()
        times.append(_clock(device) - started)
    return min(times)


def _clock(device: str) -> float:
    """Seconds: of this process's computing on a CPU; of time, with the device's work done, elsewhere."""
    if device == "cpu":
        return time.process_time()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
