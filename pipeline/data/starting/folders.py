"""What the names of folders mean: the class, the split, the patient, the site, or nothing."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.data.starting.words import (
    MOST_CLASSES,
    SPLIT_OF,
    are_splits,
    looks_like_ids,
    says_class,
    says_site,
)

_NEARLY_ALL = 0.9


@dataclass(frozen=True)
class Levels:
    """At which depth of folders, 0 = the outermost, what is named; None = nowhere.

    Attributes:
        others: further depths that could be the class's, with an example of their names.
    """

    label: int | None
    split: int | None
    patient: int | None
    site: int | None
    others: tuple[str, ...] = ()


def find_levels(folder: Path, paths: Sequence[Path]) -> Levels:
    """What the folders between `folder` and its images mean."""
    parts = [path.relative_to(folder).parts[:-1] for path in paths]
    names = _names(parts)
    split = next((depth for depth, found in names.items() if len(found) > 1 and are_splits(found)), None)
    scores = {
        depth: _score(found, depth, parts)
        for depth, found in names.items()
        if depth != split and 2 <= len(found) <= MOST_CLASSES
    }
    label = max(scores, key=lambda depth: (scores[depth], -depth), default=None)
    if label is not None and scores[label] < 0:
        label = None
    others = tuple(
        "/".join(sorted(names[depth])[:2])
        for depth, score in scores.items()
        if label is not None and depth != label and score >= scores[label] - 0.5
    )
    rest = {depth: found for depth, found in names.items() if depth not in (split, label) and len(found) > 1}
    site = next((depth for depth, found in rest.items() if sum(map(says_site, found)) > len(found) / 2), None)
    patient = next((depth for depth, found in rest.items() if depth != site and looks_like_ids(found)), None)
    return Levels(label, split, patient, site, others)


def without_numbers(labels: pd.Series) -> pd.Series:
    """`study1_positive` and `study2_positive` are one class: labels without a word and number before them, where that
    leaves fewer classes, and two at least."""
    bare = labels.str.replace(r"^[^\W\d_]*\d+[_\- ]+(?=\D)", "", regex=True)
    fewer = 2 <= bare[bare != ""].nunique() < labels[labels != ""].nunique()
    return bare if fewer else labels


def by_names(paths: Sequence[Path]) -> pd.Series | None:
    """The class of every image by the word that its name begins with, as in `covid_012.png`; None where names do not
    begin with two to twenty words, most of them of classes."""
    names = pd.Series([path.name for path in paths], dtype=str)
    words = names.str.extract(r"^([^\W\d_][^\d(]*?)[\s_\-(]*\d", expand=False).fillna("")
    found = set(words) - {""}
    fitting = 2 <= len(found) <= MOST_CLASSES and (words != "").mean() >= _NEARLY_ALL
    return words if fitting and sum(map(says_class, found)) > len(found) / 2 else None


def by_folders(folder: Path, paths: Sequence[Path], levels: Levels) -> pd.DataFrame:
    """path, label, patient_id, split and, where there is one, site of every image, as its folders say; all text."""
    rows = []
    for path in paths:
        parts = path.relative_to(folder).parts[:-1]
        row = {"path": str(path), "label": _at(parts, levels.label), "patient_id": _at(parts, levels.patient)}
        row["split"] = SPLIT_OF.get(_at(parts, levels.split).lower(), "")
        if levels.site is not None:
            row["site"] = _at(parts, levels.site)
        rows.append(row)
    return pd.DataFrame(rows, dtype=str)


def _names(parts: Sequence[tuple[str, ...]]) -> Mapping[int, set[str]]:
    """The names at each depth that nearly all images have folders at."""
    names: dict[int, set[str]] = defaultdict(set)
    counts: dict[int, int] = defaultdict(int)
    for one in parts:
        for depth, name in enumerate(one):
            names[depth].add(unicodedata.normalize("NFC", name))
            counts[depth] += 1
    return {depth: names[depth] for depth in sorted(names) if counts[depth] >= _NEARLY_ALL * len(parts)}


def _score(names: set[str], depth: int, parts: Sequence[tuple[str, ...]]) -> float:
    """How likely the folders at a depth are classes: by their words, and by occurring in several folders above."""
    words = sum(map(says_class, names)) / len(names)
    if sum(map(says_site, names)) > len(names) / 2:
        return -1.0
    if looks_like_ids(names) and words < 0.5:
        return -1.0
    above: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for one in parts:
        if len(one) > depth:
            above[one[depth]].add(one[:depth])
    crossed = depth > 0 and sum(len(found) > 1 for found in above.values()) > len(names) / 2
    return 2 * words + 0.25 * crossed


def _at(parts: tuple[str, ...], depth: int | None) -> str:
    return unicodedata.normalize("NFC", parts[depth]) if depth is not None and depth < len(parts) else ""
