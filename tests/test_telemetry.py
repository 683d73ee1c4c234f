"""Spans of a run: one a job within one of the run, with no identifier, where OTEL_* asks for them, else nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from graph_stages import step
from test_graph import DEMO, Notes

import flows.telemetry
from flows.engines import direct_engine
from flows.graph import Graph
from flows.json_log import RUN
from flows.shares import Machine
from flows.telemetry import spans_of
from pipeline.config.loading import load_experiment
from pipeline.core.errors import RadaugError

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
needs_sdk = pytest.mark.skipif(
    not flows.telemetry.installed(), reason="OpenTelemetry is not installed: pip install 'radaug[otel]'"
)


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """A collector's address and what was posted to /v1/traces."""
    posted: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            posted.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", posted
        server.shutdown()


@needs_sdk
def test_a_collector_gets_a_span_a_job_and_no_identifier(
    collector: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    address, posted = collector
    monkeypatch.setenv(ENDPOINT, address)
    notes, machine = Notes(), Machine(2, 2, 2, 1e6)
    steps = [step("first"), step("bad", "first", what="crash"), step("whole", "first", parts=("a",))]
    experiment = load_experiment(DEMO, ["compute.device=cpu"])
    with pytest.raises(RadaugError), direct_engine(machine) as start, spans_of(notes) as told:
        Graph(experiment, steps, machine, tmp_path / "patient-77", tmp_path / "error.log", start, told).run()
    assert set(notes.ended) == {"first", "whole: a", "whole"} and notes.lost == ["bad"]  # handed on

    requests = [ExportTraceServiceRequest.FromString(one) for one in posted]
    spans = [span for one in requests for of in one.resource_spans for scope in of.scope_spans for span in scope.spans]
    assert sorted(span.name for span in spans) == ["bad", "first", "run", "whole", "whole"]
    (run,) = (span for span in spans if span.name == "run")
    (bad,) = (span for span in spans if span.name == "bad")
    assert {span.parent_span_id for span in spans} == {b"", run.span_id} and {span.trace_id for span in spans} == {
        run.trace_id
    }
    assert (bad.status.code, bad.status.message, run.status.code) == (2, "RadaugError", 2)
    facts = [{one.key: one.value.string_value for one in span.attributes} for span in spans]
    assert {one["radaug.run"] for one in facts} == {RUN} and "a" in {one.get("radaug.part") for one in facts}
    assert all(span.end_time_unix_nano > span.start_time_unix_nano for span in spans)
    assert b"patient-77" not in b"".join(posted) and str(tmp_path).encode() not in b"".join(posted)


@pytest.mark.parametrize("off", [{}, {"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_where_it_is_off_nothing_is_imported(off: dict[str, str]) -> None:
    code = (
        "import sys; from flows.telemetry import spans_of\n"
        "with spans_of('watcher') as told: assert told == 'watcher'\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[1]), **({ENDPOINT: "http://x"} if off else {}), **off}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_where_it_is_not_installed_a_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setattr(flows.telemetry, "find_spec", lambda name: None)
    notes = Notes()
    with spans_of(notes) as told:
        assert told is notes
    assert "pip install 'radaug[otel]'" in caplog.text
