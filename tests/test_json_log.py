"""The log as JSON lines: what a collector needs, and nobody's name."""

from __future__ import annotations

import json
import logging
import multiprocessing
from pathlib import Path

import pytest
from rich.console import Console

from flows.children import _Sender
from flows.json_log import LOG_JSON
from flows.progress import progress_shown
from pipeline.core.errors import UserError
from pipeline.core.progress import Progress

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


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOG_JSON, str(tmp_path / "none" / "log.jsonl"))
    with pytest.raises(UserError, match=LOG_JSON), progress_shown(Console(quiet=True)):
        pass
