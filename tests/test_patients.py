"""Image 7 of nobody is not patient 7, and " 7" is: wherever patients are counted, kept together or drawn."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.config.experiment import ClassifierConfig, SubgroupConfig
from pipeline.core.compute import Hardware
from pipeline.core.errors import LeakageError
from pipeline.core.patients import known_patients, num_known, patient_units
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.scaling import Scaling
from pipeline.data.cohort.assignment import assign_patients, cut_to
from pipeline.data.cohort.audit import audit_manifest
from pipeline.data.cohort.leakage import assert_no_leakage, refuse_shared
from pipeline.downstream import feature_models
from pipeline.supervised.fit import Phase, Share
from pipeline.verdict import VerdictPlan, decide
from pipeline.verdict.fits import by_patient, draw_test_sets
from pipeline.verdict.power import patients_tested
from pipeline.verdict.subgroups import subgroup_rows

SEVENS = pd.DataFrame(
    {"image_id": ["7", "a", "b", "c"], "patient_id": ["", "7", " 7 ", "07"], "label": ["sick", "sick", "well", "well"]}
)
"""Three units: an image called 7 of an unknown patient, the two images of patient 7, and one of patient 07."""
PREDICTED = pd.concat(
    SEVENS.assign(split=split, image_id=split[:2] + SEVENS["image_id"] if split == "val" else SEVENS["image_id"])
    .assign(patient_id=SEVENS["patient_id"] if split == "test" else "v" + SEVENS["patient_id"].str.strip())
    .assign(arm="real+classical", fold="0", seed="0", gan_seed="", score_sick=[0.9, 0.8, 0.3, 0.1])
    for split in ("val", "test")
).assign(score_well=lambda table: 1 - table["score_sick"])


def test_units_by_hand() -> None:
    assert list(patient_units(SEVENS)) == ["image 7", "patient 7", "patient 7", "patient 07"]
    assert list(known_patients(SEVENS)) == ["", "7", "7", "07"] and num_known(SEVENS) == 2
    odd = pd.DataFrame({"image_id": ["patient 7", "image 7"], "patient_id": ["", "image 7"]})
    assert patient_units(odd).nunique() == 2
    assert list(patient_units(SEVENS.iloc[:0])) == []


@pytest.mark.parametrize("ids", [[7.0, np.nan, 8.0], [7, None, 8.0], ["7", "", "8"], ["7", np.nan, 8]])
def test_tables_of_numbers_name_the_same_patients(ids: list[object]) -> None:
    table = pd.DataFrame({"image_id": [7, 8, 9], "patient_id": ids})
    assert list(patient_units(table)) == ["patient 7", "image 8", "patient 8"]


def test_the_split_keeps_them_apart_and_a_patient_whole() -> None:
    sides = assign_patients(SEVENS.iloc[:3].assign(label="sick"), {"train": 0.5, "test": 0.5}, 0)
    assert sides["7"] != sides["a"] == sides["b"]
    taken = {frozenset(cut_to(SEVENS.assign(label="x"), {"x": 1}, seed)) for seed in range(20)}
    assert taken == {frozenset("7"), frozenset("a"), frozenset("c")}  # one image: the first of any of three units


def test_a_leak_is_one_of_patients_not_of_names() -> None:
    facts = SEVENS.assign(pixel_digest=list("wxyz"), path="a.png")
    sides = pd.DataFrame({"fold": "0", "image_id": ["7", "a", "b", "c"], "split": ["test", "train", "train", "val"]})
    assert_no_leakage(sides, facts)
    with pytest.raises(LeakageError, match=r"1 patient\(s\)"):
        assert_no_leakage(sides.assign(split=["test", "train", "val", "val"]), facts)
    refuse_shared(facts.iloc[:1], facts.iloc[1:].assign(pixel_digest=list("def")))
    with pytest.raises(LeakageError, match=r"1 patient id\(s\)"):
        refuse_shared(facts.iloc[1:2], facts.iloc[2:].assign(pixel_digest=list("de")))


def test_the_verdict_draws_three_units() -> None:
    test = draw_test_sets(PREDICTED, 400, 0)["0"]
    assert test.num_patients == 3
    lone, first, second, other = test.weights[1:401].T  # in the order of SEVENS
    assert (first == second).all() and (lone == first).mean() < 0.9 and (other == first).mean() < 0.9
    rows = by_patient(PREDICTED[PREDICTED["split"] == "test"], ["sick"])
    assert sorted(rows["score_disease"].round(6)) == [0.1, 0.55, 0.9]  # patient 7: the mean of 0.8 and 0.3
    assert draw_test_sets(rows.assign(split="test"), 10, 0)["0"].num_patients == 3


def test_the_verdict_refuses_a_patient_on_two_sides_whatever_the_blanks() -> None:
    plan = VerdictPlan(positive=("sick",), bootstrap=100)
    decide(PREDICTED, plan)
    crossing = PREDICTED.assign(patient_id=PREDICTED["patient_id"].replace("v07", "7  "))
    with pytest.raises(LeakageError, match=r"1 patient\(s\)"):
        decide(crossing, plan)


def test_subgroups_validate_and_the_audit_count_three() -> None:
    manifest = SEVENS.assign(sex="F")
    rows = subgroup_rows(PREDICTED, manifest, (SubgroupConfig(column="sex"),), VerdictPlan(positive=("sick",)))
    assert {(row.n_patients, row.n_images) for row in rows} == {("3", "4")}
    assert patients_tested(SEVENS.assign(split="test"), ("sick",)) == (2, 1)
    facts = dict.fromkeys(("near_group", "values", "spacing", "size", "modality", "body_part", "pixel_digest"), "")
    audit = audit_manifest(SEVENS.assign(path="p", **facts), SEVENS[:0], ("sick", "well")).set_index("check")["detail"]
    assert "2 images of 1 patients are labelled sick" in audit["class sick"]
    assert "2 images of 2 patients are labelled well" in audit["class well"]


def test_feature_models_leave_three_units_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_models, "features_of", lambda dataset, rows, *rest: np.zeros((len(rows), 1)))
    images = np.zeros((4, 1, 8, 8), dtype=np.uint8)
    dataset = DataSet(Path("sevens"), SEVENS, images, Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8"))
    phase = Phase((Share(dataset, np.arange(4)),), 1)
    found = feature_models.examples_of(
        ClassifierConfig(network="svm"), phase, ("sick", "well"), Hardware("cpu", "float32"), 0
    )
    lone, first, second, other = found.group[:4]
    assert first == second and len({lone, first, other}) == 3


def test_no_other_file_makes_units_of_patients() -> None:
    """Readers fill the column; whoever asks whose an image is asks `pipeline.core.patients`."""
    root = Path(__file__).parents[1]
    asks = re.compile(r"""["']patient_id["']\]\s*(==|!=|\.mask|\.where|\.nunique|\.to_numpy|\.astype)""")
    readers = {"identities.py", "dicom_labels.py"}  # the source's ids against the headers', before there are units
    files = [path for room in ("pipeline", "flows") for path in (root / room).rglob("*.py") if path.name not in readers]
    assert [path.name for path in files if asks.search(path.read_text(encoding="utf-8"))] == []
