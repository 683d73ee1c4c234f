"""The files below a folder of the user's. Links are followed, and what cannot be looked into is named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.core.errors import UnreadableImage

_LEFT_BY_SYSTEMS = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "@eadir"})
"""What Windows, macOS and storage systems put into folders by themselves."""


def files_below(folder: Path) -> list[Path]:
    """Files below `folder` in order, through links too, and links that lead nowhere (`is_lost_link`).

    Hidden files and folders, and those that systems leave behind, are passed over; so is a link back to a folder that
    it lies in, since that folder's files are listed already.

    Raises:
        UnreadableImage: a folder may not be read.
    """
    return sorted(_walk(folder, frozenset()))


def is_lost_link(path: Path) -> bool:
    """Whether `path` is a link that leads nowhere, such as a git-annex file that was not fetched."""
    return path.is_symlink() and not path.exists()


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    try:
        status = folder.stat()
        entries = list(os.scandir(folder))
    except OSError as error:
        raise UnreadableImage(folder, f"the folder cannot be read ({error.strerror}): check its permissions") from error
    place = (status.st_dev, status.st_ino)
    if place in above:
        return
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith(".") or entry.name.lower() in _LEFT_BY_SYSTEMS:
            continue
        if path.is_dir():
            yield from _walk(path, above | {place})
        elif path.is_file() or is_lost_link(path):
            yield path
