"""A Prefect server of the user's own, on SQLite and on PostgreSQL: what it knows is there after its restart."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from own_server import flow_runs, wait_for
from tiny_run import TINY

from flows.server import free_port, server_answers

TOOLS = Path(sys.executable).parent
DEMO = Path(__file__).parents[1] / "configs" / "demo.yaml"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("base", ["sqlite", "postgresql"])
def test_a_schedule_and_its_runs_outlive_a_restart_of_the_server(base: str, tmp_path: Path) -> None:
    """A worker makes a run, to its verdict; then the server ends and is started again."""
    with _database(base, tmp_path) as settings:
        port = free_port()
        url = f"http://127.0.0.1:{port}/api"
        environment = os.environ | {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_API_URL": url} | settings
        (tmp_path / "prefect").mkdir()
        changes = [token for change in TINY for token in ("--set", change)]
        when = ["--cron", "0 2 1 1 *", "--pool", "gpus"]
        with _server(port, environment):
            for command in (
                ["prefect", "work-pool", "create", "gpus", "--type", "process"],
                ["radaug", "schedule", str(DEMO), *when, "--out", "runs/n", *changes],
                ["prefect", "deployment", "run", "radaug/demo"],
                ["prefect", "worker", "start", "--pool", "gpus", "--run-once"],
            ):
                subprocess.run([TOOLS / command[0], *command[1:]], env=environment, cwd=tmp_path, check=True)
            wait_for(lambda: flow_runs(url, ["COMPLETED"]) == 1, 60)
            assert (tmp_path / "runs" / "n" / "verdict.json").is_file()
        assert not server_answers(url)
        with _server(port, environment):
            deployment = httpx.get(f"{url}/deployments/name/radaug/demo", timeout=30).raise_for_status().json()
            assert [one["active"] for one in deployment["schedules"]] == [True] and not deployment["paused"]
            assert flow_runs(url, ["COMPLETED"]) == 1
    assert (tmp_path / "prefect" / "prefect.db").is_file() == (base == "sqlite")


@contextmanager
def _database(base: str, place: Path) -> Iterator[dict[str, str]]:
    """The settings that give a Prefect server its database; a PostgreSQL of the test's own, which refuses root."""
    if base == "sqlite":
        yield {}
        return
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = str(programs[-1]) if programs else shutil.which("initdb")
    if found is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    at = Path(subprocess.check_output(["mktemp", "-d"], cwd="/tmp", text=True, **user).strip())
    port = free_port()
    try:
        init = [found, "-D", str(at / "data"), "-U", "prefect", "-A", "trust"]
        subprocess.run(init, cwd=at.parent, check=True, stdout=subprocess.DEVNULL, **user)
        start = [str(Path(found).with_name("postgres")), "-D", str(at / "data"), "-p", str(port), "-k", str(at)]
        with (place / "postgres.log").open("wb") as log:
            process = subprocess.Popen(start, cwd=at.parent, stdout=log, stderr=log, **user)
        try:
            ready = [str(Path(found).with_name("pg_isready")), "-q", "-h", "127.0.0.1", "-p", str(port)]
            wait_for(lambda: subprocess.run(ready).returncode == 0, 60)
            address = f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
            yield {"PREFECT_SERVER_DATABASE_CONNECTION_URL": address}
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)
    finally:
        shutil.rmtree(at)


@contextmanager
def _server(port: int, environment: dict[str, str]) -> Iterator[None]:
    command = [str(TOOLS / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: server_answers(environment["PREFECT_API_URL"]), 180)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
