"""Whose image a file is, where only its name can tell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_PATTERNS = (
    (r"(TCGA-[A-Za-z0-9]{2}-[A-Za-z0-9]{4})", True),
    (r"(LIDC-IDRI-\d{4})", True),
    (r"(sub-[A-Za-z0-9]+)", True),
    (
        r"(?i)(?:^|[^a-z])((?:patient|person|subject|subj|case|fall|proband|paciente|paziente|pat|pid|pt|p)[-_ ]?\d+)",
        True,
    ),
    (r"^([A-Za-z]{0,4}[-_]?\d+)[-_. ][^.]*\d", False),
)
"""Regular expressions on a file name, the plainest first, and whether they name a patient by a word. The last one takes
the first of two numbers: `00002658_001.png` is image 1 of patient 00002658."""
FEW = 3
MOSTLY = 0.9


@dataclass(frozen=True)
class Pattern:
    """A rule that finds the patient in a file's name.

    Attributes:
        text: regular expression; its first group is the patient.
        patients: of each name, in order; empty where the rule does not fit it.
        by_word: a word such as `patient` or `p` says so; else the first of two numbers is taken.
    """

    text: str
    patients: tuple[str, ...]
    by_word: bool

    @property
    def misses(self) -> int:
        return sum(not patient for patient in self.patients)


def patient_pattern(names: Sequence[str]) -> Pattern | None:
    """The first rule that fits nearly all file names, and joins some of them where no word says that it is a patient.

    None where there is no such rule, or no word says it and fewer than three patients would be left: `scan_001.png`
    names none. Where a word says it, one patient is one: `p001_01.png` and `p001_02.png` are no two.
    """
    for text, by_word in _PATTERNS:
        matches = [re.search(text, name) for name in names]
        patients = tuple(match.group(1) if match else "" for match in matches)
        found = {patient for patient in patients if patient}
        fits = sum(map(bool, patients)) >= MOSTLY * len(names)
        joins = len(found) < sum(map(bool, patients))
        if fits and (by_word or (len(found) >= FEW and joins)):
            return Pattern(text, patients, by_word)
    return None
