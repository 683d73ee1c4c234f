"""The flow in Prefect's pages: the address, the log, a killed run's end and a cancelled one's."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from pathlib import Path
from uuid import UUID

import httpx
import psutil
import pytest
from fake_stages import FakeStages, flow_run_of_artifacts, run_flow
from own_server import wait_for

import flows.cancelled
import flows.engines
import flows.flow
import flows.running
from flows.children import Work
from flows.engines import direct_engine
from flows.json_log import LOG_JSON
from flows.lease import lease, note_flow_run
from flows.obeying import Terminated, ended_by_signals
from flows.server import API_URL, OWN
from pipeline.config.experiment import Experiment
from pipeline.core.errors import UserError
from pipeline.core.files import read_json, write_json
from pipeline.core.progress import Progress


def test_a_run_says_the_address_of_its_page_which_has_its_log(
    server: None, stages: FakeStages, experiment: Experiment, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Unless its server ends with it. How far the work is, every few seconds, is not in the log there."""
    out = tmp_path / "runs" / "tiny"
    stages.during = lambda: Progress("split", 4, "images", every_s=0).update(3)
    with caplog.at_level(logging.INFO):
        run_flow(experiment, out)
    (page,) = re.findall(r"Prefect's page of this run: (\S+)", caplog.text)
    flow_run = flow_run_of_artifacts()
    assert page == f"{os.environ[API_URL].removesuffix('/api')}/runs/flow-run/{flow_run}"
    wait_for(lambda: any(line.startswith("verdict ") for line in log_in_the_page(flow_run)), 60)
    told = log_in_the_page(flow_run)
    assert any(re.match(r"split .* images 3", line) for line in told) and f"Prefect's page of this run: {page}" in told
    assert "3 of 4 images" in caplog.text and "what is not there yet" in caplog.text
    assert not [line for line in told if "3 of 4 images" in line or "what is not there yet" in line]
    monkeypatch.setenv(OWN, "1")
    caplog.clear()
    run_flow(experiment, out)
    assert "Nothing has changed since" in caplog.text and "page of this run" not in caplog.text


def test_a_run_is_published_before_the_next_one_may_begin(
    stages: FakeStages, experiment: Experiment, tmp_path: Path
) -> None:
    """The next one takes away what is published; a server that is gone is no fault of the run's."""
    out, held = tmp_path / "runs" / "tiny", list[bool]()

    def publish(place: Path) -> None:
        assert (place / "metrics.csv").is_file()
        with pytest.raises(UserError, match="another process runs into it"):
            flows.running.run_experiment(experiment, place, direct_engine)
        held.append(True)
        raise ConnectionError("the server is gone")

    with pytest.raises(ConnectionError, match="the server is gone"):
        flows.running.run_experiment(experiment, out, direct_engine, publish=publish)
    assert held and (out / "verdict.json").is_file() and not (out / "error.log").exists()


def log_in_the_page(flow_run: str) -> list[str]:
    """The lines, the prefect's own of tasks that begin and end too."""
    wanted = {"logs": {"flow_run_id": {"any_": [flow_run]}}, "limit": 200}
    found = httpx.post(f"{os.environ[API_URL]}/logs/filter", json=wanted, timeout=60).raise_for_status().json()
    return [line["message"] for line in found]


def test_the_run_of_a_schedule_shows_its_lines_and_adds_them_to_the_json_log(
    stages: FakeStages, experiment: Experiment, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """No command is around it that would."""
    monkeypatch.setenv(LOG_JSON, str(tmp_path / "log.jsonl"))
    monkeypatch.setattr(flows.flow, "has_pages", lambda: False)
    for scheduled, shown in ((False, False), (True, True)):
        monkeypatch.setattr(flows.flow, "_is_scheduled", lambda scheduled=scheduled: scheduled)
        with flows.flow._logged():
            logging.getLogger("flows.running").info("split made of %d images", 3)
        assert ("split made of 3 images" in capsys.readouterr().out) is shown
        with pytest.raises(UserError), flows.flow._logged():
            raise UserError("/scans/DOE^JANE cannot be read")
        assert ("radaug: /scans/DOE^JANE cannot be read" in capsys.readouterr().out) is shown
        assert (tmp_path / "log.jsonl").exists() is shown
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["split made of %d images", "radaug: %s"]
    assert logging.getLogger("flows").handlers == []


def test_the_flow_run_of_a_killed_process_is_closed(
    prefect_server: None, stages: FakeStages, experiment: Experiment, tmp_path: Path
) -> None:
    """And that of one whose process has let go of the directory, and still has to tell its server, is not."""
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.states import Running

    out = tmp_path / "runs" / "tiny"
    with get_client(sync_client=True) as client:
        killed, ending, other = (client.create_flow_run(flow(print, name="radaug"), state=Running()) for _ in range(3))
        out.mkdir(parents=True)
        (out / "run.lock").touch()
        for one, start in ((ending, psutil.Process().create_time()), (killed, 0)):
            with lease(out):
                note_flow_run(out, str(one.id))
                left = read_json(out / "running.json")
            write_json(out / "running.json", left | {"process_start": start})
            run_flow(experiment, out)
        states = [client.read_flow_run(one.id).state for one in (killed, ending, other)]
    assert [state.type.value for state in states if state] == ["CRASHED", "RUNNING", "RUNNING"]
    assert not (out / "running.json").exists()


def test_a_run_that_is_cancelled_in_the_pages_ends_as_by_sigterm(
    server: None, stages: FakeStages, experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect leaves alone what no schedule or worker has started. A GAN writes a checkpoint at SIGTERM."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    out, children_end = tmp_path / "runs" / "tiny", threading.Event()

    def cancel(work: Work) -> None:
        assert work.name == "split"
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(read_json(out / "running.json")["flow_run"]), Cancelling())
        assert children_end.wait(120)

    monkeypatch.setattr(flows.cancelled, "_LOOKS_S", 0.2)
    monkeypatch.setattr(flows.engines, "in_child", cancel)
    monkeypatch.setattr(flows.engines, "end_children", children_end.set)
    with ended_by_signals(), pytest.raises(Terminated):
        run_flow(experiment, out)
    assert children_end.is_set() and not (out / "running.json").exists()
