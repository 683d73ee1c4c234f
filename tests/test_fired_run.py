"""A schedule as a user serves it: its run found in the server's pages by a real browser, and its end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from browsing import NEEDS_CHROMIUM, started_browser
from own_server import flow_runs, started, wait_for
from tiny_run import TINY

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
        deployment = httpx.get(f"{found.url}/deployments/name/radaug/demo", timeout=60).raise_for_status().json()["id"]
        asked = {"state": {"type": "SCHEDULED"}}
        begin = f"{found.url}/deployments/{deployment}/create_flow_run"
        wait_for(lambda: httpx.post(begin, json=asked, timeout=60).is_success, 300)
        cache = tmp_path / "runs" / ".cache"
        wait_for(lambda: bool([*cache.glob(".partial-fit-gan-*/stats.jsonl")]), 600)
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


@dataclass(frozen=True)
class Served:
    """A server, its address, and `radaug schedule` of the tiny demo with it."""

    url: str
    server: subprocess.Popen[bytes]
    schedule: subprocess.Popen[bytes]


@contextmanager
def served(at: Path, cron: str, *settings: str) -> Iterator[Served]:
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    environment: dict[str, Any] = os.environ | {"PREFECT_HOME": str(at / "prefect"), "PREFECT_API_URL": url}
    changes = [token for change in [*TINY, *settings] for token in ("--set", change)]
    serve = [str(TOOLS / "radaug"), "schedule", str(DEMO), "--cron", cron, "--out", "runs/n", *changes]
    start = [str(TOOLS / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    children = []
    try:
        children.append(started(start, environment, at))
        wait_for(lambda: server_answers(url), 400)
        children.append(started(serve, environment, at))
        wait_for(lambda: "Prefect's page of it" in (at / "radaug.log").read_text(), 200)
        yield Served(url, *children)
    finally:
        for child in reversed(children):
            child.send_signal(signal.SIGINT)
        for child in children:
            child.wait(timeout=120)
