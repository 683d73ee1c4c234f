"""`radaug clean`: the cache of stages, held within an age and a size. What a run links to is never removed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from flows.run_directory import known_runs
from flows.status import runs_below
from pipeline.core.cache import HELPERS
from pipeline.core.errors import UserError
from pipeline.core.layout import CHECKPOINTS, RECORD, STAGES, SYNTHETIC

DAY_S = 86_400
_SETTLED_S = DAY_S
"""What was used since is left alone, whatever its size: a run may have found it and not linked to it yet."""
_NEAR = 2


@dataclass(frozen=True)
class Entry:
    """A stage in the cache, whole or half-written.

    Attributes:
        lock: held by the process that makes it.
        used: when it was last made or found, in seconds since 1970.
        size: in bytes.
    """

    place: Path
    lock: Path
    used: float
    size: int


@dataclass(frozen=True)
class Cleaning:
    """What a cleaning removes, or would; sizes in bytes."""

    removed: tuple[Entry, ...]
    size_before: int
    linked: int

    @property
    def freed(self) -> int:
        return sum(entry.size for entry in self.removed)

    @property
    def sentence(self) -> str:
        left = self.size_before - self.freed
        return (
            f"{len(self.removed)} stages of {_gib(self.freed)}; the cache then has {_gib(left)}, "
            f"of which runs link to {_gib(self.linked)}."
        )


def clean_cache(cache: Path, older_than_days: float, most_gib: float | None, *, really: bool) -> Cleaning:
    """Remove stages that no run links to: the ones not used for so long, and of the rest the oldest down to a size.

    Runs are those that were ever made with this cache, and those beside it. A stage that a process is making, or that
    was used within a day, stays.

    Args:
        most_gib: the size to come down to, of the whole cache; None = whatever it has.
        really: False = only say what would be removed.

    Raises:
        UserError: there is no cache.
    """
    if not cache.is_dir():
        raise UserError(f"{cache}: is not there: there is no cache to clean. Give the folder of your runs.")
    linked = _linked([*known_runs(cache), *runs_below(cache.resolve().parent, _NEAR)])
    entries = _entries(cache)
    total, now = sum(entry.size for entry in entries), time.time()
    loose = [entry for entry in entries if entry.place.resolve() not in linked and now - entry.used > _SETTLED_S]
    chosen, left = list[Entry](), total
    for entry in sorted(loose, key=lambda entry: entry.used):
        too_old = now - entry.used > older_than_days * DAY_S
        if (too_old or (most_gib is not None and left > most_gib * 2**30)) and (not really or _remove(entry)):
            chosen.append(entry)
            left -= entry.size
    held = sum(entry.size for entry in entries if entry.place.resolve() in linked)
    return Cleaning(tuple(chosen), total, held)


def _linked(runs: Sequence[Path]) -> set[Path]:
    """All stages that the runs link to."""
    folders = [run / name for run in runs for name in (STAGES, CHECKPOINTS, SYNTHETIC)]
    return {path.resolve() for folder in folders for path in folder.glob("*") if path.is_symlink()}


def _entries(cache: Path) -> list[Entry]:
    found = []
    for place in cache.iterdir():
        partial = HELPERS["partial"]
        name = place.name.removeprefix(partial)
        if place.is_dir() and ((place / RECORD).is_file() or name != place.name):
            size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
            used = max(path.lstat().st_mtime for path in (place, *place.iterdir()))
            found.append(Entry(place, cache / f"{HELPERS['lock']}{name}", used, size))
    return found


def _remove(entry: Entry) -> bool:
    """Remove it, unless a process is making it; out of its place at once, so that nobody sees half of it."""
    try:
        held = FileLock(entry.lock, timeout=0).acquire()
    except Timeout:
        return False
    with held:
        aside = entry.place.with_name(f".removed-{entry.place.name}-{os.getpid()}")
        try:
            os.replace(entry.place, aside)
        except OSError:
            return False
        shutil.rmtree(aside, ignore_errors=True)
    name = entry.lock.name.removeprefix(HELPERS["lock"])
    with suppress(OSError):
        entry.lock.with_name(f"{HELPERS['threads']}{name}").unlink(missing_ok=True)
    return True


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**27 else f"{size / 2**20:.1f} MiB"
