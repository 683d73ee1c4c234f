"""What the flow is made of: a line of progress, keys of artifacts, the place of the cache."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import pytest

from flows.flow import _hand_over, artifact_key
from flows.run_directory import cache_of
from flows.running import describe_execution
from pipeline.core.cache import Execution
from pipeline.core.records import Record


def test_progress_line() -> None:
    record = Record(kind="split", figures={"train": 120, "loss": 0.123456, "note": {"a": 1}}, wall_s=12.34)
    line = describe_execution("split", Execution(Path(), record, cached=False))
    assert " ".join(line.split()) == "split 12.3 s train 120, loss 0.1235"
    assert "cached" in describe_execution("split", Execution(Path(), record, cached=True))


@pytest.mark.parametrize("gone", ["pipe", "terminal"])
def test_a_run_goes_on_where_nobody_reads_its_lines_any_more(gone: str, tmp_path: Path) -> None:
    """`| head`, a schedule that was killed, a terminal that was closed."""
    ours, theirs = os.pipe() if gone == "pipe" else pty.openpty()
    left = tmp_path / "went-on"
    code = (
        "import logging, sys, pathlib; from flows.progress import Terminal, progress_shown\n"
        "sys.stdin.readline()\n"
        "with progress_shown(Terminal()):\n"
        "    for number in range(3): logging.getLogger('flows.running').info('line %d', number)\n"
        "print('the end', flush=True)\n"
        f"pathlib.Path({str(left)!r}).touch()"
    )
    run = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=theirs, start_new_session=True)
    os.close(theirs)
    os.close(ours)
    run.communicate(b"begin\n", timeout=120)
    assert run.returncode == 0 and left.exists()


def test_a_task_that_exits_is_an_outcome_as_any_error_is() -> None:
    """The graph would wait for it for ever."""
    ended, outcome = Future[None](), Future[None]()
    ended.set_exception(SystemExit(1))
    _hand_over(ended, outcome)  # type: ignore[arg-type]
    with pytest.raises(SystemExit):
        outcome.result(timeout=1)


@pytest.mark.parametrize(
    ("name", "key"), [("nightly-2", "nightly-2-roc"), ("Große_Studie", "gro-e-studie-"), ("日本", "-roc")]
)
def test_keys_of_artifacts_are_those_that_prefect_takes(name: str, key: str) -> None:
    from prefect.client.schemas.actions import ArtifactCreate

    made = artifact_key(name, "roc")
    assert key in made and ArtifactCreate(key=made).key == made
    assert made != artifact_key(f"{name} ", "roc")


def test_the_cache_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RADAUG_CACHE", raising=False)
    assert cache_of(tmp_path / "runs" / "demo") == tmp_path / "runs" / ".cache"
    monkeypatch.setenv("RADAUG_CACHE", str(tmp_path / "elsewhere"))
    assert cache_of(tmp_path / "runs" / "demo") == tmp_path / "elsewhere"
