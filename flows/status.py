"""`radaug status`: what runs, what has ended, and what came of it, from the files of runs alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.lease import Holder, holder_of
from flows.withdrawn import stale_packs, told_stale
from pipeline.core.errors import UserError
from pipeline.core.files import read_json
from pipeline.core.layout import CONFIG, CURVE, FAULT_LOG, LOCK, STAGES, VERDICT

RUNNING, KILLED, FINISHED, FAILED, STOPPED = "running", "killed", "finished", "failed", "stopped"
_DEEPEST = 3


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands.

    Attributes:
        state: `running`; `running on HOST` where that is another machine, of which nothing more can be told; `killed`:
            its process is gone without a word; `finished`; `failed`: an unexpected fault ended it; `stopped`: it ended
            before its verdict by an error that it told, or by Ctrl-C or SIGTERM.
        changed: when it last did something, ISO 8601, UTC.
        stages: finished ones that the run links to.
        utility, release: the decisions of a finished run, else empty.
        stale: why what the run made may not be used any more, such as patients who have withdrawn; else empty.
    """

    run: str
    state: str
    changed: str
    stages: int
    utility: str
    release: str
    stale: str


def print_status(place: Path, *, as_json: bool) -> None:
    """Print all runs in `place`, the last changed first.

    Raises:
        UserError: there is no such folder.
    """
    if not place.is_dir():
        raise UserError(f"{place}: is not there. Give the folder of your runs, or one run.")
    rows = sorted((status_of(run) for run in runs_below(place)), key=lambda row: row.changed, reverse=True)
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    elif not rows:
        print(f"No run in {place}.")
    else:
        Console().print(_table(rows))
        stale = {f"{row.run}: {row.stale}" for row in rows if row.stale}
        packs = {line for row in rows for line in stale_packs(Path(row.run))}
        print("\n".join([*sorted(stale), *sorted(packs)]), end="\n" if stale or packs else "")


def runs_below(place: Path, deepest: int = _DEEPEST) -> Iterator[Path]:
    """Run directories in `place`, itself included; folders in a run are not looked into, nor hidden ones."""
    if (place / LOCK).exists():
        yield place
    elif deepest:
        for folder in sorted(place.iterdir()):
            if folder.is_dir() and not folder.is_symlink() and not folder.name.startswith("."):
                yield from runs_below(folder, deepest - 1)


def status_of(run: Path) -> RunStatus:
    """What the files of the run directory `run` say."""
    verdict = run / VERDICT
    decided = read_json(verdict) if verdict.is_file() else {}
    utility, release = (str(decided[part]["decision"]) if decided else "" for part in ("utility", "release"))
    linked = [path for path in (run / STAGES).glob("*") if path.is_dir()]
    changed = max(path.lstat().st_mtime for path in (run, *run.glob("*"), *(run / STAGES).glob("*")))
    when = datetime.fromtimestamp(changed, UTC).isoformat(timespec="seconds")
    return RunStatus(str(run), _state(run, holder_of(run)), when, len(linked), utility, release, told_stale(run))


def _state(run: Path, holder: Holder | None) -> str:
    if holder is not None and not holder.here:
        return f"{RUNNING} on {holder.host}"
    if holder is not None:
        return RUNNING if holder.alive else KILLED
    if (run / VERDICT).is_file() or (run / CURVE).is_file():
        return FINISHED
    return FAILED if (run / FAULT_LOG).is_file() and (run / CONFIG).is_file() else STOPPED


def _table(rows: list[RunStatus]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("run", "state", "age", "stages", "utility", "release"):
        table.add_column(name, justify="right" if name in ("age", "stages") else "left", overflow="fold")
    for row in rows:
        state = f"{row.state}, stale" if row.stale else row.state
        table.add_row(row.run, state, _age(row.changed), str(row.stages), row.utility, row.release)
    return table


def _age(when: str) -> str:
    minutes = (datetime.now(UTC) - datetime.fromisoformat(when)).total_seconds() / 60
    for unit, length in (("days", 1440), ("h", 60)):
        if minutes >= 2 * length:
            return f"{minutes / length:.0f} {unit}"
    return f"{minutes:.0f} min"
