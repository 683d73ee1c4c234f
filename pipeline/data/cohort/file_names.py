"""A file as a table names it, and as the disk does: they may differ in Unicode's forms and in letter case."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from functools import lru_cache
from pathlib import Path


def found_name(root: Path, name: str, *, ignore_case: bool = False) -> str:
    """The path below `root` that `name` means: itself if it is there, else the one in another Unicode form.

    Disks of Macs hold `ä` as two signs, tables as one. With `ignore_case` upper and lower case are the same, too. What
    is not there, or could be several files, comes back as it is.
    """
    if not name or (root / name).exists():
        return name
    place, found = root, []
    for part in Path(name).parts:
        if not (place / part).exists():
            alike = _alike(place, part, ignore_case)
            if len(alike) != 1:
                return name
            part = alike[0]
        found.append(part)
        place = place / part
    return Path(*found).as_posix()


def _alike(folder: Path, part: str, ignore_case: bool) -> list[str]:
    try:
        return _listing(folder, folder.stat().st_mtime_ns, ignore_case).get(_form(part, ignore_case), [])
    except OSError:
        return []


@lru_cache(maxsize=64)
def _listing(folder: Path, changed: int, ignore_case: bool) -> dict[str, list[str]]:
    """Names in `folder` by their form; `changed` makes a folder that has changed be listed again."""
    names: dict[str, list[str]] = defaultdict(list)
    for path in folder.iterdir():
        names[_form(path.name, ignore_case)].append(path.name)
    return dict(names)


def _form(text: str, ignore_case: bool) -> str:
    composed = unicodedata.normalize("NFC", text)
    return composed.casefold() if ignore_case else composed
