"""Runs that are started to be hit, and how they end. A run and all its processes are one session of the system."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import util
from multiprocessing.context import ForkProcess
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
GRACE_S = 60.0


@dataclass
class Started:
    """A run that was started: its first process, and the file that takes what it says."""

    process: ForkProcess
    said: Path
    began: float

    def members(self) -> list[psutil.Process]:
        """All its processes that are there, whoever their parent is."""
        found = []
        for pid in psutil.pids():
            with suppress(psutil.Error, ProcessLookupError):
                if os.getsid(pid) == self.process.pid and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                    found.append(psutil.Process(pid))
        return found

    def computed(self) -> float:
        """Processor seconds of all its processes, those that have ended too."""
        seconds = 0.0
        for process in self.members():
            with suppress(psutil.Error):
                seconds += sum(process.cpu_times()[:4])
        return seconds

    def ended(self, limit_s: float) -> tuple[int | None, str, int]:
        """Exit code (None: it did not end), the last line that it said, and how many of its processes were left."""
        self.process.join(limit_s)
        code = self.process.exitcode
        end = time.monotonic() + GRACE_S
        while code is not None and self.members() and time.monotonic() < end:
            time.sleep(0.2)
        left = self.members()
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        self.process.join()
        lines = [line for line in self.said.read_text(errors="replace").splitlines() if line.strip()]
        self.said.unlink()
        return code, lines[-1] if lines else "", len(left)


def executed(command: Sequence[str], environment: Mapping[str, str]) -> Started:
    """A program in a session of its own."""
    return _begun(lambda: os.execvpe(command[0], list(command), {**os.environ, **environment}))


def launched(tokens: Sequence[str], environment: Mapping[str, str]) -> Started:
    """`radaug` with `tokens` in a fork of this process, whose libraries it has.

    The server that forks the run's children is such a fork too, so a start costs no imports; all else is as ever.
    """

    def begin() -> None:
        from flows.cli import launch

        os.environ.update(environment)
        _fork_servers()
        sys.exit(launch(list(tokens)))

    return _begun(begin)


def _begun(begin: Callable[[], object]) -> Started:
    handle, name = tempfile.mkstemp(prefix="said-")

    def apart() -> None:
        os.setsid()
        for stream in (1, 2):
            os.dup2(handle, stream)
        begin()

    process = multiprocessing.get_context("fork").Process(target=apart)
    process.start()
    os.close(handle)
    return Started(process, Path(name), time.monotonic())


def _fork_servers() -> None:
    execute = util.spawnv_passfds

    def fork(path: bytes, arguments: Sequence[str], passed: Sequence[int]) -> int:
        if "forkserver" not in arguments[-1]:
            return execute(path, arguments, passed)
        pid = os.fork()
        if pid:
            return pid
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            edges = sorted({2, *passed, os.sysconf("SC_OPEN_MAX")})
            for low, high in pairwise(edges):
                os.closerange(low + 1, high)  # else it would hold the pipe whose end tells it that the run has ended
            exec(arguments[-1], {"__name__": "server"})
        finally:
            os._exit(0)

    util.spawnv_passfds = fork
