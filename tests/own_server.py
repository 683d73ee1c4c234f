"""Programs that a test starts as a user would, such as a Prefect server of its own, and what comes of them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx


def started(command: list[str], environment: dict[str, str], at: Path) -> subprocess.Popen[bytes]:
    with (at / f"{Path(command[0]).name}.log").open("wb") as log:
        return subprocess.Popen(command, env=environment, cwd=at, stdout=log, stderr=log)


def wait_for(happened: Callable[[], bool], limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(1)


def flow_runs(url: str, states: list[str], *, scheduled: bool = True) -> int:
    """How many runs of a deployment, or of no deployment, are in one of `states`."""
    wanted = {"flow_runs": {"state": {"type": {"any_": states}}, "deployment_id": {"is_null_": not scheduled}}}
    answer = httpx.post(f"{url}/flow_runs/count", json=wanted, timeout=60)
    answer.raise_for_status()
    return int(answer.json())
