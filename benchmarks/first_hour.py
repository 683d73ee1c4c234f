"""The first hour: from folders of five shapes to a report, with not one edit of the configuration that `init` writes.

    RADAUG_DATA=/path/to/packs python benchmarks/first_hour.py [--set key=value ...]

Shapes, made of public packs by links: class folders (NIH X-rays), train and test folders of classes (the same), a
table with odd columns beside a folder (the same), an npz file (PneumoniaMNIST), DICOM files with a table (TCGA). Each
is given to init, validate and run, as a user would. `--set` goes to validate and run alone, to make the training short:
a row says whether a report came, not what is in it.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "first_hour.csv"
_EVERY = 4
"""Of the X-rays: every fourth, by patient's number."""
_TOLD = 30
"""Last lines of a command that failed, which are told."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--set", dest="changes", action="append", default=[])
    asked = parser.parse_args()
    packs = Path(os.environ["RADAUG_DATA"]).resolve()
    changes = [token for change in asked.changes for token in ("--set", change)]
    rows = []
    for name in asked.shapes:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(
                {"shape": name, **play(Path(folder), SHAPES[name], packs, changes), "set": " ".join(asked.changes)}
            )
        print(rows[-1], flush=True)
        with RESULTS.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def play(folder: Path, make: Callable[[Path, Path], None], packs: Path, changes: list[str]) -> dict[str, object]:
    """Seconds and exit codes of the three commands, the doubts that init told, and whether a report lies there."""
    make(folder / "given", packs)
    row: dict[str, object] = {"edits": 0}
    run = ["run", "study.yaml", "--engine", "direct", *changes]
    for command in (["init", "given"], ["validate", "study.yaml", *changes], run):
        begin = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, "-m", "flows.cli", *command], cwd=folder, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), "RADAUG_DATA": str(folder)},
        )  # fmt: skip
        row |= {f"{command[0]}_s": round(time.perf_counter() - begin, 1), f"{command[0]}_code": ended.returncode}
        if command[0] == "init":
            row["doubts"] = ended.stdout.count("CHECK: ")
        if ended.returncode:
            print(*ended.stderr.splitlines()[-_TOLD:], sep="\n", file=sys.stderr, flush=True)
    return row | {"report": (folder / "runs" / "study" / "report.html").is_file()}


def _x_rays(packs: Path) -> list[dict[str, str]]:
    with (packs / "nih-cxr-normal-vs-pneumonia-256" / "labels.csv").open() as file:
        return [row for row in csv.DictReader(file) if int(row["patient_id"]) % _EVERY == 0]


def _link(source: Path, at: Path) -> None:
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(source)


def class_folders(given: Path, packs: Path) -> None:
    for row in _x_rays(packs):
        source = packs / "nih-cxr-normal-vs-pneumonia-256" / row["file"]
        _link(source, given / row["class"] / source.name)


def split_folders(given: Path, packs: Path) -> None:
    for row in _x_rays(packs):
        source = packs / "nih-cxr-normal-vs-pneumonia-256" / row["file"]
        _link(source, given / row["suggested_split"] / row["class"] / source.name)


def odd_table(given: Path, packs: Path) -> None:
    rows = ["Image Index,Finding Labels,Follow-up #,Patient ID"]
    for row in _x_rays(packs):
        source = packs / "nih-cxr-normal-vs-pneumonia-256" / row["file"]
        _link(source, given / "images" / source.name)
        finding = "No Finding" if row["class"] == "no_finding" else "Pneumonia"
        rows.append(f"{source.name},{finding},{row['follow_up']},{int(row['patient_id'])}")
    (given / "Data_Entry.csv").write_text("\n".join(rows) + "\n")


def npz(given: Path, packs: Path) -> None:
    _link(packs / "pneumoniamnist-28" / "pneumoniamnist.npz", given / "pneumoniamnist.npz")


def dicom(given: Path, packs: Path) -> None:
    for source in (packs / "tcga-luad-ct-contrast-dicom").rglob("*"):
        if source.suffix in (".dcm", ".csv"):
            _link(source, given / source.relative_to(packs / "tcga-luad-ct-contrast-dicom"))


SHAPES: dict[str, Callable[[Path, Path], None]] = {
    "class folders": class_folders,
    "train and test folders": split_folders,
    "odd table": odd_table,
    "npz": npz,
    "DICOM and a table": dicom,
}

if __name__ == "__main__":
    main()
