"""A schedule as a user serves it: its run found in the server's pages by a real browser, and its end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from browsing import NEEDS_CHROMIUM, started_browser
from own_server import flow_runs, started, wait_for
from tiny_run import TINY

from flows.lease import holder_of
from flows.server import free_port, server_answers
from flows.serving import CLOSES_S, RUN_ENDS_S
from pipeline.core.files import read_json
from pipeline.data.cohort.register import read_register

DEMO = Path(__file__).parents[1] / "configs" / "demo.yaml"
TOOLS = Path(sys.executable).parent
DRAWN = """() => {
  const pictures = [...document.querySelectorAll("img[src^='data:image/png']")];
  return pictures.length >= 3 && pictures.every(one => one.complete && one.naturalWidth > 100);
}"""


@NEEDS_CHROMIUM
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_that_the_cron_fired_is_found_in_the_pages(tmp_path: Path) -> None:
    """Its page is found from the list of runs, with its stages and, in the artifacts, its verdict and pictures that the
    browser draws. Its patients are in the register."""
    register = tmp_path / "register.json"
    with served(tmp_path, "* * * * *", f"data.patient_register={register}") as found:
        wait_for(lambda: flow_runs(found.url, ["COMPLETED"]) > 0, 900)
        verdict = read_json(tmp_path / "runs" / "n" / "verdict.json")
        assert read_register(register).round >= 1 and len(read_register(register).patients) > 100
        with started_browser() as browser:
            page = browser.new_page(viewport={"width": 1400, "height": 1400})
            page.goto(f"{found.url.removesuffix('/api')}/runs?state=Completed")
            page.locator("a[href*='/runs/flow-run/']").first.click(timeout=60_000)
            page.get_by_text("fit-gan-fold-0-gan-0").first.wait_for(timeout=60_000)
            page.get_by_text("Completed").first.wait_for(timeout=60_000)
            page.screenshot(path=tmp_path / "run.png")
            page.get_by_text("Artifacts", exact=True).last.click()
            page.locator("a[href*='/artifacts/']", has_text="demo-verdict").first.click(timeout=60_000)
            said = re.escape(f"utility: {verdict['utility']['decision']}")
            page.get_by_text(re.compile(said)).first.wait_for(timeout=60_000)
            page.wait_for_function(DRAWN, timeout=60_000)
            page.screenshot(path=tmp_path / "verdict.png", full_page=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_schedule_ends_with_its_run_though_its_server_is_gone(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """The GAN that was being trained leaves a checkpoint, though its own next one was far away."""
    with served(tmp_path, "0 2 1 1 *", "gan.num_images=4000000", "gan.checkpoints=1") as found:
        found.begin()
        cache = tmp_path / "runs" / ".cache"
        found.wait_for_a_gan()
        assert not [*cache.glob(".partial-fit-gan-*/resume.pt")]
        family = psutil.Process(found.schedule.pid).children(recursive=True)
        found.server.kill()
        found.server.wait()
        began = time.monotonic()
        found.schedule.send_signal(number)
        assert found.schedule.wait(timeout=120) == code
        assert time.monotonic() - began < RUN_ENDS_S + CLOSES_S + 15
        assert [*cache.glob(".partial-fit-gan-*/resume.pt")]
        assert len(family) > 2
        psutil.wait_procs(family, timeout=20)
        assert not [one for one in family if one.is_running()]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_night_after_a_power_cut_has_its_run(tmp_path: Path) -> None:
    """Server, schedule and run are killed at once. Prefect would keep the place of the run that was at work, had the
    deployment a limit of one."""
    with served(tmp_path, "0 2 1 1 *", "gan.num_images=1000") as found:
        found.begin()
        found.wait_for_a_gan()
        family = psutil.Process(found.schedule.pid).children(recursive=True)
        for process in (found.server, found.schedule, *family):
            with suppress(psutil.NoSuchProcess):
                process.kill()
    with served(tmp_path, "0 2 1 1 *", "gan.num_images=1000") as found:
        found.begin()
        wait_for(lambda: flow_runs(found.url, ["COMPLETED"]) == 1, 600)
        assert (tmp_path / "runs" / "n" / "verdict.json").is_file()
        assert flow_runs(found.url, ["CRASHED"]) == 1 and flow_runs(found.url, ["RUNNING"]) == 0
        wait_for(lambda: said(found.url, "demo: utility ") == 1, 60)
        assert "demo: utility " in (tmp_path / "radaug.log").read_text()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_run_of_a_killed_schedule_is_not_made_twice(tmp_path: Path) -> None:
    """It goes on; the next schedule's run waits for it, and finds all that it has made."""
    with served(tmp_path, "0 2 1 1 *", "gan.num_images=1000") as found:
        found.begin()
        found.wait_for_a_gan()
        orphan = holder_of(tmp_path / "runs" / "n")
        assert orphan is not None
        psutil.Process(orphan.pid).suspend()
        found.schedule.kill()
        found.schedule.wait()
        with schedule(tmp_path, found.url, found.command):
            found.begin()
            wait_for(lambda: said(found.url, f"waits for process {orphan.pid} on") == 1, 300)
            assert orphan.alive and holder_of(tmp_path / "runs" / "n") == orphan
            assert not (tmp_path / "runs" / "n" / "verdict.json").exists()
            psutil.Process(orphan.pid).resume()
            wait_for(lambda: flow_runs(found.url, ["COMPLETED"]) == 2, 600)
            wait_for(lambda: said(found.url, "Nothing has changed since") == 1, 60)  # it is sent later than the state


@dataclass(frozen=True)
class Served:
    """A server, its address, and `radaug schedule` of the tiny demo with it, which works in `at`."""

    at: Path
    url: str
    server: subprocess.Popen[bytes]
    schedule: subprocess.Popen[bytes]
    command: list[str]

    def begin(self) -> None:
        """Fire the schedule now."""
        known = httpx.get(f"{self.url}/deployments/name/radaug/demo", timeout=60).raise_for_status().json()["id"]
        fire, when = f"{self.url}/deployments/{known}/create_flow_run", {"state": {"type": "SCHEDULED"}}
        wait_for(lambda: httpx.post(fire, json=when, timeout=60).is_success, 300)

    def wait_for_a_gan(self) -> None:
        """Until one is being trained."""
        wait_for(lambda: bool([*(self.at / "runs" / ".cache").glob(".partial-fit-gan-*/stats.jsonl")]), 600)


def said(url: str, words: str) -> int:
    """Lines of the runs' logs in the server that hold `words`."""
    newest = {"sort": "TIMESTAMP_DESC", "limit": 200}
    lines = httpx.post(f"{url}/logs/filter", json=newest, timeout=60).raise_for_status().json()
    return sum(words in line["message"] for line in lines)


@contextmanager
def served(at: Path, cron: str, *settings: str) -> Iterator[Served]:
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    changes = [token for change in [*TINY, *settings] for token in ("--set", change)]
    serve = [str(TOOLS / "radaug"), "schedule", str(DEMO), "--cron", cron, "--out", "runs/n", *changes]
    start = [str(TOOLS / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = started(start, environment(at, url), at)
    try:
        wait_for(lambda: server_answers(url), 400)
        with schedule(at, url, serve) as process:
            yield Served(at, url, server, process, serve)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=120)


@contextmanager
def schedule(at: Path, url: str, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = started(command, environment(at, url), at)
    try:
        wait_for(lambda: "Prefect's page of it" in (at / "radaug.log").read_text(), 300)
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)


def environment(at: Path, url: str) -> dict[str, str]:
    return os.environ | {"PREFECT_HOME": str(at / "prefect"), "PREFECT_API_URL": url}
