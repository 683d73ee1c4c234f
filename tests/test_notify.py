"""The webhook: told once of each change, and never of what is none."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from flows.ledger import settings_of
from flows.notify import tell_change
from pipeline.config.loading import validate_experiment
from pipeline.core.errors import ConfigError
from pipeline.report.sharing import config_without_paths

DATA = {"source": {"kind": "phantom"}, "classes": ["a", "b"], "positive": ["b"]}


class Listener(HTTPServer):
    """Keeps what was posted, and answers with `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.heard: list[Any] = []
        self.status = 204

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?token=secret"


class _Handler(BaseHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        self.server.heard.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def verdicts(utility: str, release: str = "refuse") -> Any:
    return {"utility": {"decision": utility}, "release": {"decision": release}}


def test_a_change_is_told_once(listener: Listener, tmp_path: Path) -> None:
    told = [tell_change(listener.address, "study", tmp_path, verdicts(one)) for one in ("helps", "helps", "harms")]
    assert told == [True, False, True]
    first, second = listener.heard
    assert first["utility"] == {"before": None, "now": "helps"} and first["run"] == "study"
    assert second["utility"] == {"before": "helps", "now": "harms"}
    assert second["release"] == {"before": "refuse", "now": "refuse"}
    assert set(second) == {"run", "host", "utility", "release"}


def test_a_call_that_fails_is_made_again_by_the_next_run(
    listener: Listener, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listener.status = 500
    with caplog.at_level(logging.WARNING):
        assert not tell_change(listener.address, "study", tmp_path, verdicts("helps"))
        assert not tell_change("http://127.0.0.1:9/hook?token=secret", "study", tmp_path, verdicts("helps"))
    assert "answered 500" in caplog.text and "not reached" in caplog.text and "secret" not in caplog.text
    listener.status = 200
    assert tell_change(listener.address, "study", tmp_path, verdicts("helps"))


def test_nobody_is_told_unless_configured(tmp_path: Path) -> None:
    assert not tell_change("", "study", tmp_path, verdicts("helps"))
    assert not list(tmp_path.iterdir())


def test_the_address_changes_no_experiment_and_is_not_shared() -> None:
    plain, told = (
        validate_experiment({"name": "study", "data": DATA, "notify": {"webhook": webhook}}, "a test")
        for webhook in ("", "https://example.org/token")
    )
    assert settings_of(plain) == settings_of(told)
    assert "example.org" not in config_without_paths(told)
    with pytest.raises(ConfigError, match=r"notify\.webhook"):
        validate_experiment({"name": "study", "data": DATA, "notify": {"webhook": "example.org"}}, "a test")
