"""The ledger: how often each set of test patients was looked at, kept beside the cache over all runs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from filelock import FileLock

from pipeline.core.files import digest_json
from pipeline.core.records import load_record
from pipeline.data.dataset import read_table, write_table

LEDGER = "ledger.csv"
COLUMNS = ("test_set", "when", "run", "stage", "fingerprint", "look")
_LOOKING = ("verdict", "anomaly", "privacy")


def record_looks(cache: Path, out: Path, directories: dict[str, Path], run: str) -> None:
    """Add this run's looks at its test images to the cache's ledger, and write those at this test set into `out`.

    A stage that opens test images is one look. The same stage taken from the cache again shows nothing new and is not
    counted twice. A test set is told by its images, so another experiment on the same images counts too.
    """
    test_set = digest_of_test_images(directories["split"])
    looks = {name: path for name, path in directories.items() if name.startswith(_LOOKING)}
    with FileLock(cache / f".lock-{LEDGER}"):
        path = cache / LEDGER
        ledger = read_table(path) if path.is_file() else pd.DataFrame(columns=list(COLUMNS), dtype=str)
        known = set(ledger.loc[ledger["test_set"] == test_set, "fingerprint"])
        rows: list[tuple[str, ...]] = []
        for stage, directory in looks.items():
            key = load_record(directory).fingerprint
            if key not in known:
                number = str(len(known) + len(rows) + 1)
                rows.append((test_set, datetime.now(UTC).isoformat(timespec="seconds"), run, stage, key, number))
        ledger = pd.concat([ledger, pd.DataFrame(rows, columns=list(COLUMNS))], ignore_index=True)
        write_table(path, ledger)
    write_table(out / LEDGER, ledger[ledger["test_set"] == test_set].drop(columns="fingerprint"))


def digest_of_test_images(split: Path) -> str:
    """12 hex digits over the pixels of all images that are tested in some fold."""
    splits, manifest = read_table(split / "splits.csv"), read_table(split / "manifest.csv")
    tested = set(splits.loc[splits["split"] == "test", "image_id"])
    return digest_json(sorted(manifest.loc[manifest["image_id"].isin(tested), "pixel_digest"]))[:12]
