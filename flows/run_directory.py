"""The directory a run leaves: links into the cache, the final files, and never half of two runs."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from flows.kept_report import drop_report_aside, set_report_aside
from flows.lease import holder_of, lease
from pipeline.config.experiment import Experiment
from pipeline.config.loading import dump_experiment
from pipeline.core.decisions import Looks
from pipeline.core.errors import UserError
from pipeline.core.files import (
    atomic_path,
    clear_disk_errors,
    digest_text,
    link,
    make_folder,
    read_json,
    write_json,
    write_text,
)
from pipeline.core.layout import (
    CHECKPOINTS,
    CONFIG,
    CURVE,
    CURVE_LEFT_OUT,
    CURVE_POINTS,
    CURVE_TABLE,
    FAULT_LOG,
    LEDGER,
    LOCK,
    LOOKS,
    MANIFEST,
    METRICS_FILE,
    PREDICTIONS,
    STAGES,
    SYNTHETIC,
    VERDICT,
    gan_name,
)
from pipeline.core.records import Record

logger = logging.getLogger(__name__)
_FINAL = (
    VERDICT,
    METRICS_FILE,
    PREDICTIONS,
    MANIFEST,
    LEDGER,
    LOOKS,
    CURVE,
    CURVE_TABLE,
    CURVE_POINTS,
    CURVE_LEFT_OUT,
    FAULT_LOG,
)
_RUNS = ".runs"
_ASKS_S = 1.0
"""Between two looks whether a run directory is free."""
_SHORTCUTS = {"synthesise": SYNTHETIC, "fit-gan": CHECKPOINTS}


def cache_of(out: Path) -> Path:
    """The cache of stages that a run into `out` uses: `RADAUG_CACHE`, or `.cache` beside `out`."""
    return Path(os.environ.get("RADAUG_CACHE") or out.parent / ".cache")


@contextmanager
def open_run(out: Path, experiment: Experiment, *, waits: bool = False) -> Iterator[None]:
    """Hold `out` for this process, emptied of an earlier run's files and with `config.yaml` in it.

    Args:
        waits: until no other process runs into `out`.

    Raises:
        UserError: another process is running into `out`, it holds files that are not a run's, or cannot be written.
    """
    with clear_disk_errors(out):
        make_folder(out)
        _refuse_foreign_folder(out)
        with _held(out, waits), lease(out):
            register(out)
            _clear(out)
            write_text(out / CONFIG, dump_experiment(experiment))
            yield
            drop_report_aside(out)


def _held(out: Path, waits: bool) -> AbstractContextManager[object]:
    lock = FileLock(out / LOCK)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        if not waits:
            raise UserError(f"{out}: another process runs into it. Wait for it, or choose another --out.") from None
    other = holder_of(out)
    logger.info("waits for %s, which runs into %s", f"process {other.pid} on {other.host}" if other else "another", out)
    return lock.acquire(poll_interval=_ASKS_S)


def register(out: Path) -> None:
    """Note in the cache that the run `out` may link into it, wherever that lies; `known_runs` reads it."""
    place = str(out.resolve())
    write_text(cache_of(out) / _RUNS / digest_text(place)[:16], place)


def known_runs(cache: Path) -> list[Path]:
    """The run directories that were ever made with `cache` and are still there."""
    noted = [Path(path.read_text(encoding="utf-8")) for path in sorted((cache / _RUNS).glob("[0-9a-f]*"))]
    return [run for run in noted if (run / LOCK).exists()]


def link_stage(out: Path, record: Record, directory: Path) -> None:
    """Link a finished stage into the run, and a generator or synthetic set where users look for it."""
    link(directory, out / STAGES / record.name)
    if record.kind in _SHORTCUTS:
        link(directory, out / _SHORTCUTS[record.kind] / gan_name(record.fold, record.gan_seed))


def publish_results(out: Path, directories: Mapping[str, Path], looks: Looks) -> None:
    """Copy the final tables into `out`; the verdict comes last, with `looks` at its top."""
    _copy(directories["split"] / MANIFEST, out / MANIFEST)
    for name in (PREDICTIONS, METRICS_FILE):
        _copy(directories["verdict"] / name, out / name)
    write_json(out / VERDICT, {"looks": looks, **read_json(directories["verdict"] / VERDICT)})


def _refuse_foreign_folder(out: Path) -> None:
    if any(out.iterdir()) and not (out / LOCK).exists():
        raise UserError(f"{out}: holds files that are not a run's, which a run could overwrite. Choose another --out.")
    if any(not path.is_symlink() for path in (out / STAGES).glob("*")):
        raise UserError(f"{out}: is an exported or copied run, which has files and no links. Choose another --out.")


def _clear(out: Path) -> None:
    set_report_aside(out)
    for name in _FINAL:
        (out / name).unlink(missing_ok=True)
    for folder in (STAGES, *_SHORTCUTS.values()):
        for path in (out / folder).glob("*"):
            if path.is_symlink():
                path.unlink()


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
