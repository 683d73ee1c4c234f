"""`radaug export RUN DIR`: a run that can be moved. It has no link: everything that it needs lies in it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.core.errors import UserError
from pipeline.core.files import clear_disk_errors, dangling_link, whole_folder
from pipeline.core.layout import FAULT_LOG, HOLDER, LOCK, VERDICT

_LEFT = (LOCK, FAULT_LOG, HOLDER, ".earlier", ".report-key")
"""What belongs to the making of a run, or to its place."""


def export_run(run_dir: Path, to: Path) -> int:
    """Copy the finished run into the new directory `to`, links as what they lead to; gives its size in bytes.

    Raises:
        UserError: the run has not ended, a link of it leads to nothing, or `to` is there already.
    """
    if not (run_dir / VERDICT).is_file():
        raise UserError(f"{run_dir}: has no {VERDICT}, so it has not ended. Let `radaug run` finish first.")
    for path in run_dir.rglob("*"):
        if dangling_link(path) is not None:
            raise UserError(
                f"{run_dir}: {path.relative_to(run_dir)} is a link that leads to nothing: the cache that it points "
                "into was moved or emptied. Bring it back, or do `radaug run` again."
            )
    if to.exists() or to.is_symlink():
        raise UserError(f"{to}: is there already and is not overwritten. Choose another DIR.")
    if to.resolve().is_relative_to(run_dir.resolve()):
        raise UserError(f"{to}: lies in the run itself. Choose another DIR.")
    try:
        with (
            FileLock(run_dir / LOCK, timeout=0),
            clear_disk_errors(to),
            whole_folder(to, "Choose another DIR.") as beside,
        ):
            shutil.copytree(run_dir, beside, ignore=_left(run_dir), dirs_exist_ok=True)
            (beside / LOCK).touch()
    except Timeout:
        raise UserError(f"{run_dir}: another process runs into it. Wait for it.") from None
    return sum(path.stat().st_size for path in to.rglob("*") if path.is_file())


def _left(run_dir: Path) -> Callable[[str, list[str]], set[str]]:
    """What is not copied: names at the run's top, not those of a stage."""
    return lambda folder, names: set(names) & set(_LEFT) if Path(folder) == run_dir else set()
