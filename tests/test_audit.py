"""The audit speaks up for duplicates, torn patients and confounders, and is silent where there is nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.config.loading import validate_experiment
from pipeline.data import ingest
from pipeline.data.batches.dataset import read_table
from pipeline.data.cohort import confounders
from pipeline.data.cohort.audit import audit_manifest
from pipeline.data.cohort.confounders import Finding, find_confounders
from pipeline.data.cohort.duplicates import near_groups, pixel_digest, repeats, thumbnail

CLASSES = ["a", "b"]


def manifest(labels: list[str], patients: list[str] | None = None, **columns: Any) -> pd.DataFrame:
    ids = [f"i{number:04d}" for number in range(len(labels))]
    table = pd.DataFrame({"image_id": ids, "path": ids, "label": labels, "patient_id": patients or ids})
    facts = {"modality": "CT", "body_part": "", "size": "8x8", "spacing": "1x1", "near_group": "", "pixel_digest": ids}
    for name, values in (facts | columns).items():
        table[name] = values
    return table.astype(str)


def found(table: pd.DataFrame) -> dict[str, Finding]:
    return {finding.column: finding for finding in find_confounders(table, CLASSES)}


def test_digest_tells_values_and_shape_apart() -> None:
    array = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    assert pixel_digest(array) == pixel_digest(array.copy(order="F"))
    assert len({pixel_digest(array), pixel_digest(array.reshape(1, 4, 3)), pixel_digest(array + 1)}) == 3


def test_near_duplicates_survive_brightness_noise_and_size_but_not_another_image() -> None:
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.normal(size=(2, 12, 12)), np.ones((8, 8)))
    first, other = smooth[0].astype(np.float32)[None], smooth[1].astype(np.float32)[None]
    images = [first, first * 1.3 + 20, other, first + rng.normal(size=first.shape).astype(np.float32) * 0.05]
    images.append(first[:, ::2, ::2])
    groups = near_groups(np.stack([thumbnail(image.astype(np.float32)) for image in images]))
    assert groups == [0, 0, -1, 0, 0]


def test_near_groups_across_blocks_equal_those_of_one_matrix() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(2500, 20))
    vectors[2400] = vectors[3]
    vectors[1500] = vectors[1100]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    groups = np.array(near_groups(vectors))
    assert [list(np.flatnonzero(groups == number)) for number in range(2)] == [[3, 2400], [1100, 1500]]
    assert (groups >= 0).sum() == 4


@pytest.mark.parametrize("clumps", [1, 12, 300])
def test_near_groups_equal_those_of_all_pairs(clumps: int) -> None:
    """Chains and clumps, of thumbnails whose noise puts pairs on both sides of the limit."""
    rng = np.random.default_rng(clumps)
    centres = rng.normal(size=(clumps, 40))
    noise = rng.choice([0.03, 0.07, 0.12], size=(600, 1)) * rng.normal(size=(600, 40))
    vectors = centres[rng.integers(0, clumps, 600)] + noise
    vectors[:5] = 0
    vectors[10:20] = vectors[10]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    groups = np.array(near_groups(vectors))
    alike = vectors @ vectors.T >= 0.995
    reached = alike.copy()
    for _ in range(10):  # 2^10 steps
        reached = reached @ reached
    others = reached & ~np.eye(len(vectors), dtype=bool)
    assert ((groups >= 0) == others.any(axis=1)).all()
    assert ((groups[:, None] == groups)[groups >= 0] == reached[groups >= 0]).all()
    firsts = [int(np.flatnonzero(groups == number)[0]) for number in range(groups.max() + 1)]
    assert firsts == sorted(firsts)


def test_constant_images_are_no_duplicates_of_each_other() -> None:
    flat = [thumbnail(np.full((1, 20, 20), value, np.float32)) for value in (1.0, 2.0)]
    assert near_groups(np.stack(flat)) == [-1, -1]


def test_repeats_ignore_empty_keys() -> None:
    assert repeats(["x", "", "y", "x", "", "x"]) == [[0, 3, 5]]


def test_counts_of_a_worked_example() -> None:
    table = manifest(["a", "b", "a", "", "b"], ["p", "p", "q", "q", ""], pixel_digest=["1", "1", "1", "2", "3"])
    rows = audit_manifest(
        table, pd.DataFrame({"image_id": ["x"], "path": ["x.png"], "reason": ["it is cut"]}), CLASSES
    ).set_index("check")
    counts = rows["count"].astype(int)
    assert counts["class a"] == 2
    assert counts["class b"] == 2
    assert counts["unlabelled"] == 1
    assert counts["patient ids missing"] == 1
    assert counts["patients with several images"] == 2
    assert counts["patients in several classes"] == 1
    assert counts["rejected"] == 1
    assert rows["detail"]["rejected"].endswith("The first is x.png: it is cut.")
    assert counts["exact duplicates"] == 3  # three identical images are three pairs
    assert counts["identical images with different labels"] == 1
    assert rows["severity"]["exact duplicates"] == "warning"
    assert rows["severity"]["near duplicates"] == "info"


def test_odd_modality_and_body_part_are_warned_about() -> None:
    table = manifest(["a", "b"] * 5, modality=["CT"] * 9 + ["DX"], body_part=["CHEST"] * 8 + ["", "chest"])
    rows = audit_manifest(table, pd.DataFrame(), CLASSES).set_index("check")
    assert (rows["severity"]["odd modality"], rows["count"]["odd modality"]) == ("warning", "1")
    assert rows["severity"]["odd body_part"] == "info"


def test_a_column_that_gives_the_class_away_is_found_and_a_balanced_one_is_not() -> None:
    labels = CLASSES * 30
    site = ["north" if label == "a" else "south" for label in labels]
    site[0], site[1] = "south", "north"
    balanced = [("x", "x", "y", "y")[number % 4] for number in range(60)]
    findings = found(manifest(labels, site=site, balanced=balanced, age=list(range(60))))
    assert findings["site"].entangled
    assert findings["site"].guessed == pytest.approx(58 / 60)  # all but the two that were swapped
    assert not findings["balanced"].entangled
    assert not findings["age"].entangled
    assert "scanner" not in findings


def test_permutations_in_parts_are_the_permutations_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    columns = {name: rng.choice(list("xyz"), 90) for name in ("manufacturer", "kernel", "site")}
    table = manifest(CLASSES * 45, [f"p{number // 2}" for number in range(90)], **columns)
    whole = find_confounders(table, CLASSES)
    monkeypatch.setattr(confounders, "_CELLS", 700)  # of 90 units
    for one, other in zip(whole, find_confounders(table, CLASSES), strict=True):
        assert (one.column, one.p_value, one.guessed) == (other.column, other.p_value, other.guessed)
        assert one.cramers_v == pytest.approx(other.cramers_v)


def test_random_columns_are_left_alone() -> None:
    alarms = 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        columns = {name: rng.choice(list("xyz"), 80) for name in ("manufacturer", "model", "kernel", "site", "room")}
        columns |= {"age": rng.integers(20, 90, 80), "slice_thickness_mm": rng.choice([1, 2.5, 5], 80)}
        alarms += any(finding.entangled for finding in found(manifest(CLASSES * 40, **columns)).values())
    assert alarms <= 2  # the level is 1 % for the scanner group and 1 % for the rest


def test_many_images_of_few_patients_do_not_make_chance_look_like_a_confounder() -> None:
    maker = list("xxxxxyxyyy")  # of the five patients of class a four have maker x, of those of class b two
    patients = [f"p{number}" for number in range(10) for _ in range(40)]
    labels = ["ab"[number % 2] for number in range(10) for _ in range(40)]
    table = manifest(labels, patients, manufacturer=np.repeat(maker, 40))
    naive = stats.chi2_contingency(pd.crosstab(table["manufacturer"], table["label"]), correction=False)
    assert naive.pvalue < 1e-3
    assert not any(finding.entangled for finding in found(table).values())


@pytest.mark.parametrize("shift", [0.02, 0.06, 0.1])
def test_p_value_and_effect_agree_with_scipy_where_images_are_independent(shift: float) -> None:
    rng = np.random.default_rng(7)
    labels = CLASSES * 200
    site = ["x" if rng.random() < 0.5 + (shift if label == "a" else -shift) else "y" for label in labels]
    table = manifest(labels, site=site)
    counts = pd.crosstab(table["site"], table["label"])
    reference = stats.chi2_contingency(counts, correction=False)
    finding = found(table)["site"]
    assert finding.p_value == pytest.approx(reference.pvalue, abs=0.05)
    corrected = np.sqrt(
        max(0.0, reference.statistic / 400 - 1 / 399)
    )  # Bergsma (2013): phi squared less its expectation
    assert finding.cramers_v == pytest.approx(corrected, abs=0.01)


def test_the_scanner_group_speaks_up_for_many_weak_signs() -> None:
    rng = np.random.default_rng(0)
    labels = CLASSES * 40
    columns = {
        name: [rng.choice(["x", "y"], p=[0.68, 0.32] if label == "a" else [0.32, 0.68]) for label in labels]
        for name in ("manufacturer", "model", "kernel")
    }
    findings = found(manifest(labels, **columns))
    assert findings["scanner"].entangled
    assert "manufacturer" in findings["scanner"].values


def test_copies_of_the_label_ids_and_paths_are_not_tested_but_a_perfect_scanner_is() -> None:
    labels = CLASSES * 20
    codes = ["ab".index(label) for label in labels]
    table = manifest(labels, source_label=codes, study_uid=codes, file=[f"f{n}" for n in range(40)], manufacturer=codes)
    assert set(found(table)) == {"scanner", "manufacturer"}


def test_values_of_a_users_column_are_not_repeated() -> None:
    labels = CLASSES * 30
    table = manifest(labels, ward=["Mrs Secret" if label == "a" else "Mr Hidden" for label in labels])
    text = audit_manifest(table, pd.DataFrame(), CLASSES).to_csv()
    assert "ward and class are entangled" in text
    assert "Secret" not in text
    assert "Hidden" not in text


@pytest.fixture(scope="module")
def tcga(data_packs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TCGA pack, ingested."""
    folder = "tcga-luad-ct-contrast-dicom"
    source = {"kind": "dicom", "path": folder, "labels": f"{folder}/labels.csv"}
    source |= {"columns": {"path": "file", "label": "class"}}
    data = {"source": source, "classes": ["no_contrast", "contrast"], "positive": ["contrast"]}
    out = tmp_path_factory.mktemp("tcga")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADAUG_DATA", str(data_packs))
        ingest.run(ingest.ingest_config(validate_experiment({"name": "t", "data": data}, "t")), {}, out)
    return out


def test_tcga_has_the_patients_of_its_page_and_its_maker_is_entangled(tcga: Path) -> None:
    rows = read_table(tcga / "audit.csv").set_index("check")
    assert rows["count"]["patients in several classes"] == "9"
    assert "50 images of 31 patients" in rows["detail"]["class contrast"]
    assert "50 images of 32 patients" in rows["detail"]["class no_contrast"]
    assert rows["severity"]["confounder scanner"] == "warning"
    assert rows["severity"]["confounder manufacturer"] == "warning"
    # of its page: SIEMENS made 40 of 50 with contrast and 27 of 50 without
    assert "SIEMENS: 54% of no_contrast, 80% of contrast" in rows["detail"]["confounder manufacturer"]
    assert rows["severity"]["confounder sex"] == "info"


def test_tcga_ids_stay_out_of_the_audit(tcga: Path) -> None:
    table = read_table(tcga / "manifest.csv")
    assert table["patient_id"].nunique() == 54
    text = (tcga / "audit.csv").read_text()
    assert not [patient for patient in set(table["patient_id"]) if patient in text]
    assert set(table["values"]) == {"HU"}
    assert table["minimum"].astype(float).min() >= -1024
