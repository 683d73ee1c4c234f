"""The ledger: every look at test patients over all runs of a cache, what it decided, and who was seen before.

A run, a low-data curve, or a reader study that shows held-out images is one look. `ledger.json` lies beside the cache's
stages and moves with them. It holds no id: a patient is known again by digests of its images' pixels and, for ids that
are not mere numbers, of its id.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from flows.older_ledger import older_looks
from pipeline.config.experiment import Experiment
from pipeline.core.errors import UserError
from pipeline.core.files import clear_disk_errors, digest_json, digest_text, write_json
from pipeline.core.layout import LEDGER as OLDER
from pipeline.core.layout import MANIFEST, SPLITS_FILE
from pipeline.core.patients import known_patients, patient_units
from pipeline.data.batches.dataset import read_table

LEDGER = "ledger.json"
LOOKING = ("downstream", "detect", "shift", "privacy", "fit-shadow", "attack", "verdict")
"""Kinds of stages that open images of test patients."""
UNFINISHED = "unfinished"
READERS, SHOWN = "readers", "shown to readers"
SIDES = ("test", "external")
_VERSION = 2
_SMALL = 10_000

Patients = list[list[str]]
"""A patient an entry: the digest of its id (empty where there is none to compare), then those of its images."""


@dataclass(frozen=True)
class Look:
    """One look at test patients.

    Attributes:
        what: `run`, `curve` or `readers`.
        settings: digest of the experiment, by which a run that was killed and goes on is known.
        fingerprint: of the verdict's stage, of the curve, or of the study.
        result: digest of what was found: the same result again is not another look.
        utility, release: the decisions, or `unfinished`; of readers that they saw the images.
        sets: the digest of all test images, and of the external site's where there is one.
    """

    when: str
    run: str
    what: str
    settings: str
    fingerprint: str
    result: str
    utility: str
    release: str
    sets: dict[str, str]


@dataclass
class Ledger:
    """Looks in the order in which they were made, and the patients of the sets that they looked at."""

    looks: list[Look] = field(default_factory=list)
    sets: dict[str, Patients] = field(default_factory=dict)


def begin_look(cache: Path, split: Path, experiment: Experiment, what: str, settings: str) -> None:
    """Note that test images have been opened; nothing where this experiment's look is in the ledger already.

    A run that then fails has looked all the same. When it goes on and ends, it is still the one look.

    Raises:
        UserError: the ledger cannot be read or written.
    """
    with _changed(cache) as ledger:
        seen = _seen_by(split, experiment, ledger)
        if not any(look.settings == settings and look.sets == seen for look in ledger.looks):
            ledger.looks.append(Look(_now(), experiment.name, what, settings, "", "", UNFINISHED, UNFINISHED, seen))


def finish_look(
    cache: Path, split: Path, experiment: Experiment, named: Callable[[str, dict[str, str]], Look]
) -> tuple[Ledger, int]:
    """Put a finished look into the ledger, unless the same result stands there, and give the ledger and its place.

    Args:
        named: makes the look, given the time and the digests of the sets.

    Raises:
        UserError: the ledger cannot be read or written.
    """
    with _changed(cache) as ledger:
        made = named(_now(), _seen_by(split, experiment, ledger))
        ledger.looks = [one for one in ledger.looks if (one.settings, one.utility) != (made.settings, UNFINISHED)]
        for place, one in enumerate(ledger.looks):
            same = one.fingerprint == made.fingerprint or (one.result == made.result and one.result != "")
            if same and one.sets == made.sets:
                return ledger, place
        ledger.looks.append(made)
        return ledger, len(ledger.looks) - 1


def note_readers(cache: Path, split: Path, experiment: Experiment, study: str, images: Iterable[str]) -> int:
    """Note that people are shown these test images, once a study; how many patients they are of.

    What is chosen after people saw the images is chosen after a look, whether or not a figure was computed.

    Args:
        study: digest of what the page shows.
        images: ids.

    Raises:
        UserError: the ledger cannot be read or written.
    """
    tested = tested_images(split, "test")
    rows = tested[tested["image_id"].isin(set(images))]
    with _changed(cache) as ledger:
        seen = digest_of_images(rows)
        ledger.sets[seen] = _patients(rows, comparable_ids=not experiment.data.simulated)
        if not any((one.what, one.fingerprint) == (READERS, study) for one in ledger.looks):
            ledger.looks.append(Look(_now(), experiment.name, READERS, study, study, study, SHOWN, "", {"test": seen}))
        return len(ledger.sets[seen])


def settings_of(experiment: Experiment, *more: object) -> str:
    """Digest of an experiment whatever it is called and however many processes and threads, wherever, run it."""
    where = {"workers", "threads", "engine", "cluster"}
    unlike: dict[str, Any] = {"name": True, "notify": True, "fetch": True, "compute": where}
    return digest_json([experiment.model_dump(mode="json", exclude=unlike), *more])[:16]


def read_ledger(cache: Path) -> Ledger:
    """The ledger of a cache, with the looks that an older version of radaug kept; empty where there is none.

    Raises:
        UserError: it is damaged, or of another version.
    """
    path = cache / LEDGER
    ledger = _parsed(path) if path.is_file() else Ledger()
    known = {look.fingerprint for look in ledger.looks}
    older = [Look(**row) for row in older_looks(cache / OLDER) if row["fingerprint"] not in known]
    return Ledger([*older, *ledger.looks], ledger.sets)


def _parsed(path: Path) -> Ledger:
    mend = "Bring back a copy of it, or move it away: the count of looks then begins anew."
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        version = value["version"]
        if version != _VERSION:
            raise UserError(
                f"{path}: the ledger of looks is of version {version}, and this radaug reads version {_VERSION}. Use "
                "the radaug that wrote it, or move it away: the count of looks then begins anew."
            )
        return Ledger([Look(**look) for look in value["looks"]], dict(value["sets"]))
    except (ValueError, TypeError, KeyError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: the ledger of looks is damaged or cut short. {mend}") from error


@contextmanager
def _changed(cache: Path) -> Iterator[Ledger]:
    """The ledger, held for this process and written when the block ends well."""
    with clear_disk_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / ".lock-ledger"):
            ledger = read_ledger(cache)
            yield ledger
            used = {digest for look in ledger.looks for digest in look.sets.values()}
            kept = {digest: patients for digest, patients in ledger.sets.items() if digest in used}
            looks = [asdict(look) for look in ledger.looks]
            write_json(cache / LEDGER, {"version": _VERSION, "looks": looks, "sets": kept})


def _seen_by(split: Path, experiment: Experiment, ledger: Ledger) -> dict[str, str]:
    """Digests of the sets that are opened, which are put into the ledger."""
    found = {}
    comparable = not experiment.data.simulated
    for side in SIDES:
        rows = tested_images(split, side)
        if len(rows):
            found[side] = digest_of_images(rows)
            ledger.sets[found[side]] = _patients(rows, comparable_ids=comparable)
    return found


def tested_images(split: Path, side: str) -> pd.DataFrame:
    """Rows of the split's manifest whose images are on `side` in some fold."""
    splits, manifest = read_table(split / SPLITS_FILE), read_table(split / MANIFEST)
    return manifest[manifest["image_id"].isin(set(splits.loc[splits["split"] == side, "image_id"]))]


def digest_of_images(rows: pd.DataFrame) -> str:
    """12 hex digits over the pixels of all images."""
    return digest_json(sorted(rows["pixel_digest"]))[:12]


def _patients(rows: pd.DataFrame, *, comparable_ids: bool) -> Patients:
    """The patients of images, as digests; an image without a patient is one. Simulated patients share their names."""
    images = zip(patient_units(rows), known_patients(rows), rows["pixel_digest"].str[:16], strict=True)
    found: dict[str, list[str]] = {}
    for unit, name, pixels in sorted(set(images)):
        told = comparable_ids and name and not (name.isascii() and name.isdigit() and int(name) < _SMALL)
        found.setdefault(unit, [digest_text(f"patient {name}")[:16] if told else ""]).append(pixels)
    return sorted(found.values())


def shared_patients(ledger: Ledger, mine: str, theirs: Iterable[str]) -> tuple[int, int]:
    """How many patients of the set `mine` the sets `theirs` have too: known by an image, and by the id alone.

    Of a set that an older version noted no patient is kept: it is known again as a whole only.
    """
    own, others = ledger.sets.get(mine, []), list(theirs)
    if mine in others:
        return len(own), 0
    known = [patient for digest in others for patient in ledger.sets.get(digest, [])]
    images = {image for patient in known for image in patient[1:]}
    ids = {patient[0] for patient in known} - {""}
    by_image = [bool(images & set(patient[1:])) for patient in own]
    by_id = [patient[0] in ids and not seen for patient, seen in zip(own, by_image, strict=True)]
    return sum(by_image), sum(by_id)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
