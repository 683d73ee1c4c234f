"""What was made from patients who have withdrawn since: runs, told by their manifests, and packs, by the register.

Patients withdraw by leaving the source; the next run of the study notes it in its register (`data.patient_register`).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from flows.environment import user_cache
from pipeline.core.errors import RadaugError, RefusedError
from pipeline.core.files import clear_disk_errors, read_json, write_text
from pipeline.core.layout import MANIFEST, MODEL, RECORD, STAGES
from pipeline.core.records import load_record, records_of
from pipeline.data.cohort.register import Register, read_register

_PACKS = "packs"
_GONE = "whether its patients have withdrawn cannot be told: the register {} is not there. Bring it back."


def register_of(run: Path) -> Path | None:
    """The register that the run's split was made with, if any."""
    split = run / STAGES / "split"
    named = load_record(split).config.get("register_path") if (split / RECORD).is_file() else ""
    return Path(named) if named else None


def why_stale(run: Path) -> str:
    """A sentence that says why the run `run` may not be used any more; empty where nobody has withdrawn.

    Raises:
        RefusedError: the register was tampered with.
    """
    for other, weights in _began_with(run):
        if why := why_stale(other):
            return f"Stale, as is the run whose generator its GAN began with. {why}"
        if register_of(other) and read_json(weights["model"])["weights"] != weights["digests"]:
            return "Stale: the generator that its GAN began with was made anew since. Do `radaug run` again."
    place = register_of(run)
    if place is None:
        return ""
    if not place.is_file():
        return f"Stale: {_GONE.format(place)}"
    gone = len(read_register(place).withdrawn() & _patients(run))
    if gone:
        return f"Stale: {gone} of its patients have withdrawn since. Do `radaug run` again, and remove what it made."
    return ""


def told_stale(run: Path) -> str:
    """As `why_stale`, with what is wrong about the register in its place."""
    try:
        return why_stale(run)
    except (RadaugError, OSError) as error:
        return f"Stale: {error}"


def note_pack(run: Path, digest: str) -> None:
    """Note a pack that is about to be: in the register with its patients, and for this user where that register lies.

    Raises:
        RefusedError: the register was tampered with.
    """
    place = register_of(run)
    if place is None:
        return
    with clear_disk_errors(place), FileLock(place.with_name(f".{place.name}.lock")):
        register = read_register(place)
        when = datetime.now(UTC).isoformat(timespec="seconds")
        runs = [run, *(other for other, _ in _began_with(run) if register_of(other) == place)]
        patients = set().union(*map(_patients, runs))
        line = {"digest": digest, "when": when, "run": run.name, "patients": sorted(patients)}
        replace(register, packs=(*register.packs, line)).write(place)
    write_text(user_cache() / _PACKS / digest, str(place.resolve()))


def refuse_stale_pack(digest: str, register: Path | None = None) -> None:
    """Refuse a pack whose patients have withdrawn since it was made; one of which nothing is noted passes.

    Args:
        digest: as `radaug verify` prints it.
        register: where it was made from; unless given, where this user's own packs were.

    Raises:
        RefusedError: as above, or the register is gone or does not know the pack.
    """
    note = user_cache() / _PACKS / digest
    if register is None and not note.is_file():
        return
    place = register or Path(note.read_text(encoding="utf-8"))
    if not place.is_file():
        raise RefusedError(f"pack {digest[:12]}: {_GONE.format(place)}")
    found = [gone for line, gone in _packs(read_register(place)) if line == digest]
    if not found:
        raise RefusedError(f"pack {digest[:12]}: was not made by a study with the register {place}. Name its own.")
    if found[0]:
        raise RefusedError(
            f"pack {digest[:12]}: is stale: {found[0]} of the patients behind it have withdrawn since it was made. "
            "Remove it, tell its receivers this digest, and do `radaug run` and `radaug release` again."
        )


def stale_packs(run: Path) -> list[str]:
    """A sentence for each pack of the run's study whose patients have withdrawn since; none where nobody can tell."""
    packs: list[tuple[str, int]] = []
    with suppress(RadaugError):
        if place := register_of(run):
            packs = [(digest, gone) for digest, gone in _packs(read_register(place)) if gone]
    return [f"Pack {digest}: stale, {gone} of the patients behind it have withdrawn." for digest, gone in packs]


def _packs(register: Register) -> list[tuple[str, int]]:
    """Digest of each pack, and how many of its patients have withdrawn."""
    gone = register.withdrawn()
    return [(str(line["digest"]), len(gone.intersection(line["patients"]))) for line in register.packs]


def _began_with(run: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Other runs whose weights its GANs began with (`gan.start_from`): where, and which weights they were."""
    for record, _ in records_of((one for one in (run / STAGES).glob("*") if (one / RECORD).is_file()), "fit-gan"):
        start = record.config.get("start")
        if start and Path(start["split"]).is_dir():
            model = Path(start["place"]) / MODEL
            yield Path(start["split"]).parents[1], {"model": model, "digests": start["weights"]}


def _patients(run: Path) -> set[str]:
    """Patients of whom the run used an image."""
    with (run / STAGES / "split" / MANIFEST).open(encoding="utf-8", newline="") as lines:
        return {row["patient_id"].strip() for row in csv.DictReader(lines) if row["fate"] == "used"}
