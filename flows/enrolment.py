"""Putting a split's register in its place: after the split has succeeded, by the process that holds the run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from flows.plan import Step
from pipeline.config.experiment import Experiment
from pipeline.core.cache import Execution, execute
from pipeline.core.errors import RefusedError, UserError
from pipeline.core.files import clear_disk_errors, digest_text, write_text
from pipeline.core.layout import REGISTER
from pipeline.data.cohort.register import Register, read_register

logger = logging.getLogger(__name__)
_NOTED = ".registers"


def require_register(experiment: Experiment, cache: Path) -> None:
    """Look at the register before anything is read: one that cannot be used is told at once.

    Raises:
        RefusedError: it was tampered with, or a run of this cache has filled it and it is gone.
    """
    if experiment.data.patient_register is None:
        return
    place = Path(experiment.data.patient_register)
    read_register(place)
    if not place.exists() and _note(place, cache).exists():
        raise RefusedError(
            f"{place}: the register of this study is gone, and without it old patients could move from train to test. "
            "Bring it back: the study's newest run has a copy, stages/split/register.json. To begin anew, name another "
            "file in data.patient_register."
        )


def enrol(experiment: Experiment, split: Step, made: Execution, directories: Mapping[str, Path], cache: Path) -> None:
    """Put the register that the split `made` proposes in place of the one that it was made from.

    The split is then made once more from the new register, which must give the same: so the next run finds it there.

    Args:
        directories: of the steps that the split needs.

    Raises:
        UserError: another run has changed the register since, or it cannot be written.
    """
    if experiment.data.patient_register is None:
        return
    place, proposed = Path(experiment.data.patient_register), read_register(made.directory / REGISTER)
    with clear_disk_errors(place), FileLock(place.with_name(f".{place.name}.lock")):
        before = read_register(place)
        changed = before.state != proposed.state
        if changed and before.state != made.record.inputs["register"]:
            raise UserError(f"{place}: another run has changed the register meanwhile. Run again.")
        if changed:
            _told(before, proposed).write(place)
        write_text(_note(place, cache), str(place))
    if not changed:
        return
    again = execute(split.stage(directories), cache)
    assert again.record.digest == made.record.digest, "a split and the register that it led to do not agree"


def _note(place: Path, cache: Path) -> Path:
    """Where the cache notes that a register was filled."""
    return cache / _NOTED / digest_text(str(place.resolve()))[:16]


def _told(before: Register, after: Register) -> Register:
    """The register with a new line of its history, which is logged too."""
    new = len(after.patients.keys() - before.patients.keys())
    gone, back = len(after.withdrawn() - before.withdrawn()), len(before.withdrawn() - after.withdrawn())
    counts = {"new": new, "withdrawn": gone, "returned": back}
    line = {"round": after.round, "when": datetime.now(UTC).isoformat(timespec="seconds"), **counts}
    logger.info("register: patients %s", ", ".join(f"{what} {number}" for what, number in counts.items()))
    if gone:
        logger.warning(
            "%d patient(s) are no longer in the source: what was made from them is stale, and `radaug status` names it",
            gone,
        )
    return replace(after, history=(*before.history, line), packs=before.packs)
