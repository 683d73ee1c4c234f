"""What of the source must not be in a pack, and whether it is: ids, UIDs, names, dates and files, over every byte.

A text of six signs or more is looked for everywhere. A shorter one would be found by chance in pixels, so that one of
four or five is looked for in text only, and one of less, or of few digits, only where it would be a whole value. A hit
is bounded: P0012 is not found in P00123.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from pipeline.data.file_parts import Part, parts_of

ANYWHERE, IN_TEXT = 6, 4
"""Signs from which on a text is looked for in every byte, and in text."""
_DIGITS_IN_TEXT = 6
"""A number of fewer digits stands in any text."""
_ALWAYS = ("image_id", "path", "patient_id", "series_id", "study_id", "mask", "pixel_digest")
_NEVER = frozenset(
    ("label", "split", "fold", "fate", "spacing", "spacing_known", "size", "values", "minimum", "maximum", "near_group",
     "affine", "point_x", "point_y", "point_z", "modality", "body_part", "photometric", "kernel", "sex", "age",
     "slice_thickness_mm")
)  # fmt: skip
_IDENTIFYING = re.compile(
    r"(^|[^a-z])(id|ids|uid|name|names|date|dates|birth|birthdate|dob|accession|physician|operator|institution|"
    r"hospital|address|phone|mrn|path|file|filename|folder|url)($|[^a-z])"
)
_UID = re.compile(r"[0-2](\.(0|[1-9]\d*)){4,}")
_DICOM_ROOT = "1.2.840.10008."
_DATE = re.compile(r"(?<![0-9a-z])((?:19|20)\d\d)([-/.]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?![0-9a-z])|"
                   r"(?<![0-9a-z])(0[1-9]|[12]\d|3[01])([./])(0[1-9]|1[0-2])\6((?:19|20)\d\d)(?![0-9a-z])")  # fmt: skip
_NUMBER = re.compile(r"-\d{4,5}$")
"""How the names of a pack's images, and of the slices of a series, end."""
_ENDINGS = re.compile(r"(\.nii)?\.[A-Za-z][A-Za-z0-9]{0,4}$")
_RUN = re.compile(rb"[a-z0-9]{3,}")
_NOBODY = frozenset(("unknown", "anonymous", "anonymised", "anonymized"))
"""Ids that are nobody's."""
Reach = Literal["anywhere", "text", "value"]


@dataclass(frozen=True)
class Secrets:
    """What is looked for, in lower case, by reach: text -> the column that it is from.

    Attributes:
        left_out: how many texts are not looked for since the pack's own words and names contain them.
    """

    by_reach: Mapping[Reach, dict[bytes, str]]
    left_out: int = 0

    def counts(self) -> dict[str, int]:
        return {name: len(found) for name, found in self.by_reach.items()} | {"left_out": self.left_out}


@dataclass(frozen=True)
class Leak:
    """Something of the source in a file; what it is is not told, since messages are read by others."""

    file: str
    where: str
    column: str

    def __str__(self) -> str:
        return f"{self.file} ({self.where}) holds a value of the source's {self.column}"


def secrets_of(tables: Iterable[pd.DataFrame], words: Mapping[str, str], own: Iterable[str]) -> Secrets:
    """What identifies patients, images and files in the source.

    Args:
        tables: manifests of text.
        words: further texts, such as folders, with what they are.
        own: texts that a pack says of itself beside its program's own, such as names of classes: a secret that
            consists of such words alone cannot be told from them.
    """
    found: dict[str, str] = {text: what for text, what in words.items() if text}
    for table in tables:
        for column in table.columns:
            found |= dict.fromkeys(_texts_of(str(column), table[column]), str(column))
    own_words = _program_words() | {word for text in own for word in re.findall(r"\w+", text.lower())}
    by_reach: dict[Reach, dict[bytes, str]] = {"anywhere": {}, "text": {}, "value": {}}
    left_out = 0
    for text, column in found.items():
        if _is_own(text.lower(), own_words):
            left_out += 1
        else:
            by_reach[_reach(text)][text.lower().encode()] = column
    return Secrets(by_reach, left_out)


def _program_words() -> set[str]:
    """Words of the sentences, keys and names of what writes packs: a pack may say them whatever its source."""
    here = Path(__file__).parent
    writers = (*here.glob("*.py"), *(here.parent / "data").glob("synthetic_*.py"))
    texts = (path.read_text(encoding="utf-8") for path in writers)
    said = {word for text in texts for word in re.findall(r"\w+", text.lower()) if not re.search(r"\d", word)}
    return said | _NOBODY


def find_leaks(root: Path, secrets: Secrets) -> list[Leak]:
    """Every place below `root` that holds one of `secrets`: names of files, all bytes, and what is packed in them."""
    finders = {reach: _Finder(texts) for reach, texts in secrets.by_reach.items()}
    leaks: dict[Leak, None] = {}
    for path in sorted(one for one in root.rglob("*") if one.is_file()):
        name = path.relative_to(root).as_posix()
        for part in (*_name_parts(name), *parts_of(path)):
            for column in _found(part, finders, secrets):
                leaks[Leak(name, part.where, column)] = None
    return list(leaks)


def _texts_of(column: str, cells: pd.Series) -> Iterator[str]:
    """What is looked for of a column: all of an identifying one; of any other its UIDs and dates."""
    told = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column).lower()
    identifying = column in _ALWAYS or (column not in _NEVER and _IDENTIFYING.search(told) is not None)
    for cell in cells.unique():
        text = str(cell).strip()
        if not text:
            continue
        if identifying:
            yield from _spellings(text)
        if identifying or column not in _NEVER:
            yield from _dates_in(text)
            yield from (one.group() for one in _UID.finditer(text))


def _spellings(text: str) -> Iterator[str]:
    yield text
    if "^" in text:
        yield " ".join(text.replace("^", " ").split())
    if re.search(r"[/\\]", text) or _ENDINGS.search(text):
        name = re.split(r"[/\\]", text)[-1]
        yield from (name, _ENDINGS.sub("", name))


def _dates_in(text: str) -> Iterator[str]:
    for one in _DATE.finditer(text):
        year, month, day = (one[1], one[3], one[4]) if one[1] else (one[8], one[7], one[5])
        yield from (mark.join((year, month, day)) for mark in ("-", "", "/", "."))
        yield from (mark.join((day, month, year)) for mark in ("/", "."))
        yield "/".join((month, day, year))


def _is_own(text: str, own_words: set[str]) -> bool:
    """Whether a pack may say `text` though it knows nothing of the source."""
    if text.startswith(_DICOM_ROOT):
        return True
    words = re.findall(r"\w+", _NUMBER.sub("", _ENDINGS.sub("", text)))
    return bool(words) and all(word in own_words for word in words)


def _reach(text: str) -> Reach:
    plain = text.isdigit()
    if len(text) >= (_DIGITS_IN_TEXT if plain else ANYWHERE):
        return "anywhere"
    return "text" if len(text) >= IN_TEXT and not plain else "value"


def _name_parts(name: str) -> Iterator[Part]:
    yield Part("its name", name.encode(), "text")
    for one in name.split("/"):
        yield Part("its name", _ENDINGS.sub("", one).encode(), "value")


def _found(part: Part, finders: Mapping[Reach, _Finder], secrets: Secrets) -> Iterator[str]:
    low = part.content.lower()
    yield from finders["anywhere"].columns(low)
    if b"\0" in low:
        yield from finders["anywhere"].columns(low.replace(b"\0", b""))  # UTF-16
    if part.kind in ("text", "value"):
        yield from finders["text"].columns(low)
    if part.kind == "value":
        whole = secrets.by_reach["value"].get(low.strip(b"\0 "))
        if whole:
            yield whole


@dataclass
class _Finder:
    """Finds many texts in one pass: each by its longest run of letters and digits, which must be a whole run there."""

    texts: Mapping[bytes, str]
    by_run: dict[bytes, list[tuple[bytes, int]]] = field(default_factory=dict)
    without: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        for text in self.texts:
            runs = sorted(_RUN.finditer(text), key=lambda one: -len(one.group()))
            if runs:
                self.by_run.setdefault(runs[0].group(), []).append((text, runs[0].start()))
            else:
                self.without.append(text)

    def columns(self, low: bytes) -> set[str]:
        """The columns of all texts that are in `low`."""
        hits: Counter[bytes] = Counter()
        if self.by_run:
            for run in _RUN.finditer(low):
                for text, offset in self.by_run.get(run.group(), ()):
                    if _bounded(low, text, run.start() - offset):
                        hits[text] += 1
        for text in self.without:
            if any(_bounded(low, text, one.start()) for one in re.finditer(re.escape(text), low)):
                hits[text] += 1
        return {self.texts[text] for text in hits}


def _bounded(low: bytes, text: bytes, start: int) -> bool:
    """Whether `text` is at `start`, with no letter or digit beside a letter or digit of its ends."""
    end = start + len(text)
    if start < 0 or not low.startswith(text, start):
        return False
    before = start > 0 and low[start - 1 : start].isalnum() and text[:1].isalnum()
    after = low[end : end + 1].isalnum() and text[-1:].isalnum()
    return not before and not after
