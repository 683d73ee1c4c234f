"""What a person sees of a run: on a terminal one block that is drawn anew below the finished jobs, else plain lines."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from flows.children import LOGGED
from flows.gone import print_nowhere
from flows.json_log import LOG_JSON, JsonLines
from pipeline.core.progress import PROGRESS

WHOLE_RUN = "flows.whole_run"
"""Logger of the line on what runs and how long the rest will take."""


class Terminal(Console):
    """Where a run is shown: it goes on where its reader is gone (`| head`, a schedule that was killed)."""

    def __init__(self) -> None:
        super().__init__(highlight=False)

    def on_broken_pipe(self) -> None:
        """Show nothing more. Rich's own ends the thread that it is called in."""
        self.quiet = True
        print_nowhere()


@contextmanager
def progress_shown(console: Console) -> Iterator[None]:
    """Show what the program's loggers say while the block lasts, and add it to the file of JSON lines where one is
    named. Prefect's own logs stay out."""
    live = Live(console=console, transient=True, refresh_per_second=2)
    handlers: list[logging.Handler] = [_Shown(live if console.is_terminal else None, console)]
    if log := os.environ.get(LOG_JSON):
        handlers.append(JsonLines(Path(log)))
    live.start()
    try:
        with heard_by(*handlers):
            yield
    finally:
        with suppress(OSError):  # of a terminal that was closed
            live.stop()


@contextmanager
def heard_by(*handlers: logging.Handler) -> Iterator[None]:
    """Give the handlers what the program's loggers say while the block lasts, and close them."""
    loggers = [logging.getLogger(name) for name in LOGGED]
    for logger in loggers:
        logger.setLevel(logging.INFO)
        for handler in handlers:
            logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            for handler in handlers:
                logger.removeHandler(handler)
        for handler in handlers:
            handler.close()


class _Shown(logging.Handler):
    """Lines of unfinished work go into the block, by the name of the work; all others are printed above it."""

    def __init__(self, live: Live | None, console: Console) -> None:
        super().__init__()
        self.live, self.console = live, console
        self._block: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._show(record)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self.console.on_broken_pipe()  # a terminal that was closed

    def _show(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if self.live is None or record.name not in (PROGRESS, WHOLE_RUN):
            self.console.print(Text(text), soft_wrap=True)
            return
        name, unfinished = record.name, True
        if record.name == PROGRESS:
            name, unfinished = record.what, record.done < record.total  # type: ignore[attr-defined]
        self._block.pop(name, None)
        if unfinished:
            self._block[name] = text
        self.live.update(Text("\n".join(self._block.values())))
