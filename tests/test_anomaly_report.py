"""The report's section on anomaly detectors: patients, sides, and what a run without maps leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_run import Case, build, stage, table

from pipeline.report import anomaly_parts
from pipeline.report.reading import Run, read_run

COLUMNS = "split,seed,image_id,patient_id,label,normal,anomaly_score,p_value"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The hand-made run with a second detector of two fits, whose patient b has a normal and a diseased image."""
    root = build(tmp_path_factory.mktemp("anomaly") / "run", Case(per_class=6))
    rows = [
        ["test", seed, image, patient, label, normal, score, 0.5]
        for seed in (0, 1)
        for image, patient, label, normal, score in (
            ("i0", "a", "cyst", 1, 1.0), ("i1", "a", "cyst", 1, 2.0), ("i2", "b", "cyst", 0, 0.0),
            ("i3", "b", "metastasis", 0, 5.0), ("i4", "", "cyst", 1, 4.0 + seed),
        )
    ]  # fmt: skip
    rows.append(["val", 0, "i5", "c", "cyst", 1, 9.0, 0.5])
    table(stage(root, "detect", 0, variant="padim") / "anomaly.csv", COLUMNS, rows)
    return read_run(root)


def test_roc_curves_are_of_patients(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def plot(curves: dict[str, pd.DataFrame], auroc: dict[str, float], ceiling: str) -> bytes:
        seen.update(curves=curves, auroc=auroc, ceiling=ceiling)
        return b""

    monkeypatch.setattr(anomaly_parts, "detectors_roc_plot", plot)
    picture = anomaly_parts.detectors_roc(run)
    assert picture is not None and "2 detectors" in picture.caption
    assert list(seen["curves"]) == ["discriminator-logit@run", "padim", anomaly_parts.SUPERVISED]
    padim = seen["curves"]["padim"].set_index(["seed", "unit"])
    # patient a is the mean of 1 and 2, b of 0 and 5 and diseased by one image; i4 has no patient and stands for itself
    assert padim["disease_score"].to_dict() == {
        ("0", "patient a"): 1.5, ("0", "patient b"): 2.5, ("0", "image i4"): 4.0,
        ("1", "patient a"): 1.5, ("1", "patient b"): 2.5, ("1", "image i4"): 5.0,
    }  # fmt: skip
    assert padim["diseased"].to_dict() == {key: key[1] == "patient b" for key in padim.index}
    assert seen["auroc"]["discriminator-logit@run"] == pytest.approx(0.61234)
    supervised = seen["curves"][anomaly_parts.SUPERVISED]
    rows = run.predictions[(run.predictions["arm"] == "real+classical") & (run.predictions["seed"] == "0")]
    expected = rows.groupby("patient_id")["score_metastasis"].mean()
    own = supervised[supervised["seed"] == "0"].set_index("unit")["disease_score"]
    np.testing.assert_allclose(own[[f"patient {name}" for name in expected.index]], expected)


def test_the_histogram_is_of_the_first_fit_and_marks_where_alarms_begin(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def plot(scores: pd.DataFrame, classes: tuple[str, ...], alarm: float | None) -> bytes:
        seen.update(scores=scores, alarm=alarm)
        return b""

    monkeypatch.setattr(anomaly_parts, "anomaly_plot", plot)
    picture = anomaly_parts.histogram(run)
    first = pd.read_csv(run.root / "stages" / "detect-discriminator-logit@run-fold-0-gan-0" / "anomaly.csv")
    alarms = first[first["p_value"] <= 0.05]["anomaly_score"]
    assert picture is not None and len(seen["scores"]) == len(first)
    assert seen["alarm"] == (pytest.approx(alarms.min()) if len(alarms) else None)
    assert ("dashed line" in picture.caption) == bool(len(alarms))


def test_a_run_without_a_worklist_shows_none(tmp_path: Path) -> None:
    root = build(tmp_path / "run", Case(per_class=6))
    made = root / "stages" / "detect-discriminator-logit@run-fold-0-gan-0"
    assert anomaly_parts.worklist_picture(read_run(root)) is not None
    for name in ("worklist.csv", "worklist.png"):
        (made / name).unlink()
    assert anomaly_parts.worklist_picture(read_run(root)) is None
    assert anomaly_parts.worklist_table(read_run(root)) is None
