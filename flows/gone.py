"""What has gone while a command runs: the Prefect server of its flow, or whoever read what it prints."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from flows.server import API_URL, server_answers
from pipeline.core.errors import RadaugError, UserError

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
_OWN_FAULTS = (AssertionError, AttributeError, ImportError, LookupError, NameError, TypeError)
"""Of a program, whatever became of its server."""
_at_once = threading.Event()


def despite_its_server(flow: Callable[[], Result], file: Path, read: Callable[[Path], Result]) -> Result:
    """The result of `flow`. A server that is back in time changes nothing; where it is not, Prefect fails the flow, be
    all its work done or not, and the result is read from `file`, where the flow has written that anew.

    Raises:
        UserError: the server does not answer any more, and the work is not done.
        RadaugError: the flow's own.
    """
    before = _written(file)
    try:
        return flow()
    except (RadaugError, *_OWN_FAULTS):
        raise
    except Exception:
        url = os.environ.get(API_URL, "")
        if server_answers(url):
            raise
        leave_at_once()
        if _written(file) in (None, before):
            raise UserError(
                f"{url}: the Prefect server went away. Start it and run the same command again: finished stages and "
                "checkpoints are kept. `--engine direct` needs no server."
            ) from None
        logger.warning("%s: the Prefect server went away, and does not know that this run has ended.", url)
        return read(file)


def leave_at_once() -> None:
    """Let `leave` wait for nothing: Prefect would try each event again that a lost server has not got, for minutes."""
    _at_once.set()


def print_nowhere() -> None:
    """Let what is still to be printed, or flushed, go nowhere: its reader has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def leave(code: int) -> NoReturn:
    """End this process; after `leave_at_once` whatever its threads still do."""
    if _at_once.is_set():
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)


def _written(file: Path) -> int | None:
    return file.stat().st_mtime_ns if file.is_file() else None
