"""A flow run's log in its page of Prefect's."""

from __future__ import annotations

import logging
from uuid import UUID

from prefect.logging.handlers import APILogHandler

from flows.progress import WHOLE_RUN
from pipeline.core.progress import PROGRESS


class PageLog(APILogHandler):
    """Sends what is said to the page of `flow_run`, from whatever thread; not how far the work is, every few seconds,
    which would fill the server's database in long trainings."""

    def __init__(self, flow_run: str) -> None:
        super().__init__(logging.INFO)
        self._flow_run = UUID(flow_run)

    def emit(self, record: logging.LogRecord) -> None:
        if record.name not in (PROGRESS, WHOLE_RUN):
            record.flow_run_id = self._flow_run
            super().emit(record)
