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
        phone: the same plot with its panels below one another; without one, it is scrolled on a phone.
    """

    name: str
    alt: str
    caption: str
    png: bytes
    phone: bytes | None = None

    @property
    def data_uri(self) -> str:
        return data_uri(self.png)

    @property
    def phone_uri(self) -> str:
        return data_uri(self.phone) if self.phone else ""
