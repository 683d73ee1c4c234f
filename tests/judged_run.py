"""Run directories with real verdicts, made from simulated predictions by the verdict's own stage."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.config.experiment import Experiment
from pipeline.config.loading import dump_experiment, validate_experiment
from pipeline.core.records import Record
from pipeline.verdict import stage


def experiment(**verdict: Any) -> Experiment:
    data = {"source": {"kind": "phantom"}, "classes": ["normal", "disease"], "positive": ["disease"]}
    return validate_experiment({"name": "t", "seed": 11, "data": data, "verdict": {"bootstrap": 200, **verdict}}, "t")


def judged_run(run: Path, table: pd.DataFrame, config: Experiment, **columns: list[str]) -> Path:
    """The files of a finished run; `columns` are added to the manifest, one value an image in the order of `table`."""
    inputs = {name: run / "stages" / name for name in ("split", "downstream-fold-0")}
    for place in inputs.values():
        place.mkdir(parents=True)
    table.to_csv(inputs["downstream-fold-0"] / "predictions.csv", index=False)
    Record("split").save(inputs["split"])
    Record("downstream", fold=0).save(inputs["downstream-fold-0"])
    facts = table.drop_duplicates("image_id")[["image_id", "patient_id", "label", "split"]].assign(**columns)
    facts.assign(pixel_digest=facts["image_id"]).to_csv(inputs["split"] / "manifest.csv", index=False)
    folds = table.drop_duplicates(["fold", "image_id"])[["fold", "image_id", "split"]]
    folds.to_csv(inputs["split"] / "splits.csv", index=False)
    stage.run(stage.verdict_config(config), inputs, run)
    shutil.copy(inputs["split"] / "manifest.csv", run)
    (run / "config.yaml").write_text(dump_experiment(config), encoding="utf-8")
    return run
