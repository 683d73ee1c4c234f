"""A server that went away: told, and no result of another run is taken for this one's."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_run import ARMS, build_curve

import flows.flow
import flows.gone
from flows.flow import curve_by_prefect
from flows.gone import despite_its_server
from pipeline.config.loading import load_experiment
from pipeline.core.errors import LeakageError, UserError
from pipeline.core.files import write_json


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether it answers."""
    answers = [False]
    monkeypatch.setenv("PREFECT_API_URL", "http://pages/api")
    monkeypatch.setattr(flows.gone, "server_answers", lambda url: answers[0])
    return answers


def ending(error: Exception, file: Path | None = None) -> Callable[[], str]:
    def flow() -> str:
        if file is not None:
            file.write_text("new")
            os.utime(file, ns=(0, 7))
        raise error

    return flow


def test_the_result_of_a_run_that_had_ended_is_given_and_the_loss_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "verdict.json"
    with caplog.at_level(logging.WARNING):
        assert despite_its_server(ending(OSError(), file), file, Path.read_text) == "new"
    assert "http://pages/api: the Prefect server went away" in caplog.text


def test_an_earlier_result_is_not_taken_for_this_one(tmp_path: Path) -> None:
    file = tmp_path / "verdict.json"
    file.write_text("old")
    with pytest.raises(UserError, match=r"went away\. Start it .* finished stages and checkpoints are kept"):
        despite_its_server(ending(OSError()), file, Path.read_text)


def test_faults_beside_a_server_that_answers_and_refusals_pass(tmp_path: Path, server: list[bool]) -> None:
    file = tmp_path / "verdict.json"
    with pytest.raises(LeakageError):
        despite_its_server(ending(LeakageError("12 images")), file, Path.read_text)
    with pytest.raises(TypeError):
        despite_its_server(ending(TypeError("a fault of the program")), file, Path.read_text)
    server[0] = True
    with pytest.raises(OSError, match="x"):
        despite_its_server(ending(OSError("x"), file), file, Path.read_text)


def test_a_curve_says_what_it_found_though_its_server_went_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = build_curve(tmp_path / "curve")
    write_json(place / "looks.json", {"sentences": ["This is look 2."]})

    def drawn(*_: object) -> list[str]:
        (place / "curve.html").write_text("new")
        raise OSError

    monkeypatch.setattr(flows.flow, "curve_flow", drawn)
    said = curve_by_prefect(load_experiment(place / "config.yaml"), place, [10, 25], 3, ARMS[2], yes=True)
    assert said[0] == "This is look 2." and "10 a class: 0.710, 0.800, +9.0 points" in "\n".join(said)
    assert "went away" in caplog.text
