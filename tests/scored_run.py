"""Run directories as far as their detectors, and new images scored by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from flows.cli import launch
from flows.plan import plan_experiment
from flows.run_directory import link_stage
from pipeline.config.loading import dump_experiment, validate_experiment
from pipeline.core.cache import execute

STEPS = ("ingest", "split", "prepare", "detect", "shift")


def finished(root: Path, data: dict[str, Any], **anomaly: Any) -> Path:
    """A run directory as far as its detectors."""
    plain = {"classes": ["well", "ill"], "positive": ["ill"], "split": {"kind": "holdout", "val": 0.3, "test": 0.3}}
    asked = {"detectors": ["pca"], "worklist": 4} | anomaly
    values = {"name": "t", "data": plain | data, "anomaly": asked, "compute": {"device": "cpu", "precision": "float32"}}
    experiment, run = validate_experiment(values, "t"), root / "run"
    run.mkdir()
    (run / "run.lock").touch()
    (run / "config.yaml").write_text(dump_experiment(experiment), encoding="utf-8")
    places: dict[str, Path] = {}
    for step in plan_experiment(experiment):
        if step.kind in STEPS:
            done = execute(step.stage(places), root / "cache")
            places[step.name] = done.directory
            link_stage(run, done.record, done.directory)
    return run


def table_of(folder: Path, rows: list[tuple[str, str, str]]) -> dict[str, Any]:
    pd.DataFrame(rows, columns=["path", "label", "patient_id"]).to_csv(folder / "images.csv", index=False)
    return {"kind": "csv", "path": str(folder / "images.csv")}


def scored(run: Path, given: Path, out: Path, *more: str, code: int = 0) -> pd.DataFrame:
    assert launch(["score", str(run), str(given), "--out", str(out), *more]) == code
    return pd.read_csv(out / "scores.csv", dtype=str) if code == 0 else pd.read_csv(out / "refused.csv", dtype=str)
