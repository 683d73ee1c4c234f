"""Spans of a run and its stages by OpenTelemetry, where the standard OTEL_* variables ask for them; else nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from flows.graph import Job, Watcher
from flows.json_log import RUN
from flows.plan import Step
from pipeline.core.cache import Execution
from pipeline.core.errors import RadaugError

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

logger = logging.getLogger(__name__)
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter")


@contextmanager
def spans_of(watcher: Watcher) -> Iterator[Watcher]:
    """Gives `watcher`, or one that tells it everything and makes a span of every job within one of the whole run.

    Spans go where OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_TRACES_EXPORTER (`otlp`, `console`) sends them. They hold the
    kind of a stage, its fold, its seeds and whether it was cached, and of an error its type: no text, name, path or id.
    The provider is not the global one, through which Prefect would send what it likes.
    """
    if not _asked():
        yield watcher
        return
    if not installed():
        logger.warning("OTEL_* is set, and OpenTelemetry is not installed: no spans. pip install 'radaug[otel]'")
        yield watcher
        return
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    resource = Resource.create({} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "radaug"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(_processor())
    tracer = provider.get_tracer("radaug")
    try:
        facts = {"radaug.run": RUN}
        with tracer.start_as_current_span(
            "run", attributes=facts, record_exception=False, set_status_on_exception=False
        ) as whole:
            yield Spans(watcher, tracer, whole)
    finally:
        provider.shutdown()


def installed() -> bool:
    """Whether OpenTelemetry's SDK and its exporter over HTTP are there."""
    return all(find_spec(name) is not None for name in _NEEDED)


def _asked() -> bool:
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "")
    return exporter != "none" and bool(exporter or any(os.environ.get(name) for name in _ENDPOINTS))


def _processor() -> Any:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor

    if os.environ.get("OTEL_TRACES_EXPORTER") == "console":
        return SimpleSpanProcessor(ConsoleSpanExporter())
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return BatchSpanProcessor(OTLPSpanExporter())


class Spans:
    """Makes spans of jobs, and hands on what it is told."""

    def __init__(self, watcher: Watcher, tracer: Tracer, whole: Span) -> None:
        self.watcher, self.tracer, self.whole = watcher, tracer, whole
        self._running: dict[str, Span] = {}

    def begins(self, steps: Sequence[Step], seconds: float) -> None:
        self.watcher.begins(steps, seconds)

    def started(self, job: Job, threads: int) -> None:
        step = job.step
        facts = {"stage": step.kind, "fold": step.fold, "gan_seed": step.gan_seed, "variant": step.variant or None,
                 "part": job.part or None, "threads": threads, "run": RUN}  # fmt: skip
        known = {f"radaug.{name}": value for name, value in facts.items() if value is not None}
        self._running[job.name] = self.tracer.start_span(step.kind, attributes=known)
        self.watcher.started(job, threads)

    def finished(self, job: Job, execution: Execution | None) -> None:
        span = self._running.pop(job.name)
        if execution is not None:
            span.set_attribute("radaug.cached", execution.cached)
        span.end()
        self.watcher.finished(job, execution)

    def failed(self, job: Job, error: RadaugError) -> None:
        from opentelemetry.trace import Status, StatusCode

        span, status = self._running.pop(job.name), Status(StatusCode.ERROR, type(error).__name__)
        span.set_status(status)
        span.end()
        self.whole.set_status(status)
        self.watcher.failed(job, error)

    def waiting(self, jobs: int, seconds: float) -> None:
        self.watcher.waiting(jobs, seconds)
