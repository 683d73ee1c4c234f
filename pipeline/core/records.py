"""What a stage leaves behind: `record.json`, the account of how its directory came to be."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.core.files import read_json, write_json

RECORD = "record.json"


@dataclass(frozen=True)
class Record:
    """A stage's account. A stage function fills `figures`, `notes` and `extra`; the cache fills the rest.

    Attributes:
        figures: numbers worth showing (counts, losses, seconds).
        notes: sentences the report must show, such as warnings. No patient ids.
        extra: what later stages need to read the directory (a data set's scaling, for instance).
        outputs: relative path -> (bytes, sha256) of every file in the directory but this one.
    """

    stage: str
    figures: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    digest: str = ""
    outputs: dict[str, tuple[int, str]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"
    wall_s: float = 0.0
    peak_mib: float = 0.0
    finished: str = ""

    def save(self, directory: Path) -> None:
        write_json(directory / RECORD, asdict(self))


def load_record(directory: Path) -> Record:
    """Read the record of a finished stage directory."""
    fields = read_json(directory / RECORD)
    fields["notes"] = tuple(fields["notes"])
    fields["outputs"] = {name: (int(size), digest) for name, (size, digest) in fields["outputs"].items()}
    return Record(**fields)
