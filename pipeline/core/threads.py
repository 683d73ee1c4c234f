"""How many threads and how much memory a process may take on a machine that others use too.

Threads of a small net that wait for each other on busy cores are slower than one thread: what counts is what is free,
not what is there. A process may be bound to some cores (affinity) or to a share of them (a cgroup's quota, as
containers and Slurm set it), and others may keep them busy. All three are read where work starts, once a fit.
"""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

PROCESS_MIB = 700.0
"""A Python process with torch, MONAI and Prefect loaded."""
_SMALL = 2_000
"""Voxels of an image below which a net's operations hardly outlast the waking of a thread that sleeps."""
_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_MIB = 2**20
_NOT_BUSY = ("idle", "iowait", "guest", "guest_nice")
"""Of a core's times: waiting, and those of its own guests, which are in `user` and `nice` already."""
_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def available_cores() -> int:
    """Cores that this process may use: those it is bound to, and no more than its cgroups' quota (rounded up)."""
    return max(1, math.ceil(min(len(_cores()), _quota())))


def free_cores(interval_s: float = 0.2) -> float:
    """Cores that this process may use and that others leave idle, measured over `interval_s` seconds; at least 0.

    What this process and its descendants keep busy counts as free: it is theirs already.
    """
    own, busy, started = _own_seconds(), _busy_seconds(), time.monotonic()
    time.sleep(interval_s)
    elapsed = time.monotonic() - started
    taken = (_busy_seconds() - busy - max(0.0, _own_seconds() - own)) / elapsed
    return max(0.0, min(available_cores(), len(_cores()) - max(0.0, taken)))


def available_memory_mib() -> int:
    """MiB that a process started now may take without swapping or being killed.

    The least of what the machine has left, what this process's cgroups have left (page cache that the kernel would
    give up counts as left), and the limit of a process's address space (`ulimit -v`), where there is one.
    """
    limits = [psutil.virtual_memory().available, *_left_in_cgroups()]
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space)
    return int(max(0, min(limits))) // _MIB


def choose_threads(workers: int = 1, wanted: int | None = None) -> int:
    """Threads for each of `workers` fits that start now: `wanted` if given, else an equal share of the free cores."""
    if wanted is not None:
        return wanted
    free = math.floor(free_cores() + 0.5)
    return max(1, min(available_cores(), free) // workers)


def speed_up(threads: int, voxels: int) -> float:
    """How much faster than on one thread a small net of images of so many voxels is expected to train.

    Measured on two cores with threads that sleep while they wait: 0.9 to 1.1 on a Xeon and 1.4 to 1.6 on an EPYC at
    32 x 32, 1.4 to 1.5 at 64 x 64, 1.6 to 1.7 at 32 x 32 x 32. The careful number counts: a core that a small net does
    not need trains the classifiers.
    """
    return float(threads ** (0.1 if voxels < _SMALL else 0.6))


def use_threads(number: int) -> None:
    """Let torch and the BLAS libraries of this process, loaded or still to come, compute with `number` threads."""
    os.environ.update(dict.fromkeys(_POOLS, str(number)))  # read by a library when it loads, and by child processes
    from threadpoolctl import threadpool_limits  # looks through every loaded library: only where it is needed

    threadpool_limits(number)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(number)


def _cores() -> set[int]:
    """Numbers of the cores that this process is bound to."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))  # macOS binds nothing


def _busy_seconds() -> float:
    """Seconds since the machine started in which this process's cores were at work, or a host took them."""
    own = _cores()
    times = [one for number, one in enumerate(psutil.cpu_times(percpu=True)) if number in own]
    return sum(sum(one) - sum(getattr(one, name, 0.0) for name in _NOT_BUSY) for one in times)


def _own_seconds() -> float:
    """Seconds of work of this process and all its descendants that still run."""
    total = 0.0
    this = psutil.Process()
    for process in (this, *this.children(recursive=True)):
        with suppress(psutil.Error):  # it ended meanwhile
            spent = process.cpu_times()
            total += spent.user + spent.system
    return total


def _quota() -> float:
    """Cores' worth of time that the tightest of this process's cgroups allows; infinite where none does."""
    quotas = [math.inf]
    for folder in _cgroups("cpu"):
        quota, period = [*_words(folder / "cpu.max"), "", ""][:2]  # version 2: "max 100000" or "150000 100000"
        if not quota:
            quota = "".join(_words(folder / "cpu.cfs_quota_us"))  # version 1: -1 where there is none
            period = "".join(_words(folder / "cpu.cfs_period_us"))
        if quota.isdecimal() and period.isdecimal():
            quotas.append(int(quota) / int(period))
    return min(quotas)


def _left_in_cgroups() -> Iterator[int]:
    """Bytes that each of this process's cgroups with a limit has left."""
    names = (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    )
    for folder in _cgroups("memory"):
        for limit_file, usage_file, cache in names:
            limit, usage = "".join(_words(folder / limit_file)), "".join(_words(folder / usage_file))
            if limit.isdecimal() and usage.isdecimal():
                words = _words(folder / "memory.stat")
                reclaimable = int(dict(zip(words[::2], words[1::2], strict=False)).get(cache, 0))
                yield int(limit) - int(usage) + reclaimable


def _cgroups(controller: str) -> Iterator[Path]:
    """Folders of the cgroups, of either version, that bound this process by `controller`: its own and those around it.

    A container sees its own cgroup as the root, whatever path the kernel names: that folder is always among them.
    """
    with suppress(OSError):  # no Linux
        for line in _MEMBERSHIP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            root = _CGROUPS / controllers
            place = root / path.lstrip("/")
            yield from (folder for folder in (place, *place.parents) if folder.is_relative_to(root))


def _words(path: Path) -> list[str]:
    """Of a small file of the kernel's; none where it is not there."""
    try:
        return path.read_text().split()
    except OSError:
        return []
