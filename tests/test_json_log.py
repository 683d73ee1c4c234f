"""The log as JSON lines: what a collector needs, and nobody's name."""

from __future__ import annotations

import json
import logging
import multiprocessing
from pathlib import Path

import pytest
from rich.console import Console

import flows.running
from flows.children import _Sender
from flows.graph import Job
from flows.json_log import LOG_JSON
from flows.plan import Step
from flows.progress import progress_shown
from flows.running import StepWatcher
from flows.shares import Size
from pipeline.config.loading import load_experiment
from pipeline.core.cache import Execution
from pipeline.core.errors import UserError
from pipeline.core.progress import Progress
from pipeline.core.records import Record

NAME = "DOE^JANE"


def test_lines_have_run_stage_and_fold_and_no_planted_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log.jsonl"
    monkeypatch.setenv(LOG_JSON, str(log))
    here, there = multiprocessing.Pipe()
    sent = logging.LogRecord("pipeline.data", logging.WARNING, "", 0, "%s: cannot be read", (f"/scans/{NAME}",), None)
    _Sender(there, "fit-gan-fold-2-gan-1").emit(sent)  # as a child does
    with progress_shown(Console(quiet=True)):
        logging.getLogger("flows.here").info("%s begins", NAME)
        logging.getLogger("pipeline.data").handle(here.recv())
        Progress(NAME, 4, "images", every_s=0).update(3)
    logging.getLogger("flows.here").warning("after the run")

    assert NAME not in log.read_text()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["event"] for line in lines[:2]] == ["%s begins", "%s: cannot be read"]
    assert len(lines) == 3 and len({line["run"] for line in lines}) == 1
    assert [(line["stage"], line["fold"]) for line in lines] == [(None, None), ("fit-gan", 2), (None, None)]
    assert (lines[1]["level"], lines[2]["done"], lines[2]["total"]) == ("WARNING", 3, 4)


def test_lines_of_the_run_itself_have_stage_and_fold_and_say_what_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each kind: a part, a stage that was made, one that was found, one that failed, and what is left."""
    log = tmp_path / "log.jsonl"
    monkeypatch.setenv(LOG_JSON, str(log))
    monkeypatch.setattr(flows.running, "_WHOLE_RUN_EVERY_S", 0.0)
    experiment = load_experiment(Path(__file__).parents[1] / "configs" / "demo.yaml", ["compute.device=cpu"])
    watcher = StepWatcher(experiment, tmp_path / "cache", "run", "key", prefix="10 a class: ")
    made = Record("quality", wall_s=2.5, figures={"file": NAME})
    with progress_shown(Console(quiet=True)):
        for kind, part, found in (("fit-gan", "", made), ("fit-gan", "one", None), ("prepare", "", made)):
            job = Job(Step(kind, print, fold=3 if kind == "fit-gan" else None), part, frozenset(), Size(1, 1, False))
            watcher.started(job, 1)
            watcher.finished(job, found and Execution(tmp_path, found, cached=kind == "prepare"))
        watcher.started(job, 1)
        watcher.waiting(4, 61.2)
        watcher.failed(job, UserError(NAME))
    assert NAME not in log.read_text() and "%s%s" not in log.read_text()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["event"], line["stage"], line["fold"]) for line in lines] == [
        ("stage made", "fit-gan", 3), ("part made", "fit-gan", 3), ("stage cached", "prepare", None),
        ("whole run", None, None), ("stage failed", "prepare", None),
    ]  # fmt: skip
    assert (lines[0]["seconds"], lines[3]["jobs"], lines[3]["seconds"]) == (2.5, 4, 61)


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOG_JSON, str(tmp_path / "none" / "log.jsonl"))
    with pytest.raises(UserError, match=LOG_JSON), progress_shown(Console(quiet=True)):
        pass
