"""Stages for the tests of the graph, in a module of their own: a child process finds them by its name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from flows.plan import Step
from pipeline.config.section import Section
from pipeline.core.cache import Stage
from pipeline.core.errors import DataError
from pipeline.core.files import write_text
from pipeline.core.records import Record


class Doing(Section):
    """What a stage does: `write`, `fail`, `crash`, `die` (kill itself), `hog` (memory), `sleep`, `nap` (half a second),
    `meet` (another)."""

    what: str = "write"
    parts: tuple[str, ...] = ()


def run(config: Doing, inputs: Mapping[str, Path], out_dir: Path) -> Record:
    """Note when it ran, in which process and what it had."""
    started = time.monotonic()
    if config.what == "fail":
        raise DataError("labels.csv: a label is missing.")
    if config.what == "crash":
        raise KeyError("patient-77")
    if config.what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if config.what == "hog":
        held = bytearray(1 << 45)
        del held
    if config.what == "meet":
        (out_dir.parent / f"here-{os.getpid()}").touch()
        while len(list(out_dir.parent.glob("here-*"))) < 2:
            time.sleep(0.02)
    if config.what == "nap":
        time.sleep(0.5)
    if config.what == "sleep":
        (out_dir.parent / f"pid-{os.getpid()}").touch()
        time.sleep(600)
    made = sorted(path.name for path in out_dir.iterdir())
    for path in out_dir.iterdir():
        path.unlink()
    write_text(out_dir / "made.txt", " ".join([*made, *sorted(inputs)]))
    return Record("stage", figures={"pid": os.getpid(), "began": started, "ended": time.monotonic()})


def run_part(config: Doing, inputs: Mapping[str, Path], out_dir: Path, part: str) -> None:
    if config.what == "die" and part == config.parts[-1]:
        os.kill(os.getpid(), signal.SIGKILL)
    write_text(out_dir / part, part)


def make(kind: str, config: Doing) -> Stage[Doing]:
    return Stage(kind, run, config, resumable=bool(config.parts), run_part=run_part if config.parts else None)


def step(kind: str, *needs: str, what: str = "write", parts: tuple[str, ...] = ()) -> Step:
    """A step called `kind` that does `what`."""
    return Step(kind, partial(make, kind, Doing(what=what, parts=parts)), {name: name for name in needs}, parts=parts)
