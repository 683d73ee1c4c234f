"""The schedule: the deployment that is served, and that a served one fires."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from own_server import flow_runs, started, wait_for
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from tiny_run import TINY
from tzlocal import get_localzone_name

from flows.cli import launch
from flows.deploy import build_deployment, read_cron, require_server, serve_schedule
from flows.server import free_port, server_answers
from pipeline.config.experiment import Experiment
from pipeline.config.loading import load_experiment
from pipeline.core.errors import ConfigError, UserError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "nightly.yaml"
    path.write_text("data: {source: {kind: phantom}, classes: [a, b], positive: [b]}\ngan: {num_images: 64}\n")
    return path


@pytest.fixture
def experiment(config: Path) -> Experiment:
    return load_experiment(config)


def test_deployment_has_name_schedule_parameters_and_tags(experiment: Experiment, tmp_path: Path) -> None:
    deployment = build_deployment(experiment, tmp_path / "runs" / "nightly", read_cron("0 2 * * *"))
    assert deployment.name == "nightly"
    assert deployment.schedules is not None
    (scheduled,) = deployment.schedules
    assert isinstance(scheduled.schedule, CronSchedule)
    assert (scheduled.schedule.cron, scheduled.schedule.timezone) == ("0 2 * * *", get_localzone_name())
    assert deployment.entrypoint == "flows.flow.experiment_flow"
    assert deployment.parameters["out"] == str(tmp_path / "runs" / "nightly")
    assert Experiment.model_validate(deployment.parameters["experiment"]) == experiment
    assert set(deployment.tags) == {"radaug", "sngan"}
    assert deployment.concurrency_limit is None  # the run directory's lock keeps runs apart, and dies with its process


@pytest.mark.parametrize("cron", ["every night", "61 * * * *", ""])
def test_a_wrong_cron_expression_is_the_users_error_before_anything_else(
    cron: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="not a cron expression"):
        read_cron(cron)
    assert launch(["schedule", str(tmp_path / "nowhere.yaml"), "--cron", cron]) == 2
    assert "not a cron expression" in capsys.readouterr().err


@pytest.mark.parametrize(("answers", "error"), [(False, UserError), (True, ExceptionGroup)])
def test_a_server_that_goes_away_is_told_and_no_fault_of_the_schedule(
    answers: bool, error: type[Exception], experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect gives up polling with a group of errors."""

    def gives_up(*_: object, **__: object) -> None:
        raise ExceptionGroup("unhandled errors in a TaskGroup", [RuntimeError("Service exceeded error threshold.")])

    monkeypatch.setattr("flows.deploy.serve_deployment", gives_up)
    monkeypatch.setattr("flows.deploy.require_server", lambda url: None)
    monkeypatch.setattr("flows.deploy.server_answers", lambda url: answers)
    with pytest.raises(error, match="unhandled" if answers else "the Prefect server went away"):
        serve_schedule(experiment, tmp_path, read_cron("0 2 * * *"))


def test_a_pool_is_given_the_deployment_and_a_wrong_one_is_told(
    server: None, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["schedule", str(config), "--cron", "0 2 * * *", "--out", str(tmp_path / "n")]
    assert launch([*command, "--pool", "nobody"]) == 2
    assert "prefect work-pool create nobody --type process" in capsys.readouterr().err
    with get_client(sync_client=True) as client:
        for name, kind in (("gpus", "process"), ("cloud", "docker")):
            client.create_work_pool(WorkPoolCreate(name=name, type=kind))
        assert launch([*command, "--pool", "cloud"]) == 2
        assert "is of type docker" in capsys.readouterr().err
        assert launch([*command, "--pool", "gpus"]) == 0
        assert "nightly: left to the workers of gpus" in capsys.readouterr().out
        found = client.read_deployment_by_name("radaug/nightly")
    assert (found.work_pool_name, found.global_concurrency_limit, found.paused) == ("gpus", None, False)
    assert found.entrypoint == "flows.flow.experiment_flow" and found.parameters["out"] == str(tmp_path / "n")
    assert [one.active for one in found.schedules] == [True]


def test_without_a_server_the_message_says_how_to_start_one(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{free_port()}/api"
    with pytest.raises(UserError, match="prefect server start"):
        require_server(url)
    monkeypatch.setenv("PREFECT_API_URL", url)
    assert launch(["schedule", str(config), "--cron", "0 2 * * *"]) == 2
    assert "prefect server start" in capsys.readouterr().err


@pytest.mark.slow
def test_the_server_of_a_killed_run_ends_too(tmp_path: Path) -> None:
    port = free_port()
    code = (
        "import time, flows.server as server\n"
        f"server.free_port = lambda: {port}\n"
        "server.wait_for_server(server.start_server())\n"
        "time.sleep(600)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PREFECT_API_URL"}
    run = subprocess.Popen([sys.executable, "-c", code], env=environment | {"PREFECT_HOME": str(tmp_path)})
    try:
        wait_for(lambda: server_answers(f"http://127.0.0.1:{port}/api"), 120)
    finally:
        run.kill()
        run.wait()
    wait_for(lambda: not server_answers(f"http://127.0.0.1:{port}/api"), 30)


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_served_schedule_fires_by_itself(config: Path, tmp_path: Path) -> None:
    """Server and `radaug schedule` run as a user would start them; the flow fails at its data, and leaves its run."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    environment = os.environ | {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_API_URL": url}
    (tmp_path / "prefect").mkdir()
    tools = Path(sys.executable).parent
    serve = [str(tools / "radaug"), "schedule", str(config), "--cron", "* * * * *", "--out", "runs/n"]
    serve += ["--set", "data.source={kind: npz, path: nowhere.npz}"]
    start = [str(tools / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    children = []
    try:
        children.append(started(start, environment, tmp_path))
        wait_for(lambda: server_answers(url), 120)
        children.append(started(serve, environment, tmp_path))
        wait_for(lambda: flow_runs(url, ["FAILED"]) > 0, 240)
        assert (tmp_path / "runs" / "n" / "config.yaml").is_file()
    finally:
        for child in reversed(children):
            child.send_signal(signal.SIGINT)
        for child in children:
            child.wait(timeout=60)


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_worker_makes_what_is_left_to_its_pool(tmp_path: Path) -> None:
    """Server, pool, schedule and worker as a user would start them; a whole run ends in its verdict."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    environment = os.environ | {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_API_URL": url}
    tools, children = Path(sys.executable).parent, []
    prefect = str(tools / "prefect")
    config = Path(__file__).parents[1] / "configs" / "demo.yaml"
    changes = [token for change in TINY for token in ("--set", change)]
    try:
        children.append(started([prefect, "server", "start", "--port", str(port)], environment, tmp_path))
        wait_for(lambda: server_answers(url), 120)
        for command in (
            [prefect, "work-pool", "create", "gpus", "--type", "process"],
            [str(tools / "radaug"), "schedule", str(config), "--cron", "* * * * *", "--pool", "gpus", "--out", "runs/n",
             *changes],
        ):  # fmt: skip
            subprocess.run(command, env=environment, cwd=tmp_path, check=True)
        children.append(started([prefect, "worker", "start", "--pool", "gpus"], environment, tmp_path))
        wait_for(lambda: (tmp_path / "runs" / "n" / "verdict.json").is_file(), 300)
    finally:
        for child in reversed(children):
            child.send_signal(signal.SIGINT)
            child.wait(timeout=60)
