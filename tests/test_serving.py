"""Ctrl-C and SIGTERM end a served schedule and its run in bounded time, whatever became of the server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import psutil
import pytest

import flows.serving
from flows.obeying import Terminated
from flows.serving import serve_deployment

ENDS = ["sh", "-c", "trap 'sleep 1.5; exit 7' TERM; echo ready; while :; do sleep 0.05; done"]
DEAF = ["sh", "-c", "trap '' TERM; echo ready; exec sleep 60"]
"""Runs: one that ends when it is asked to, and one that does not, as one that tells a lost server how it ended."""


class FakeRunner:
    """Prefect's runner with one run, which it kills when it is cancelled; where it is `deaf`, it goes on all the same.

    Signals come `at` seconds after that run began.
    """

    command: list[str]
    signals: list[tuple[signal.Signals, float]]
    deaf: bool
    last: FakeRunner

    def __init__(self, *, pause_on_shutdown: bool, limit: int) -> None:
        assert not pause_on_shutdown and limit == 1
        self.over = threading.Event()
        FakeRunner.last = self

    def add_deployment(self, deployment: Any) -> UUID:
        self.run = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        assert self.run.stdout is not None and self.run.stdout.readline() == "ready\n"
        return uuid4()

    async def start(self) -> None:
        for number, at in self.signals:
            threading.Timer(at, os.kill, (os.getpid(), number)).start()
        while not self.over.is_set():
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                with suppress(subprocess.TimeoutExpired):
                    self.code_when_cancelled = self.run.wait(1)
                self.run.kill()
                if not self.deaf:
                    raise


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(flows.serving, "Runner", FakeRunner)
    monkeypatch.setattr(flows.serving, "leave_at_once", lambda: None)
    monkeypatch.setattr(flows.serving, "runs_at_work", its_run)
    monkeypatch.setattr(flows.serving, "CLOSES_S", 2.0)
    yield
    FakeRunner.last.over.set()
    with suppress(ProcessLookupError):
        FakeRunner.last.run.kill()
    FakeRunner.last.run.communicate()


def its_run() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if one.pid == FakeRunner.last.run.pid]


@pytest.mark.parametrize(
    ("signals", "deaf", "command", "limit_s", "code"),
    [
        ([(signal.SIGINT, 0.1)], False, ENDS, 50, 7),
        ([(signal.SIGTERM, 0.1)], True, ENDS, 50, 7),
        ([(signal.SIGINT, 0.1)], True, DEAF, 0.5, -signal.SIGKILL),
        ([(signal.SIGTERM, 0.1)], False, DEAF, 0.5, -signal.SIGKILL),
        ([(signal.SIGINT, 0.1), (signal.SIGTERM, 0.5)], True, DEAF, 50, -signal.SIGKILL),
    ],
)
def test_a_run_is_asked_to_end_then_killed_and_the_schedule_ends(
    signals: list[tuple[signal.Signals, float]],
    deaf: bool,
    command: list[str],
    limit_s: float,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Prefect's own `serve` kills the run at Ctrl-C, and waits for its server at SIGTERM. A second signal waits no
    longer."""
    for name, value in {"command": command, "deaf": deaf, "signals": signals}.items():
        monkeypatch.setattr(FakeRunner, name, value, raising=False)
    monkeypatch.setattr(flows.serving, "RUN_ENDS_S", limit_s)
    began = time.monotonic()
    with pytest.raises({signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}[signals[0][0]]):
        serve_deployment(object())  # type: ignore[arg-type]
    assert FakeRunner.last.code_when_cancelled == code
    assert time.monotonic() - began < 40
