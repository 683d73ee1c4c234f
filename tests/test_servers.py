"""A Prefect server of the user's own, on SQLite and on PostgreSQL: what it knows is there after its restart."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("comes_back", [True, False])
def test_a_run_ends_right_though_its_server_is_killed(comes_back: bool, tmp_path: Path) -> None:
    """Killed once the images are prepared; where it stays away, the run says so and its verdict is there."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    environment = os.environ | {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_API_URL": url}
    (tmp_path / "prefect").mkdir()
    changes = [token for change in TINY for token in ("--set", change)]
    run = [sys.executable, "-m", "flows.cli", "run", str(DEMO), "--out", "runs/n", *changes]
    with (tmp_path / "said").open("w+") as said, ExitStack() as servers:
        first = servers.enter_context(_server(port, environment))
        process = subprocess.Popen(run, env=environment, cwd=tmp_path, stdout=said, stderr=said)
        cache = tmp_path / "runs" / ".cache"
        wait_for(lambda: bool([*cache.glob("prepare-*")]) or process.poll() is not None, 400)
        first.kill()
        first.wait()
        assert not server_answers(url) and not (tmp_path / "runs" / "n" / "verdict.json").exists()
        if comes_back:
            servers.enter_context(_server(port, environment))
        assert process.wait(timeout=500) == 0, (tmp_path / "said").read_text()
        text = (tmp_path / "said").read_text()
        assert "Utility: " in text and (tmp_path / "runs" / "n" / "report.html").is_file()
        assert ("went away" in text) is not comes_back
        if comes_back:
            assert flow_runs(url, ["COMPLETED"], scheduled=False) == 1


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
def _server(port: int, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(TOOLS / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: server_answers(environment["PREFECT_API_URL"]), 180)
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
