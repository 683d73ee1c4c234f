"""What a register says of the patients that are there now, and what speaks against using it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from pipeline.core.errors import DataError, RefusedError
from pipeline.core.patients import known_patients, patient_units
from pipeline.data.cohort.audit_rows import INFO, WARNING, Row
from pipeline.data.cohort.identities import spelling
from pipeline.data.cohort.register import Register, digest_of_image, next_register

_OWN = "Name the study's own file in data.patient_register, or one that is not there yet to begin anew."


@dataclass(frozen=True)
class Known:
    """Patients who have their side already, and the order in which images came.

    Attributes:
        sides: unit (as of `patient_units`) -> side in each fold.
        rounds: image_id -> the round of the register in which it was first seen; None where no register is kept.
    """

    sides: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rounds: Mapping[str, int] | None = None

    def in_fold(self, number: int) -> dict[str, str]:
        """unit -> side in the fold."""
        return {unit: sides[number] for unit, sides in self.sides.items()}

    def held(self, number: int) -> set[str]:
        """Units that are validated or tested in the fold."""
        return {unit for unit, side in self.in_fold(number).items() if side != "train"}

    def tested(self) -> dict[str, str]:
        """unit -> number of the fold that tests it, as text."""
        return {unit: str(sides.index("test")) for unit, sides in self.sides.items() if "test" in sides}


NOBODY = Known()


def known_of(
    register: Register, manifest: pd.DataFrame, rejected: pd.DataFrame, study: Mapping[str, Any], max_withdrawn: float
) -> Known:
    """What `register` says of the images of `manifest`.

    Args:
        manifest: image_id, path, patient_id of all images that can be used.
        rejected: image_id of those that cannot.
        study: what the register must belong to.

    Raises:
        DataError: an image has no patient id; an id is spelled otherwise than in the register; or more patients are
            gone than `max_withdrawn` allows, as when a part of the source is not mounted.
        RefusedError: the register is another study's.
    """
    _require_ids(manifest)
    if register.round:
        _refuse_other_study(register, study)
        _refuse_other_spelling(register, manifest)
        _refuse_strangers(register, manifest)
        _refuse_many_gone(register, manifest, rejected, max_withdrawn)
    round_of = {
        (name, digest): int(number)
        for name, one in register.patients.items()
        for number, digests in one.images.items()
        for digest in digests
    }
    pairs = zip(known_patients(manifest), map(digest_of_image, manifest["image_id"]), strict=True)
    rounds = [round_of.get(pair, register.round + 1) for pair in pairs]
    units = dict(zip(known_patients(manifest), patient_units(manifest), strict=True))
    sides = {unit: register.patients[name].sides for name, unit in units.items() if name in register.patients}
    return Known(
        {unit: own for unit, own in sides.items() if own}, dict(zip(manifest["image_id"], rounds, strict=True))
    )


def after_split(
    register: Register,
    manifest: pd.DataFrame,
    rejected: pd.DataFrame,
    study: Mapping[str, Any],
    folds: list[dict[str, str]],
) -> Register:
    """The register once this split stands, without history and packs, which decide nothing.

    Args:
        folds: side of every labelled image in each fold, before any low-data draw.
    """
    names = known_patients(manifest)
    sides = {name: tuple(fold[image] for fold in folds)
             for name, image in zip(names, manifest["image_id"], strict=True) if image in folds[0]}  # fmt: skip
    bare = replace(register, history=(), packs=())
    return next_register(bare, study, _images(manifest), sides, _digests(rejected))


def register_rows(register: Register) -> list[Row]:
    """Rows of the audit: the same ones, whether the split was made from this register or led to it."""
    gone, there = len(register.withdrawn()), len(register.patients)
    told = f"{gone} of its {there} patients are no longer in the source"
    return [
        (
            "patients in the register",
            INFO,
            there,
            f"{there} patients keep their side of the split.",
        ),
        ("withdrawn patients", WARNING if gone else INFO, gone, f"{told}: what was made from them is stale."),
    ]


def _images(manifest: pd.DataFrame) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, image in zip(known_patients(manifest), manifest["image_id"], strict=True):
        found.setdefault(name, set()).add(digest_of_image(image))
    return found


def _digests(rejected: pd.DataFrame) -> set[str]:
    return set(map(digest_of_image, rejected["image_id"]))


def _require_ids(manifest: pd.DataFrame) -> None:
    without = manifest[known_patients(manifest) == ""]
    if len(without):
        raise DataError(
            f"data.patient_register: {len(without)} of {len(manifest)} images have no patient id, so nobody can tell "
            f"whether they belong to a patient who has a side already. The first: {without['path'].iloc[0]}. Give "
            "every image one (data.source.columns.patient_id, patient_pattern, headers), or go without a register."
        )


def _refuse_other_study(register: Register, study: Mapping[str, Any]) -> None:
    other = [name for name in study if register.study.get(name) != study[name]]
    if other:
        was = ", ".join(f"{name} {register.study.get(name)}" for name in other)
        now = ", ".join(f"{name} {study[name]}" for name in other)
        raise RefusedError(f"data.patient_register: the register is of another study: {was}; here {now}. {_OWN}")


def _refuse_other_spelling(register: Register, manifest: pd.DataFrame) -> None:
    forms = {spelling(name): name for name in register.patients}
    names = known_patients(manifest)
    wrong = names.map(lambda name: forms.get(spelling(name), name) != name)
    if wrong.any():
        raise DataError(
            f"data.patient_register: {names[wrong].nunique()} patient id(s) differ from the register's only in leading "
            "zeros, a trailing .0, letter case or spaces, so an old patient would count as a new one. The first: "
            f"{manifest['path'][wrong].iloc[0]}. Write ids as before (import the column as text)."
        )


def _refuse_strangers(register: Register, manifest: pd.DataFrame) -> None:
    """Refuse a register whose patients are known by their ids alone, or not at all: ids may be mere numbers."""
    old = {name: one.all_images() for name, one in register.patients.items()}
    both = {name: images for name, images in _images(manifest).items() if name in old}
    if any(images & old[name] for name, images in both.items()):
        return
    what = f"none of the images of its {len(old)} patients" if both else f"none of its {len(old)} patients"
    raise RefusedError(
        f"data.patient_register: the register is of another study, or its images are not here: {what} is in the "
        f"source. Is its folder mounted? {_OWN}"
    )


def _refuse_many_gone(register: Register, manifest: pd.DataFrame, rejected: pd.DataFrame, most: float) -> None:
    after = next_register(register, register.study, _images(manifest), {}, _digests(rejected))
    active = len(register.patients) - len(register.withdrawn())
    gone = len(after.withdrawn() - register.withdrawn())
    if gone > most * active:
        raise DataError(
            f"data.patient_register: {gone} of {active} patients are gone from the source, and data.max_withdrawn "
            f"allows {most:.0%}. Is a part of the source not mounted, or its table cut short? If they have withdrawn, "
            "raise data.max_withdrawn for one run: what was made from them is marked stale then."
        )
