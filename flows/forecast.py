"""How long a graph of jobs will take: the schedule is played through with what each job is expected to take."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.core.threads import speed_up


@dataclass(frozen=True)
class Planned:
    """A job that is not finished.

    Attributes:
        seconds: on one thread.
        threads: that it will get, or has.
        voxels: of the images that it works on.
        needs: names of the unfinished jobs that come before it.
    """

    seconds: float
    threads: int
    voxels: int
    needs: frozenset[str] = frozenset()

    @property
    def takes(self) -> float:
        return self.seconds / speed_up(self.threads, self.voxels)


def levels(jobs: Mapping[str, Planned]) -> dict[str, float]:
    """Seconds from each job's start to the end of the longest chain of jobs that begins with it."""
    after: dict[str, list[str]] = {name: [] for name in jobs}
    for name, job in jobs.items():
        for need in job.needs:
            after[need].append(name)
    found: dict[str, float] = {}
    for name in reversed(_in_order(jobs)):
        found[name] = jobs[name].takes + max((found[one] for one in after[name]), default=0.0)
    return found


def makespan(jobs: Mapping[str, Planned], workers: int, cores: int) -> float:
    """Seconds until all `jobs` are done, the longest chains first, on so many cores and in so many processes."""
    level = levels(jobs)
    waiting, done = dict(jobs), set[str]()
    running: list[tuple[float, str]] = []
    now, idle = 0.0, cores
    while waiting or running:
        ready = sorted((name for name, job in waiting.items() if job.needs <= done), key=lambda name: -level[name])
        for name in ready:
            if len(running) < workers and (jobs[name].threads <= idle or not running):
                idle -= jobs[name].threads
                heapq.heappush(running, (now + waiting.pop(name).takes, name))
        now, name = heapq.heappop(running)
        idle += jobs[name].threads
        done.add(name)
    return now


def _in_order(jobs: Mapping[str, Planned]) -> list[str]:
    """Names, each after those that it needs."""
    found: dict[str, None] = {}
    waiting = list(jobs)
    while waiting:
        ready = [name for name in waiting if jobs[name].needs <= found.keys()]
        found |= dict.fromkeys(ready)
        waiting = [name for name in waiting if name not in found]
    return list(found)
