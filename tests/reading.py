"""Reader studies of a run built by hand, and readers who answer as a test wants."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from fake_run import Case, build

from flows.cli import launch
from pipeline.core.files import read_json

Answer = Callable[[dict[str, Any]], dict[str, Any]]


def study_of(root: Path, case: Case | None = None, images: int = 24, seed: int = 0) -> Path:
    run, out = root / "run", root / f"study-{images}-{seed}"
    if not run.exists():
        build(run, case or Case())
        (run / "run.lock").touch()
    assert launch(["readers", str(run), "--out", str(out), "--images", str(images), "--seed", str(seed)]) == 0
    return out


def key_of(study: Path) -> pd.DataFrame:
    return pd.read_csv(study / "key" / "key.csv", dtype=str, keep_default_na=False)


def right(row: dict[str, Any]) -> dict[str, Any]:
    return {"origin": row["origin"], "confidence": 3, "diagnosis": row["label"]}


def answered(place: Path, reader: str, say: Answer = right, **changes: Any) -> Path:
    """A reader's file as the page saves it."""
    rows = key_of(place).to_dict("records")
    said = [{"number": int(row["number"]), **say(row)} for row in rows]
    facts = read_json(place / "key" / "study.json")
    made = {"format": "radaug-answers-1", "study": facts["name"], "reader": reader,
            "order": [int(row["number"]) for row in rows], "answers": said}  # fmt: skip
    path = place / f"{reader}.json"
    path.write_text(json.dumps(made | changes))
    return path
