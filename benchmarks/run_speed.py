"""Whole runs: seconds, CPU seconds and memory of one configuration, by engine, workers and what else the machine does.

    python benchmarks/run_speed.py [CONFIG] [--cases auto serial ...] [--set key=value ...]

Cases: `auto` (as users run it), `direct` (without a server), `serial` (one job at a time, one thread), `rerun` and
`rerun-direct` (nothing has changed since), `busy` (beside two busy processes) and `killed` (killed half-way and run
again). Every case but the reruns has a cache of its own. Memory is the sum of all the run's processes' proportional
set sizes, which counts shared pages once, at its peak over looks twice a second. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
CASES = {
    "auto": [],
    "direct": ["--engine", "direct"],
    "serial": ["--engine", "direct", "--set", "compute.workers=1", "--set", "compute.threads=1"],
    "busy": [],
    "killed": ["--engine", "direct"],
    "rerun": [],
    "rerun-direct": ["--engine", "direct"],
}
_LOOK_EVERY_S = 0.5
_BUSY = 2


@dataclass(frozen=True)
class Taken:
    """What a run took: seconds on the clock and of CPU, MiB at its peak."""

    wall: float
    cpu: float
    mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", default=str(ROOT / "configs" / "demo.yaml"))
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=["auto", "rerun", "rerun-direct", "busy"])
    parser.add_argument("--set", dest="changes", action="append", default=[])
    asked = parser.parse_args()
    changes = [token for change in asked.changes for token in ("--set", change)]
    print(f"{'case':<14}{'seconds':>9}{'CPU s':>9}{'MiB':>8}  of auto's seconds")
    found: dict[str, Taken] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in asked.cases:
            place = Path(folder) / ("auto" if case.startswith("rerun") else case) / "run"
            command = [asked.config, "--out", str(place), *CASES[case], *changes]
            found[case] = _taken(case, command, found.get("auto"))
            took = found[case]
            share = f"{took.wall / found['auto'].wall:>8.2f}" if "auto" in found else ""
            print(f"{case:<14}{took.wall:>9.1f}{took.cpu:>9.1f}{took.mib:>8.0f}  {share}", flush=True)


def _taken(case: str, command: Sequence[str], auto: Taken | None) -> Taken:
    if case == "busy":
        with _busy_processes(_BUSY):
            return _run(command)
    if case == "killed":
        first = _run(command, kill_after_s=(auto.wall if auto else 120.0) / 2)
        second = _run(command)
        return Taken(first.wall + second.wall, first.cpu + second.cpu, max(first.mib, second.mib))
    return _run(command)


def _run(command: Sequence[str], kill_after_s: float | None = None) -> Taken:
    """Run `radaug run`; a run that is to be killed is killed with SIGKILL."""
    before = _children_cpu()
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "run", *command], cwd=ROOT, stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    peak, cpu = 0.0, dict[int, float]()
    while process.poll() is None:
        mib, spent = _tree(process.pid)
        peak, cpu = max(peak, mib), cpu | spent
        if kill_after_s is not None and time.monotonic() - started > kill_after_s:
            process.kill()
        time.sleep(_LOOK_EVERY_S)
    if process.returncode != 0 and kill_after_s is None:
        sys.exit(f"the run ended with code {process.returncode}")
    wall = time.monotonic() - started
    return Taken(wall, max(sum(cpu.values()), _children_cpu() - before), peak)


def _tree(pid: int) -> tuple[float, dict[int, float]]:
    """MiB of a process and its descendants now, and the CPU seconds of each so far."""
    mib, cpu = 0.0, dict[int, float]()
    with suppress(psutil.Error):
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            with suppress(psutil.Error):
                spent = process.cpu_times()
                cpu[process.pid] = spent.user + spent.system
                mib += process.memory_full_info().pss / 2**20
    return mib, cpu


def _children_cpu() -> float:
    times = os.times()
    return times.children_user + times.children_system


@contextmanager
def _busy_processes(number: int) -> Iterator[None]:
    processes = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(number)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()


def _spin() -> None:
    end = time.monotonic() + 3600
    while time.monotonic() < end:
        pass


if __name__ == "__main__":
    main()
