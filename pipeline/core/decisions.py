"""What verdict.json holds: one writer and one reader agree on it here."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class Decision(TypedDict):
    """One verdict: `decision` is of its own few words, `reasons` are sentences, the most important first."""

    decision: str
    reasons: list[str]
    evidence: dict[str, Any]


class Looks(TypedDict):
    """Earlier looks at the same test patients: the number of this one, `sentences` that a reader sees first, and what
    was decided, set by set."""

    look: int
    sentences: list[str]
    sets: list[dict[str, Any]]


class Verdicts(TypedDict):
    """verdict.json of a run."""

    looks: NotRequired[Looks]
    utility: Decision
    release: Decision
