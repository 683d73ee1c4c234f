"""One picture of a report."""

from __future__ import annotations

import base64
from dataclasses import dataclass


def data_uri(png: bytes) -> str:
    """The picture as an address that needs no file."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


@dataclass(frozen=True)
class Picture:
    """A picture of the report: `name` is its file below figures/, `alt` and `caption` are plain text.

    Attributes:
        wide: its words are too small on a phone unless it is scrolled.
    """

    name: str
    alt: str
    caption: str
    png: bytes
    wide: bool = True

    @property
    def data_uri(self) -> str:
        return data_uri(self.png)
