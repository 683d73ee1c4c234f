"""The register of a study: which side of every fold a patient is on, for ever, whoever arrives later.

A file of the user's that runs of the study share. The stage `split` reads it and proposes the next one, which
`flows.enrolment` puts in its place once the split has succeeded. It holds patient ids as the manifest does, digests of
image ids, and nothing else of a patient: it is as confidential as the source.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.core.errors import RefusedError
from pipeline.core.files import digest_json, digest_text, write_json

_VERSION = 1
_DIGITS = 16


@dataclass(frozen=True)
class Enrolled:
    """A patient of the register.

    Attributes:
        sides: train, val or test, fold by fold; empty for one whose images have no label yet.
        images: round -> digests of the image ids that were first seen in it.
        withdrawn: the round in which no image of the patient was left in the source, else None.
    """

    sides: tuple[str, ...]
    images: Mapping[str, tuple[str, ...]]
    withdrawn: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {"sides": self.sides, "images": self.images, "withdrawn": self.withdrawn}

    def all_images(self) -> set[str]:
        return {digest for own in self.images.values() for digest in own}


@dataclass(frozen=True)
class Register:
    """What a register file says; an empty one before the first round.

    Attributes:
        study: what it belongs to: kind of split, number of folds, classes.
        round: how often it has changed.
        history: of each round its number, time and counts, for people.
        packs: release packs that were made from these patients: digest, time, patient ids.
    """

    study: Mapping[str, Any] = field(default_factory=dict)
    round: int = 0
    patients: Mapping[str, Enrolled] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()
    packs: tuple[Mapping[str, Any], ...] = ()

    @property
    def state(self) -> str:
        """Digest of what decides a split: study, round and patients. It is an input of the stage `split`."""
        return digest_json([self.study, self.round, self._patients()])

    def withdrawn(self) -> set[str]:
        """Ids of patients who are no longer in the source."""
        return {name for name, one in self.patients.items() if one.withdrawn is not None}

    def _patients(self) -> dict[str, Any]:
        return {name: one.as_json() for name, one in self.patients.items()}

    def write(self, path: Path) -> None:
        """Write it to `path`, whole or not at all, with the digest by which `read_register` knows it again."""
        content = {"version": _VERSION, "study": self.study, "round": self.round, "patients": self._patients(),
                   "history": self.history, "packs": self.packs}  # fmt: skip
        write_json(path, {**content, "digest": digest_json(content)})


def digest_of_image(image_id: str) -> str:
    """By which a register knows an image again."""
    return digest_text(f"image {image_id}")[:_DIGITS]


def read_register(path: Path) -> Register:
    """The register at `path`; an empty one where there is none.

    Raises:
        RefusedError: it was changed by something else than radaug, is cut short, or of another version.
    """
    if not path.exists():
        return Register()
    mend = (
        "Bring back the file as radaug left it: the newest run of the study has a copy, stages/split/register.json. "
        "Without it old patients would be drawn anew and could move from train to test."
    )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        told = content.pop("digest")
        if content["version"] != _VERSION:
            raise RefusedError(
                f"{path}: this register is of version {content['version']}, and radaug reads {_VERSION}."
            )
        if told != digest_json(content):
            raise RefusedError(f"{path}: the register was changed by something else than radaug. {mend}")
        del content["version"]
        patients = {name: _enrolled(one) for name, one in content.pop("patients").items()}
        history, packs = (tuple(content.pop(name)) for name in ("history", "packs"))
        return Register(**content, patients=patients, history=history, packs=packs)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RefusedError(f"{path}: the register cannot be read ({type(error).__name__}). {mend}") from error


def _enrolled(one: Mapping[str, Any]) -> Enrolled:
    images = {number: tuple(digests) for number, digests in one["images"].items()}
    return Enrolled(tuple(one["sides"]), images, one["withdrawn"])


def next_register(
    register: Register,
    study: Mapping[str, Any],
    images: Mapping[str, set[str]],
    sides: Mapping[str, tuple[str, ...]],
    unreadable: set[str],
) -> Register:
    """The register after a split; the same one where nothing changed.

    Args:
        images: patient -> digests of all images that are there.
        sides: patient -> side in each fold, of those who have labelled images.
        unreadable: digests of images that are there and cannot be read now: their patients have not withdrawn.
    """
    number = register.round + 1
    patients = {name: _after(one, name, images, unreadable, number) for name, one in register.patients.items()}
    for name, own in images.items():
        old = patients.get(name, Enrolled((), {}))
        new = tuple(sorted(own - old.all_images()))
        grown = {**old.images, str(number): new} if new else old.images
        patients[name] = replace(old, images=grown, sides=old.sides or sides.get(name, ()))
    found = replace(register, study=dict(study), patients=dict(sorted(patients.items())))
    return found if found.state == register.state else replace(found, round=number)


def _after(one: Enrolled, name: str, images: Mapping[str, set[str]], unreadable: set[str], number: int) -> Enrolled:
    if name in images or (one.withdrawn is None and one.all_images() & unreadable):
        return replace(one, withdrawn=None)
    return one if one.withdrawn is not None else replace(one, withdrawn=number)
