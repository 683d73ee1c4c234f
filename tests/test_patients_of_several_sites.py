"""A patient with images of two hospitals, or with healthy and diseased ones alone, ends no run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from test_sites import PLAN, REFERENCE, predictions

from pipeline.config.experiment import VerdictConfig
from pipeline.core.errors import DataError
from pipeline.data.cohort.cells import require_one_site_a_patient
from pipeline.verdict.stage import VerdictStageConfig, arm_metrics

CONFIG = VerdictStageConfig(verdict=VerdictConfig(bootstrap=200), classes=("well", "ill"), positive=("ill",), seed=0)
PER_PATIENT = "per patient"


def read_by(patients: pd.Series) -> pd.DataFrame:
    """Predictions whose image with number N of a side is of the patient `patients[N]`."""
    table = predictions({REFERENCE: 1.0}, seeds=1)
    number = table["image_id"].str.split("-").str[1].astype(int)
    return table.assign(patient_id=table["split"] + " " + number.map(patients))


def auroc_of(table: pd.DataFrame, subgroup: str) -> list[float]:
    rows = [
        row for row in arm_metrics(table, CONFIG, PLAN) if row.subgroup == subgroup and row.seed and row.split == "test"
    ]
    return [float(row.value) for row in rows if row.metric == "auroc"]


def test_a_patient_of_two_sites_counts_once_per_patient() -> None:
    """Ill: images 0 to 94 of A, 115 to 134 of B; well: 95 to 114 of A, 135 to 229 of B. The first 20 of each class
    have an image at either site."""
    number = pd.Series(range(230))
    ill = number.where(number < 95, number - 115).map("ill {}".format)
    well = number.where(number < 115, number - 40).map("well {}".format)
    table = read_by(ill.where((number < 95) | number.between(115, 134), well))
    test = table[table["split"] == "test"]
    means = test.groupby("patient_id").agg(score=("score_ill", "mean"), label=("label", "first"))
    assert len(means) == 190 and (test.groupby("patient_id")["site"].nunique() == 2).sum() == 40
    assert auroc_of(table, PER_PATIENT) == [pytest.approx(roc_auc_score(means["label"] == "ill", means["score"]))]


def test_where_every_patient_has_disease_somewhere_there_is_no_figure_per_patient() -> None:
    number = pd.Series(np.minimum(np.arange(230), 229 - np.arange(230))).map(str)  # an ill and a well image each
    table = read_by(number)
    assert table.groupby("patient_id")["label"].nunique().eq(2).all()
    assert not auroc_of(table, PER_PATIENT) and len(auroc_of(table, "")) == 1


def test_cells_of_patients_need_one_site_a_patient() -> None:
    manifest = pd.DataFrame({
        "image_id": ["a", "b", "c"], "patient_id": ["SECRET", "SECRET", "Q"], "hospital": ["A", "B", "B"]
    })  # fmt: skip
    with pytest.raises(DataError, match=r"1 of 2 patients .*\(hospital\).* verdict.unit: image") as error:
        require_one_site_a_patient(manifest, "hospital")
    assert "SECRET" not in str(error.value)
    require_one_site_a_patient(manifest.assign(hospital="A"), "hospital")
