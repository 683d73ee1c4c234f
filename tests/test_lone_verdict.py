"""`radaug verdict` on a run's own predictions says what the run said, and otherwise which defaults it took."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from judged_run import experiment, judged_run
from test_verdict_rule import AUGMENTED, REFERENCE, simulate

from flows.cli import launch
from pipeline.config.experiment import Experiment
from pipeline.data.batches.dataset import read_table, write_table
from pipeline.verdict.gate import UNSEEN


def finished(root: Path, config: Experiment) -> Path:
    """A run whose scores have all their digits; it also has an external site."""
    table = simulate({REFERENCE: 0.0, AUGMENTED: 0.5}, patients=30)
    away = simulate({REFERENCE: 0.0, AUGMENTED: 0.4}, patients=24, seed=1).query("split == 'test'")
    away = away.assign(split="external", **{name: "away-" + away[name] for name in ("image_id", "patient_id")})
    return judged_run(root / "run", pd.concat([table, away], ignore_index=True), config)


@pytest.mark.parametrize("unit", ["image", "patient"])
def test_a_runs_own_plan_gives_its_bounds_to_the_last_digit(
    tmp_path: Path, unit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished(tmp_path, experiment(unit=unit))
    theirs = json.loads((run / "verdict.json").read_text())["utility"]
    for plan in (run, run / "config.yaml"):
        assert launch(["verdict", str(run / "predictions.csv"), "--plan", str(plan)]) == 0
        mine = json.loads(capsys.readouterr().out)
        looks = [one["evidence"].pop("generators")["looks"] for one in (mine, json.loads(json.dumps(theirs)))]
        assert looks[0] == [] and looks[1][0]["state"] == "not judged"
        assert mine["evidence"] == {name: value for name, value in theirs["evidence"].items() if name != "generators"}
        assert mine["decision"] == theirs["decision"]
        assert theirs["reasons"][-1].startswith("The generator could not be judged: its images were not measured")
        assert mine["reasons"] == [*theirs["reasons"][:-1], UNSEEN]


def test_without_a_plan_it_says_which_seed_and_defaults_it_took(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished(tmp_path, experiment())
    assert launch(["verdict", str(run / "predictions.csv")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["evidence"]["plan"]["seed"] == 0
    for said in ("endpoint auroc", "disease side disease", "margin 2 points", "alpha 0.05", "2000 draws", "seed 0"):
        assert said in found["reasons"][-1]
    assert found["reasons"][-2] == UNSEEN
    assert launch(["verdict", str(run / "predictions.csv"), "--plan", str(tmp_path)]) == 2
    assert "holds no config.yaml" in capsys.readouterr().err


def test_a_table_of_floats_comes_back_as_it_went(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = np.concatenate([random.random(5000), 10.0 ** random.uniform(-300, 300, 5000), [0.1 + 0.2, 5e-324]])
    write_table(tmp_path / "t.csv", pd.DataFrame({"value": values}))
    assert (read_table(tmp_path / "t.csv")["value"].astype(float).to_numpy() == values).all()
