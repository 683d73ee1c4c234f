"""The ledger: how often each set of test patients was looked at, kept beside the cache over all runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from filelock import FileLock

from pipeline.core.files import digest_json
from pipeline.core.records import load_record, records_of
from pipeline.data.batches.dataset import read_table, write_table

LEDGER = "ledger.csv"
COLUMNS = ("test_set", "when", "run", "stage", "fingerprint", "look")
_LOOKING = {"test": ("verdict", "anomaly", "privacy"), "external": ("verdict",)}


def looks_of(directories: Iterable[Path]) -> dict[str, dict[str, Path]]:
    """The stages among `directories` that open images of a side, `test` or `external`, by their names."""
    found = list(directories)
    return {side: {record.name: at for record, at in records_of(found, *kinds)} for side, kinds in _LOOKING.items()}


def record_looks(cache: Path, out: Path, split: Path, looks: Mapping[str, Mapping[str, Path]], run: str) -> None:
    """Add this run's looks at its test images to the cache's ledger, and write those at the same images into `out`.

    A stage that opens test images, or the external site's, is one look at that set. The same stage taken from the cache
    again shows nothing new and is not counted twice. A set is told by its images, so another experiment on the same
    images counts too.

    Args:
        split: directory of the split.
        looks: side -> what looked at it -> its stage directory.
    """
    sets = {side: digest_of_images(split, side) for side in looks}
    with FileLock(cache / f".lock-{LEDGER}"):
        path = cache / LEDGER
        ledger = read_table(path) if path.is_file() else pd.DataFrame(columns=list(COLUMNS), dtype=str)
        for side, digest in sets.items():
            if digest:
                ledger = pd.concat([ledger, _new_looks(ledger, digest, side, looks[side], run)], ignore_index=True)
        write_table(path, ledger)
    write_table(out / LEDGER, ledger[ledger["test_set"].isin(sets.values())].drop(columns="fingerprint"))


def _new_looks(ledger: pd.DataFrame, digest: str, side: str, looks: Mapping[str, Path], run: str) -> pd.DataFrame:
    """Rows for the stages that are not in the ledger yet, counted on."""
    known = set(ledger.loc[ledger["test_set"] == digest, "fingerprint"])
    rows: list[tuple[str, ...]] = []
    for stage, directory in looks.items():
        key = load_record(directory).fingerprint
        if key not in known:
            number = str(len(known) + len(rows) + 1)
            what = stage if side == "test" else f"{stage} ({side} site)"
            rows.append((digest, datetime.now(UTC).isoformat(timespec="seconds"), run, what, key, number))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def digest_of_images(split: Path, side: str) -> str:
    """12 hex digits over the pixels of all images that are on `side` in some fold; empty if there are none."""
    splits, manifest = read_table(split / "splits.csv"), read_table(split / "manifest.csv")
    chosen = manifest["image_id"].isin(set(splits.loc[splits["split"] == side, "image_id"]))
    return digest_json(sorted(manifest.loc[chosen, "pixel_digest"]))[:12] if chosen.any() else ""
