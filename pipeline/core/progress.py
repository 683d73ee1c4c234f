"""Progress of long work, as log lines: silent as a library, shown by the command line."""

from __future__ import annotations

import logging
import time

PROGRESS = "radaug.progress"
"""The logger. Its records have `what`, `done` and `total` as attributes too."""
logger = logging.getLogger(PROGRESS)


class Progress:
    """Says every few seconds how far the work is, how fast it goes and how long it will take.

    Args:
        what: name of the work, such as the stage's.
        total: units of work in all.
        unit: their name.
        done: units done before this process began (a resumed run).
    """

    def __init__(self, what: str, total: int, unit: str, *, done: int = 0, every_s: float = 5.0) -> None:
        self.what, self.total, self.unit, self.every_s = what, total, unit, every_s
        self._first = self._done = done
        self._start = self._said = time.monotonic()

    @property
    def rate(self) -> float:
        """Units a second since this process began."""
        return (self._done - self._first) / max(time.monotonic() - self._start, 1e-9)

    def _pace(self) -> str:
        return f"{self.rate:.0f} a second" if self.rate >= 1 else f"{1 / max(self.rate, 1e-9):.1f} s each"

    def update(self, done: int) -> None:
        self._done = done
        now = time.monotonic()
        if now - self._said < self.every_s and done < self.total:
            return
        self._said = now
        logger.info(
            "%s: %s of %s %s, %s, %s left",
            self.what, f"{done:,}", f"{self.total:,}", self.unit, self._pace(),
            in_minutes((self.total - done) / max(self.rate, 1e-9)),
            extra={"what": self.what, "done": done, "total": self.total},
        )  # fmt: skip


def in_words(minutes: float) -> str:
    """`about 6 minutes`: of an estimate, no finer than it deserves."""
    if minutes < 1.5:
        return "about a minute" if minutes > 0.5 else "less than a minute"
    if minutes < 90:
        return f"about {minutes:.0f} minutes"
    return f"about {minutes / 60:.1f} hours" if minutes < 48 * 60 else f"about {minutes / 1440:.1f} days"


def in_minutes(seconds: float) -> str:
    """`3 min 05 s`."""
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60:02d} s"
