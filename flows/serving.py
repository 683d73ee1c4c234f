"""A served schedule that ends when it is told to, with the run that it has at work, whatever became of its server.

Prefect's own `serve` kills that run at Ctrl-C, before it can write a checkpoint. At SIGTERM it stands still in the
signal's handler, and then tells a server that may be gone, again and again.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from uuid import UUID

import psutil
from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner
from prefect.utilities.urls import url_for

from flows.children import GRACE_S
from flows.gone import leave_at_once
from flows.obeying import Terminated, ended_by_signals

RUN_ENDS_S = GRACE_S + 10.0
"""What a run gets to end in: its children's time, and some to tell its server."""
CLOSES_S = 5.0
_POLL_S = 0.1


def serve_deployment(deployment: RunnerDeployment) -> None:
    """Make the deployment's runs, one at a time, until Ctrl-C or SIGTERM. The schedule stays on in the server.

    The run that is at work is then asked to end, which leaves its checkpoints, and killed where it does not.

    Raises:
        KeyboardInterrupt, Terminated: as they came.
        Exception: whatever Prefect gives up with, such as a group of errors where its server is gone.
    """
    leave_at_once()
    runner = Runner(pause_on_shutdown=False, limit=1)
    known = runner.add_deployment(deployment)
    assert isinstance(known, UUID)  # a coroutine only where an event loop is running
    if page := url_for("deployment", known):
        print(f"Prefect's page of it: {page}", flush=True)
    serving = _Serving(runner)
    with ended_by_signals():
        try:
            serving.ended.result()
        except (KeyboardInterrupt, Terminated):
            end_runs(RUN_ENDS_S)
            serving.close()
            end_runs(0)  # one that it had begun meanwhile
            raise


class _Serving:
    """Prefect's runner in a thread of its own, so that signals reach the thread that started it, and nothing else."""

    def __init__(self, runner: Runner) -> None:
        self.ended: Future[None] = Future()
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(runner.start())
        thread = threading.Thread(target=copy_context().run, args=(self._serve,), name="schedule", daemon=True)
        thread.start()  # a daemon: where the runner does not end, the process ends all the same

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as loop:
            loop.run(self._followed())

    async def _followed(self) -> None:
        try:
            await self._task
        except BaseException as error:
            self.ended.set_exception(error)
        else:
            self.ended.set_result(None)

    def close(self) -> None:
        """Let the runner leave its server and its files, and wait no longer than `CLOSES_S`."""
        self._loop.call_soon_threadsafe(self._task.cancel)
        with suppress(BaseException):
            self.ended.exception(CLOSES_S)


def runs_at_work() -> list[psutil.Process]:
    """Processes that this one has started."""
    return psutil.Process().children()


def end_runs(limit_s: float) -> None:
    """End the runs at work: ask them, and kill those that are still there after `limit_s` seconds, or when Ctrl-C or
    SIGTERM comes once more. Their own children end with them."""
    runs, end = runs_at_work(), time.monotonic() + limit_s
    try:
        for run in runs:
            with suppress(psutil.NoSuchProcess):
                run.terminate()
        while any(map(_is_there, runs)) and time.monotonic() < end:
            time.sleep(_POLL_S)
    except (KeyboardInterrupt, Terminated):
        pass
    finally:
        for run in filter(_is_there, runs):
            with suppress(psutil.NoSuchProcess):
                run.kill()


def _is_there(run: psutil.Process) -> bool:
    try:
        return bool(run.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
