"""A study that grows: class folders of tiny images, and the rounds in which they are split."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ingesting import png

from flows.enrolment import enrol, require_register
from flows.plan import plan_experiment
from pipeline.config.experiment import Experiment
from pipeline.config.loading import validate_experiment
from pipeline.core.cache import execute
from pipeline.data.batches.dataset import read_table


def study(root: Path, kind: str = "holdout", **data: Any) -> Experiment:
    """A study on `root/source`, whose register is `root/register.json`."""
    plain = {
        "source": {"kind": "folders", "path": str(root / "source"), "patient_pattern": r"(p\d+)"},
        "classes": ["a", "b"], "positive": ["b"], "split": {"kind": kind}, "spatial_size": 12,
        "patient_register": str(root / "register.json"),
    }  # fmt: skip
    return validate_experiment({"name": "study", "data": plain | data}, "study")


def arrive(root: Path, numbers: Iterable[int], image: int = 0) -> None:
    """An image of each patient; odd ones are of class b."""
    for number in numbers:
        png(root / "source" / "ab"[number % 2] / f"p{number:03d}_{image}.png", 1000 * image + number)


def leave(root: Path, numbers: Iterable[int]) -> None:
    """All images of the patients go."""
    for number in numbers:
        for path in (root / "source").rglob(f"p{number:03d}_*.png"):
            path.unlink()


def one_round(root: Path, experiment: Experiment, *, killed: bool = False) -> Path:
    """Ingest, split and enrol as a run does; gives the split's directory. Killed, it ends before it enrols."""
    cache = root / "cache"
    require_register(experiment, cache)
    ingest, split, *_ = plan_experiment(experiment)
    source = {ingest.name: execute(ingest.stage({}), cache).directory}
    made = execute(split.stage(source), cache)
    if not killed:
        enrol(experiment, split, made, source, cache)
    return made.directory


def sides(split: Path) -> dict[tuple[str, str], str]:
    """(fold, patient) -> side, of patients who are on one at all."""
    table = read_table(split / "splits.csv").merge(read_table(split / "manifest.csv")[["image_id", "patient_id"]])
    table = table[table["split"] != "unused"]
    return dict(zip(zip(table["fold"], table["patient_id"], strict=True), table["split"], strict=True))
