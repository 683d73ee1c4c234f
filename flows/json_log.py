"""A run's log as JSON lines, for machines that watch machines."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from pathlib import Path

from pipeline.core.errors import UserError

LOG_JSON = "RADAUG_LOG_JSON"
"""Environment variable: the file that the lines are added to."""
RUN = uuid.uuid4().hex
"""An id of this process's start, in its log and its spans."""
_NUMBERS = ("done", "total", "jobs", "seconds")
_FOLD = re.compile(r"-fold-(\d+)")


class JsonLines(logging.FileHandler):
    """One object a line: time (UTC), level, logger, run, stage, fold, event; done and total where work goes on; seconds
    that a stage took or that are left, and jobs that are left, of the run as a whole.

    `event` is what the record says that it is, else its message without what was put into it (`%s: %s of %s`), since
    that may name a patient or a folder.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            super().__init__(path, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{LOG_JSON}: {path} cannot be written ({error.strerror}). Name another file.") from None

    def format(self, record: logging.LogRecord) -> str:
        job = str(getattr(record, "job", ""))
        fold = _FOLD.search(job)
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "run": RUN,
            "stage": _FOLD.split(job.split(":")[0])[0] or None,
            "fold": int(fold[1]) if fold else None,
            "event": getattr(record, "event", getattr(record, "template", record.msg)),
        }
        return json.dumps(line | {name: getattr(record, name) for name in _NUMBERS if hasattr(record, name)})
