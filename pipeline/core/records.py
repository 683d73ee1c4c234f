"""What a stage leaves behind: `record.json`, the account of how its directory came to be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.core.errors import DataError
from pipeline.core.files import read_json, write_json
from pipeline.core.layout import RECORD, stage_name


@dataclass(frozen=True)
class Record:
    """A stage's account. A stage function fills `kind`, `figures`, `notes` and `extra`; the cache fills the rest.

    Evidence is found by `kind`, `fold` and `gan_seed`, never by a directory's name.

    Attributes:
        kind: what the stage does, such as `downstream`.
        fold, gan_seed: what it belongs to, where it is made once a fold or once a GAN.
        variant: which of several stages of its kind, such as a detector's name.
        figures: numbers worth showing (counts, losses, seconds).
        notes: sentences the report must show, such as warnings. No patient ids.
        extra: what later stages need to read the directory (a data set's scaling, for instance).
        outputs: relative path -> (bytes, sha256) of every file in the directory but this one.
        threads: that the stage computed with.
        wall_s, peak_mib: of the computing, with the parts that other processes made.
    """

    kind: str
    figures: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    fold: int | None = None
    gan_seed: int | None = None
    variant: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    digest: str = ""
    outputs: dict[str, tuple[int, str]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"
    threads: int = 1
    wall_s: float = 0.0
    peak_mib: float = 0.0
    finished: str = ""

    @property
    def name(self) -> str:
        return stage_name(self.kind, self.fold, self.gan_seed, self.variant)

    def save(self, directory: Path) -> None:
        write_json(directory / RECORD, asdict(self))


def load_record(directory: Path) -> Record:
    """Read the record of a finished stage directory.

    Raises:
        DataError: it is damaged, or another version of radaug wrote it.
    """
    try:
        fields = read_json(directory / RECORD)
        fields["notes"] = tuple(fields["notes"])
        fields["outputs"] = {name: (int(size), digest) for name, (size, digest) in fields["outputs"].items()}
        return Record(**fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{directory.name}/{RECORD}: is damaged, or another version of radaug wrote it. Do `radaug run` again."
        ) from error


def records_of(directories: Iterable[Path], *kinds: str) -> list[tuple[Record, Path]]:
    """The records of the directories whose stage is one of `kinds`, with the directories, in the order of names."""
    found = ((load_record(directory), directory) for directory in directories)
    return sorted(((record, at) for record, at in found if record.kind in kinds), key=lambda pair: pair[0].name)
