"""What a table says of images that lie beside it: which column names them, their class, patient and split."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.data.starting.files import Item
from pipeline.data.starting.words import (
    MOST_CLASSES,
    are_splits,
    is_named_label,
    label_rank,
    says_patient,
    says_split,
    stem,
)

PATH, NAME, STEM, SERIES, IMAGE, PATIENT, PART = "path", "name", "stem", "series", "image", "patient", "part"
HOW = {
    PATH: "names each file",
    NAME: "names the files without their folders, or from another one on",
    STEM: "names the files without folders and endings",
    SERIES: "holds the DICOM series' ids",
    IMAGE: "holds the DICOM images' ids",
    PATIENT: "holds the DICOM headers' patients",
    PART: "names folders, or how names of files begin",
}
_REPEATED = 2
"""Rows of a class on average at least; twice as many where only its values say that a column is the class."""
_MANY = re.compile(r"\s*[|;]\s*")
"""Between several findings in one cell, as in `Effusion|Mass`."""


@dataclass(frozen=True)
class Match:
    """Which images a table's rows mean: by `column`, in the way `how`; `rows` are pairs of row and item, by place."""

    column: str
    how: str
    rows: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Columns:
    """Columns of a table by what they hold, empty = none.

    Attributes:
        sure: the label column's name says that it is one.
        many: its cells hold several findings.
        others: further columns that could hold the label.
    """

    label: str = ""
    patient: str = ""
    split: str = ""
    sure: bool = True
    many: bool = False
    others: tuple[str, ...] = ()


def match_images(table: pd.DataFrame, place: Path, items: Sequence[Item]) -> Match | None:
    """The column that names most of the images, in the plainest way; None where none names any."""
    best: Match | None = None
    for how, keys in _keys(place, items).items():
        for column in table:
            values = [_plain(str(value)) for value in table[column]]
            if how == PART and not _may_name_parts(values):
                continue
            if how in (NAME, STEM):
                values = [_known_tail(value, keys) for value in values]
            rows = tuple((row, item) for row, value in enumerate(values) if value for item in keys.get(value, ()))
            if len({item for _, item in rows}) < len(rows):
                continue  # an image that two rows name is named by something else
            if rows and (best is None or len(rows) > len(best.rows)):
                best = Match(str(column), how, rows)
    return best


def read_columns(table: pd.DataFrame, image_column: str) -> Columns:
    """Which columns hold label, patient and split, by their names and by what is in them."""
    rest = [str(name) for name in table if name != image_column]
    split = next((name for name in sorted(rest, key=lambda one: not says_split(one)) if _is_split(table[name])), "")
    patient = next((name for name in (*rest, image_column) if says_patient(name)), "")
    ranks = {name: _rank(table, name) for name in rest if name not in (split, patient)}
    ranked = sorted((rank, name) for name, rank in ranks.items() if rank is not None)
    named = [name for rank, name in ranked if is_named_label(rank)]
    candidates = named or [name for _, name in ranked]
    if not candidates or (not named and len(candidates) > 1):
        return Columns("", patient, split, others=tuple(candidates))
    words = [name for name in candidates if not _all_numbers(table[name])]
    label = (words or candidates)[0]
    others = tuple(name for name in candidates if name != label and not _same(table[name], table[label]))
    return Columns(label, patient, split, bool(named), _holds_many(table[label]), others)


def _keys(place: Path, items: Sequence[Item]) -> dict[str, dict[str, list[int]]]:
    """For every way to name an image, the images by that name; names of one file must be one's alone."""
    ways: dict[str, Callable[[Item], list[str]]] = {
        PATH: lambda item: [str(item.path), _seen_from(place, item.path).as_posix()],
        NAME: lambda item: _tails(_seen_from(place, item.path)),
        STEM: lambda item: _tails(_seen_from(place, item.path.with_name(stem(item.path.name) or item.path.name))),
        SERIES: lambda item: [item.header.get("series_id", "")],
        IMAGE: lambda item: [item.header.get("sop_instance_id", "")],
        PATIENT: lambda item: [item.patient],
        PART: lambda item: _parts(_seen_from(place, item.path)),
    }
    found = {}
    for how, names in ways.items():
        keys: dict[str, list[int]] = defaultdict(list)
        for number, item in enumerate(items):
            for name in dict.fromkeys(names(item)):
                keys[_plain(name)].append(number)
        alone = how in (PATH, NAME, STEM, IMAGE)
        found[how] = {name: numbers for name, numbers in keys.items() if name and (len(numbers) == 1 or not alone)}
    return found


def _tails(path: Path) -> list[str]:
    """`c.png`, `b/c.png`, `a/b/c.png`: however many of its folders a table names."""
    return ["/".join(path.parts[start:]) for start in range(len(path.parts))]


def _known_tail(value: str, keys: Mapping[str, object]) -> str:
    """The longest end of a path in a table that is an image's: its folders may be those of another computer."""
    parts = value.split("/")
    return next((tail for start in range(len(parts)) if (tail := "/".join(parts[start:])) in keys), "")


def _seen_from(place: Path, path: Path) -> Path:
    return path.relative_to(place) if path.is_relative_to(place) else Path(path.name)


def _parts(path: Path) -> list[str]:
    """Folders, and beginnings of the file's name up to a sign that is no letter or digit."""
    name = stem(path.name)
    cuts = [match.start() for match in re.finditer(r"[^A-Za-z0-9]", name)]
    return list(dict.fromkeys([*path.parts[:-1], *(name[:cut] for cut in cuts if cut), name]))


def _may_name_parts(values: Sequence[str]) -> bool:
    """Whether a column may hold ids of patients: most cells with a digit, and hardly one twice."""
    with_digit = sum(any(sign.isdigit() for sign in value) for value in values)
    longest = max(map(len, values), default=0)
    return longest >= 3 and with_digit >= 0.9 * len(values) and len(set(values)) >= 0.9 * len(values)


def _plain(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./").strip("/") if not name.startswith("/") else name


def _is_split(column: pd.Series) -> bool:
    values = set(column) - {""}
    return len(values) > 1 and are_splits(values) and bool((column != "").all())


def _rank(table: pd.DataFrame, name: str) -> int | None:
    rank = label_rank(name)
    values = set(table[name]) - {""}
    seldom = _REPEATED if rank is not None and is_named_label(rank) else 2 * _REPEATED
    if rank is None or _has_fractions(table[name]) or not 2 <= len(values) <= len(table) / seldom:
        return None
    if len(values) <= MOST_CLASSES or (is_named_label(rank) and _holds_many(table[name])):
        return rank
    return None


def _holds_many(column: pd.Series) -> bool:
    return bool(column.str.contains(_MANY).any())


def _all_numbers(column: pd.Series) -> bool:
    return bool(_numbers(column).notna().all())


def _has_fractions(column: pd.Series) -> bool:
    """Whether all cells are numbers and some are no whole ones: sizes, doses, ages such as 55,5; no class."""
    numbers = _numbers(column)
    return bool(numbers.notna().all() and (numbers % 1 != 0).any())


def _numbers(column: pd.Series) -> pd.Series:
    """Numbers of the cells that are not empty, with a point or a comma; NaN where a cell is none."""
    return pd.to_numeric(column[column != ""].str.replace(",", ".", n=1, regex=False), errors="coerce")


def _same(one: pd.Series, other: pd.Series) -> bool:
    """Whether two columns divide the rows alike."""
    pairs = set(zip(one, other, strict=True))
    return len(pairs) == one.nunique() == other.nunique()
