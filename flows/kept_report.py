"""The report of a run that found everything in the cache is the one that lies there: drawing it again takes seconds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pipeline.report
from pipeline.core.files import digest_file, digest_json, digest_tree, write_text
from pipeline.core.layout import (
    CONFIG,
    FIGURES,
    LEDGER,
    RECORD,
    REPORT,
    SHAREABLE_REPORT,
    SHAREABLE_SUMMARY,
    STAGES,
    SUMMARY,
    VERDICT,
)
from pipeline.core.sources import reach_of, version_of

_ASIDE = ".earlier"
_KEY = ".report-key"
_REPORT = (REPORT, SHAREABLE_REPORT, SUMMARY, SHAREABLE_SUMMARY, FIGURES, _KEY)
_DRAWN_WITH = ("matplotlib", "jinja2", "numpy", "pandas", "pillow")


def set_report_aside(out: Path) -> None:
    """Take an earlier run's report out of sight, so that nobody takes it for that of a run that has not ended.

    One that a failed run took aside stays there for the next.
    """
    if (out / REPORT).exists():
        shutil.rmtree(out / _ASIDE, ignore_errors=True)
    for name in _REPORT:
        if (out / name).exists():
            (out / _ASIDE).mkdir(exist_ok=True)
            (out / name).rename(out / _ASIDE / name)


def drop_report_aside(out: Path) -> None:
    """Forget the earlier run's report."""
    shutil.rmtree(out / _ASIDE, ignore_errors=True)


def bring_report(out: Path, write: Callable[..., object]) -> None:
    """Bring the earlier report back if all that it was made of is as it was, else `write` it anew.

    Args:
        write: the report of a run; with `shareable=True` the shareable one, written anew where one was there.
    """
    key, aside = _key(out), out / _ASIDE
    if (aside / REPORT).is_file() and (aside / _KEY).is_file() and (aside / _KEY).read_text(encoding="utf-8") == key:
        for path in aside.iterdir():
            path.rename(out / path.name)
    else:
        write(out)
        if (aside / SHAREABLE_REPORT).is_file():
            write(out, shareable=True)
        write_text(out / _KEY, key)


def _key(out: Path) -> str:
    """Digest of what a report is made of: the run's decisions, all stages' records, and the program that draws it."""
    files = [out / CONFIG, out / VERDICT, out / LEDGER, *sorted(out.glob(f"{STAGES}/*/{RECORD}"))]
    program = Path(pipeline.report.__file__).parent
    return digest_json(
        [
            {path.relative_to(out).as_posix(): digest_file(path) for path in files},
            {name: facts for name, facts in digest_tree(program).items() if "__pycache__" not in name},
            reach_of(frozenset({"pipeline.report.page"})).digest,
            {name: version_of(name) for name in _DRAWN_WITH},
        ]
    )
