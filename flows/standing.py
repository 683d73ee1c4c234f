"""Where a look stands among all looks at the same patients: its number, what earlier ones decided, and sentences."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pandas as pd

from flows.ledger import SIDES, Ledger, Look, shared_patients
from pipeline.core.decisions import Looks

COLUMNS = ("look", "patients", "when", "run", "what", "shared", "utility", "release", "fingerprint")
_WHO = {"test": "test patients", "external": "patients of the external site"}
_MOST_NAMED = 5


@dataclass(frozen=True)
class Other:
    """Another look that shares patients with this one: how many, by an image and by their id alone."""

    look: Look
    by_image: int
    by_id: int


@dataclass(frozen=True)
class Standing:
    """One look's place at one set of patients.

    Attributes:
        side: `test` or `external`.
        patients: of this look.
        again: how many of them an earlier look saw.
        by_id: how many of these only their id tells.
    """

    side: str
    look: Look
    patients: int
    again: int
    by_id: int
    earlier: tuple[Other, ...]
    later: tuple[Other, ...]

    @property
    def number(self) -> int:
        return len(self.earlier) + 1

    def sentences(self) -> list[str]:
        """What a reader must know: nothing for a first look that had no later one."""
        who, said = _WHO[self.side], []
        if self.earlier:
            whole = all(one.by_image + one.by_id == self.patients for one in self.earlier)
            known = f"these {who}" if whole else f"{who} of whom {self.again} of {self.patients} were looked at before"
            told = f" {self.by_id} of them are told by their patient id alone, in other images." if self.by_id else ""
            said.append(
                f"This is look {self.number} at {known}; earlier looks decided: {_decisions(self.earlier)}.{told} "
                "What is chosen after several looks is too good: confirm it on patients who were never looked at."
            )
        if self.later:
            times = "once" if len(self.later) == 1 else f"{len(self.later)} times"
            said.append(f"These {who} were looked at {times} since this look, which decided: {_decisions(self.later)}.")
        return said

    def rows(self) -> list[tuple[str, ...]]:
        """Rows of ledger.csv, in the order of the looks."""
        own = Other(self.look, self.patients, 0)
        found: list[tuple[str, ...]] = []
        for number, one in enumerate((*self.earlier, own, *self.later), start=1):
            told = f", {one.by_id} by id alone" if one.by_id else ""
            shared = f"{one.by_image + one.by_id} of {self.patients}{told}"
            look = one.look
            key = (str(number), _WHO[self.side], look.when, look.run, look.what, shared)
            found.append((*key, look.utility, look.release, look.fingerprint))
        return found


def standings(ledger: Ledger, place: int) -> list[Standing]:
    """The standing of the look at `place` at its test patients, and at the external site's where there is one."""
    look = ledger.looks[place]
    return [_standing(ledger, place, side) for side in SIDES if side in look.sets]


def _standing(ledger: Ledger, place: int, side: str) -> Standing:
    look = ledger.looks[place]
    mine = look.sets[side]
    others = [None if one is look else _other(ledger, mine, one) for one in ledger.looks]
    earlier = tuple(one for one in others[:place] if one)
    again = shared_patients(ledger, mine, (digest for one in earlier for digest in one.look.sets.values()))
    later = tuple(one for one in others[place + 1 :] if one)
    return Standing(side, look, len(ledger.sets[mine]), sum(again), again[1], earlier, later)


def _other(ledger: Ledger, mine: str, look: Look) -> Other | None:
    """How many patients of `mine` the look's sets have; None where there are none."""
    by_image, by_id = shared_patients(ledger, mine, look.sets.values())
    return Other(look, by_image, by_id) if by_image + by_id else None


def looks_json(found: list[Standing]) -> Looks:
    """The field `looks` of verdict.json."""
    return {
        "look": found[0].number if found else 0,
        "sentences": [sentence for one in found for sentence in one.sentences()],
        "sets": [
            {
                "patients": one.side, "look": one.number, "n_patients": one.patients, "n_looked_at_before": one.again,
                "earlier": [_decided(other) for other in one.earlier],
                "later": [_decided(other) for other in one.later],
            }
            for one in found
        ],
    }  # fmt: skip


def ledger_table(found: list[Standing]) -> pd.DataFrame:
    """ledger.csv of a run: every look at any of its patients."""
    return pd.DataFrame([row for one in found for row in one.rows()], columns=list(COLUMNS))


def _decided(one: Other) -> dict[str, Any]:
    look = one.look
    return {
        "run": look.run, "what": look.what, "when": look.when, "utility": look.utility, "release": look.release,
        "fingerprint": look.fingerprint, "n_shared": one.by_image + one.by_id,
    }  # fmt: skip


def _decisions(others: tuple[Other, ...]) -> str:
    """The latest looks one by one, the others counted by what they decided."""
    named = [_named(one.look) for one in others[-_MOST_NAMED:]]
    rest = Counter(one.look.utility for one in others[:-_MOST_NAMED])
    if rest:
        counted = ", ".join(f"{number} {decision.replace('_', ' ')}" for decision, number in rest.items())
        named.insert(0, f"{sum(rest.values())} looks before these ({counted})")
    return "; ".join(named)


def _named(look: Look) -> str:
    release = f", release {look.release.replace('_', ' ')}" if look.release else ""
    what = f"{look.what} " if look.what != "run" else ""
    return f"{look.utility.replace('_', ' ')}{release} ({what}{look.run}, {look.when[:10]})"
