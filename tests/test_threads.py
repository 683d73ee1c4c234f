"""What a process may use of the machine: cores, memory, threads; and that waiting threads are told to sleep."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from pipeline.core import threads

ROOT = Path(__file__).parents[1]
HOST_MIB = 10_000


def alone(code: str, **environment: str) -> str:
    """What `code` prints in a fresh process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def kernel(monkeypatch: pytest.MonkeyPatch, root: Path, membership: str, files: Mapping[str, str]) -> None:
    """A machine of 8 cores and HOST_MIB free whose cgroups are `files`."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    (root / "membership").write_text(f"{membership}\n")
    monkeypatch.setattr(threads, "_CGROUPS", root)
    monkeypatch.setattr(threads, "_MEMBERSHIP", root / "membership")
    monkeypatch.setattr(threads, "_cores", lambda: set(range(8)))
    free = psutil.virtual_memory()._replace(available=HOST_MIB * 2**20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)


def test_cores_are_those_that_the_process_is_bound_to() -> None:
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{one}}}); from pipeline.core import threads; "
    assert alone(code + "print(threads.available_cores(), threads.free_cores(0.05) <= 1)") == "1 True"


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/job", {"job/cpu.max": "max 100000"}, 8),
        ("0::/job", {"job/cpu.max": "300000 100000"}, 3),
        ("0::/job", {"job/cpu.max": "150000 100000"}, 2),
        ("0::/job", {"job/cpu.max": "5000 100000"}, 1),
        ("0::/slurm/job/step", {"slurm/job/cpu.max": "400000 100000", "slurm/cpu.max": "max 100000"}, 4),
        ("0::/where/the/host/sees/it", {"cpu.max": "200000 100000"}, 2),
        ("4:cpu,cpuacct:/job", {"cpu,cpuacct/job/cpu.cfs_quota_us": "-1"}, 8),
        (
            "4:cpu,cpuacct:/job",
            {"cpu,cpuacct/job/cpu.cfs_quota_us": "250000", "cpu,cpuacct/job/cpu.cfs_period_us": "50000"},
            5,
        ),
        ("4:cpuacct:/job\n0::/", {"cpuacct/job/cpu.cfs_quota_us": "50000"}, 8),
    ],
)
def test_cores_are_bounded_by_the_quota_of_every_cgroup_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, membership: str, files: dict[str, str], cores: int
) -> None:
    kernel(monkeypatch, tmp_path, membership, files)
    assert threads.available_cores() == cores


@pytest.mark.parametrize(
    ("membership", "files", "mib"),
    [
        ("0::/", {}, HOST_MIB),
        ("0::/job", {"job/memory.max": "max", "job/memory.current": "1048576"}, HOST_MIB),
        # 4096 MiB allowed, 1024 in use, 512 of them page cache that nobody has touched lately
        (
            "0::/job",
            {
                "job/memory.max": str(4096 * 2**20),
                "job/memory.current": str(1024 * 2**20),
                "job/memory.stat": f"anon {512 * 2**20}\ninactive_file {512 * 2**20}\nactive_file 0",
            },
            3584,
        ),
        (
            "5:memory:/job",
            {
                "memory/job/memory.limit_in_bytes": str(2048 * 2**20),
                "memory/job/memory.usage_in_bytes": str(1024 * 2**20),
                "memory/job/memory.stat": f"inactive_file 0\ntotal_inactive_file {256 * 2**20}",
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "memory/memory.usage_in_bytes": str(5000 * 2**20),
            },
            1280,
        ),
        # over its limit: nothing is left
        ("0::/job", {"job/memory.max": "1048576", "job/memory.current": "4194304"}, 0),
    ],
)
def test_memory_is_what_the_cgroups_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, membership: str, files: dict[str, str], mib: int
) -> None:
    kernel(monkeypatch, tmp_path, membership, files)
    assert threads.available_memory_mib() == mib


def test_memory_is_bounded_by_the_limit_of_an_address_space() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (512 * 2**20, resource.RLIM_INFINITY)); "
        "from pipeline.core import threads; print(threads.available_memory_mib())"
    )
    assert alone(code) == "512"


@pytest.mark.parametrize(
    ("cores", "free", "workers", "chosen"),
    [
        (2, 2.0, 1, 2),
        (2, 1.6, 1, 2),
        (2, 1.4, 1, 1),
        (2, 0.0, 1, 1),  # nothing is free: one thread, that takes its share
        (8, 7.9, 3, 2),
        (8, 7.9, 8, 1),
        (8, 3.2, 8, 1),
        (64, 40.0, 4, 10),
        (4, 4.5, 1, 4),
    ],
)
def test_threads_are_an_equal_share_of_the_free_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, free: float, workers: int, chosen: int
) -> None:
    monkeypatch.setattr(threads, "available_cores", lambda: cores)
    monkeypatch.setattr(threads, "free_cores", lambda: free)
    assert threads.choose_threads(workers) == chosen


def test_threads_that_are_asked_for_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "free_cores", lambda: pytest.fail("nothing needs to be measured"))
    assert threads.choose_threads(workers=4, wanted=6) == 6


@pytest.mark.parametrize(
    ("busy", "own", "free"),
    [
        ((100.0, 100.0), (5.0, 5.0), 8.0),
        ((100.0, 103.0), (5.0, 6.0), 6.0),  # 3 core seconds in a second, one of them ours: others keep two cores busy
        ((100.0, 108.0), (5.0, 5.0), 0.0),
        ((100.0, 100.5), (5.0, 6.0), 8.0),  # the clocks tick differently: not more than there is
    ],
)
def test_free_cores_are_those_that_others_leave(
    monkeypatch: pytest.MonkeyPatch, busy: tuple[float, float], own: tuple[float, float], free: float
) -> None:
    monkeypatch.setattr(threads, "_cores", lambda: set(range(8)))
    monkeypatch.setattr(threads, "_quota", lambda: 16.0)
    monkeypatch.setattr(threads, "_busy_seconds", iter(busy).__next__)
    monkeypatch.setattr(threads, "_own_seconds", iter(own).__next__)
    monkeypatch.setattr(threads.time, "monotonic", iter((10.0, 11.0)).__next__)
    assert threads.free_cores(0.0) == free


def test_a_quota_bounds_the_free_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_cores", lambda: set(range(64)))
    monkeypatch.setattr(threads, "_quota", lambda: 2.0)
    monkeypatch.setattr(threads, "_busy_seconds", iter((0.0, 0.2)).__next__)
    monkeypatch.setattr(threads, "_own_seconds", lambda: 0.0)
    assert threads.free_cores(0.01) == 2.0  # 20 of 64 cores are busy: the two that we may use are free


def test_torch_and_blas_take_the_threads_that_are_chosen() -> None:
    code = (
        "import numpy, sys; from pipeline.core.threads import use_threads; {first}; use_threads(1); import torch; "
        "from threadpoolctl import threadpool_info; "
        "print(torch.get_num_threads(), {{pool['num_threads'] for pool in threadpool_info()}})"
    )
    assert alone(code.format(first="import torch")) == "1 {1}"
    assert alone(code.format(first="assert 'torch' not in sys.modules")) == "1 {1}"


def test_waiting_threads_are_told_to_sleep_before_torch_loads() -> None:
    code = (
        "import sys, os, {module}; print('torch' in sys.modules, "
        "*(os.environ[name] for name in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME')))"
    )
    assert alone(code.format(module="pipeline")) == "False PASSIVE 0 0"
    assert alone(code.format(module="pipeline"), OMP_WAIT_POLICY="ACTIVE") == "False ACTIVE 0 0"
    assert alone(code.format(module="flows.cli")) == "False PASSIVE 0 0"
