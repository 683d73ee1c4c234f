"""Who runs into a run directory: written beside the lock, so that other programs can tell a run that was killed.

The lock itself is the operating system's and dies with its process. This file only tells: a process of this machine
that is gone was killed before it could take the file away.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from pipeline.core.files import read_json, write_json
from pipeline.core.layout import HOLDER


@dataclass(frozen=True)
class Holder:
    """A process that runs into a run directory.

    Attributes:
        process_start: in seconds since 1970; after a boot, or later, another process may have its number, but not its
            start.
        since: when the run began, ISO 8601, UTC.
        flow_run: the id of its run in Prefect, where it has one.
    """

    host: str
    pid: int
    process_start: float
    since: str
    flow_run: str = ""

    @property
    def here(self) -> bool:
        """Whether it is of this machine, so that `alive` can be told."""
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        """Whether it is still there, for a process of this machine."""
        try:
            return abs(psutil.Process(self.pid).create_time() - self.process_start) < 1.0
        except psutil.NoSuchProcess:
            return False


def this_process() -> Holder:
    own = psutil.Process()
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    return Holder(socket.gethostname(), own.pid, own.create_time(), begun)


@contextmanager
def lease(out: Path) -> Iterator[None]:
    """Say in `out` that this process runs into it, for as long as the block lasts."""
    write_json(out / HOLDER, asdict(this_process()))
    try:
        yield
    finally:
        with suppress(OSError):
            os.unlink(out / HOLDER)


def note_flow_run(out: Path, flow_run: str) -> None:
    """Say in `out`, which this process holds, under which id Prefect knows its run."""
    write_json(out / HOLDER, read_json(out / HOLDER) | {"flow_run": flow_run})


def holder_of(out: Path) -> Holder | None:
    """Who said last that it runs into `out`, and did not take it back; None where nobody did or it cannot be read."""
    with suppress(OSError, ValueError, TypeError):
        return Holder(**read_json(out / HOLDER))
    return None
