"""The report's parts: words, curves, planes, grey values, redaction."""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from sklearn.metrics import roc_curve as sklearn_roc_curve

from pipeline.adversarial.families import FAMILIES
from pipeline.anomaly.detectors import DETECTORS
from pipeline.config.arms import ARMS
from pipeline.config.loading import validate_experiment
from pipeline.core.errors import UserError
from pipeline.core.metrics import MetricRow, table_of
from pipeline.nets.classifiers import CLASSIFIERS
from pipeline.report.glossary import terms_in
from pipeline.report.names import detector_named, detector_title, family_title, network_title
from pipeline.report.plots import ROC_GRID, mean_roc, roc_curve
from pipeline.report.privacy_tables import attacks_table, guesses_table, memorisation_table
from pipeline.report.sharing import WITHHELD, Redaction, config_without_paths
from pipeline.report.sheets import planes, small_png, to_grey
from pipeline.report.tables import PER_PATIENT
from pipeline.report.words import (
    arm_title,
    memorisation_sentence,
    named_arm,
    patients_needed_words,
    release_statement,
    utility_statement,
)


def test_big_pictures_are_made_to_fit() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (1200, 2400), dtype=np.uint8))
    small = small_png(noise, 1440, 300_000)
    assert len(small) <= 300_000
    with Image.open(io.BytesIO(small)) as picture:
        assert picture.mode == "L"
        assert picture.width / picture.height == pytest.approx(2, abs=0.02)


def test_roc_curve_agrees_with_scikit_learn_with_and_without_ties() -> None:
    rng = np.random.default_rng(5)
    positive = rng.random(200) < 0.4
    for scores in (rng.normal(positive, 1), np.round(rng.normal(positive, 1))):
        expected = sklearn_roc_curve(positive, scores, drop_intermediate=False)[:2]
        np.testing.assert_allclose(roc_curve(scores, positive), expected)


def test_mean_roc_is_the_vertical_average_of_the_fits() -> None:
    perfect, worst = [0.9, 0.8, 0.2, 0.1], [0.1, 0.2, 0.8, 0.9]
    rows = [
        ("0", seed, "", score, truth)
        for seed, scores in (("0", perfect), ("1", worst))
        for score, truth in zip(scores, [1, 1, 0, 0], strict=True)
    ]
    table = pd.DataFrame(rows, columns=["fold", "seed", "gan_seed", "disease_score", "diseased"])
    mean, curves = mean_roc(table)
    assert len(curves) == 2
    np.testing.assert_allclose(mean, np.where(ROC_GRID < 1, 0.5, 1.0))


def test_planes_are_shown_as_radiologists_do() -> None:
    volume = np.zeros((1, 4, 6, 8))
    volume[0, 3, 3, 4] = 1  # the patient's right, within the middle axial and coronal planes
    volume[0, 2, 5, 4] = 2  # the front, within the middle axial and sagittal planes
    volume[0, 2, 3, 7] = 3  # the top of the head, within the middle coronal and sagittal planes
    axial, coronal, sagittal = planes(volume)
    assert (axial.shape, coronal.shape, sagittal.shape) == ((6, 4), (8, 4), (8, 6))
    assert np.argwhere(axial == 1).tolist() == [[2, 0]], "right of the patient on the left"
    assert np.argwhere(axial == 2).tolist() == [[0, 1]], "front up"
    assert np.argwhere(coronal == 3).tolist() == [[0, 1]], "head up"
    assert np.argwhere(sagittal == 2).tolist() == [[3, 0]], "face to the left"


def test_grey_values_are_the_windowed_physical_values() -> None:
    scaling = {"scale": 2.0, "offset": -100.0}
    stored = np.array([0, 40, 50, 60, 200], dtype=np.int16)  # -100, -20, 0, 20, 300 HU
    assert to_grey(stored, scaling, (-20.0, 180.0)).tolist() == [0, 0, 26, 51, 255]


@pytest.mark.parametrize(
    ("decision", "tone"), [("helps", "good"), ("harms", "bad"), ("no_benefit", "neutral"), ("inconclusive", "caution")]
)
def test_every_decision_has_its_words(decision: str, tone: str) -> None:
    evidence = {
        "endpoint": "auroc",
        "arm": "a",
        "reference": "b",
        "difference": -0.0149,
        "ci_low": None,
        "margin": 0.02,
    }
    statement = utility_statement({"decision": decision, "reasons": ["why"], "evidence": evidence})
    assert statement.tone == tone
    assert "1.5 points lower than" in statement.sentences[0]
    assert "no interval can be given" in statement.sentences[0]
    assert len(utility_statement({"decision": decision, "reasons": [], "evidence": {}}).sentences) == 1
    assert release_statement({"decision": "refuse", "reasons": [], "evidence": {}}).tone == "bad"


def test_unknown_decision_is_refused() -> None:
    with pytest.raises(UserError, match=r"utility\.decision is 'perhaps'"):
        utility_statement({"decision": "perhaps", "reasons": [], "evidence": {}})


def test_redaction_withholds_ids_but_not_numbers() -> None:
    redact = Redaction(["7", "0012", "scan_3", "13118"])
    assert redact("7 pairs of images") == "7 pairs of images"
    assert redact("scan_33 is fine") == "scan_33 is fine"
    assert [redact(text) for text in ("patient 0012", "scan_3.png", "(13118)")] == [WITHHELD] * 3


def test_memorisation_is_claimed_only_where_the_range_lies_above_chance() -> None:
    figures = {"nearer_to_training_rate": 0.58, "rate_high": 1.0, "control_rate": 0.34, "baseline_rate": 0.5}
    assert memorisation_sentence(figures | {"rate_low": 0.02}).endswith("nor can it rule memory out.")
    assert memorisation_sentence(figures | {"rate_low": 0.51}).endswith("remembers its patients.")
    assert memorisation_sentence({"something_else": 1.0}) == ""


def test_a_shareable_configuration_names_no_folder_of_any_site_and_no_patient() -> None:
    source = {"kind": "npz", "path": "/home/smith/m.npz", "patients": {"test": "MRN77"}}
    site = {"kind": "dicom", "path": "/mnt/site-b", "labels": "/mnt/doe.csv"}
    data = {"source": source, "classes": ["a", "b"], "positive": ["b"], "external": {"source": site}}
    data["patient_register"] = "/home/smith/register.json"
    named = {"name": "t", "data": data, "quality": {"extractor": "/home/smith/net.pt"}}
    named["gan"] = {"start_from": "/home/smith/runs/public"}
    text = config_without_paths(validate_experiment(named, "t"))
    for word in ("smith", "site-b", "doe", "MRN77"):
        assert word not in text
    shown = yaml.safe_load(text)["data"]
    assert shown["source"]["patients"] == {"test": "(withheld)"}
    assert shown["external"]["source"]["labels"] == "(withheld)"


def test_the_audits_table_has_attacks_beside_their_controls() -> None:
    def row(metric: str, value: str, low: str = "", high: str = "", subgroup: str = PER_PATIENT) -> MetricRow:
        return MetricRow(
            stage="attack", arm="distance", subgroup=subgroup, metric=metric, value=value, ci_low=low, ci_high=high
        )

    rows = [
        row("membership_auroc", "0.61"), row("membership_auroc_control", "0.5", "0.4", "0.6"),
        row("membership_auroc_difference", "0.11", "0.02", "0.2"), row("membership_advantage", "0.3"),
        row("membership_advantage_control", "0.12"), row("membership_tpr_at_fpr_0.01", "0.05"),
        row("membership_tpr_at_fpr_0.001", ""), row("standing_out", "3"), row("planted_auroc", "0.99"),
        row("worst_patient", "4.2"), row("worst_patient_control", "2.9"),
    ]  # fmt: skip
    metrics = table_of(rows)
    numbers = {name: pd.to_numeric(metrics[name]) for name in ("value", "ci_low", "ci_high")}
    table = attacks_table(SimpleNamespace(metrics=metrics.assign(**numbers)))  # type: ignore[arg-type]
    assert table.rows == (
        (
            "distance", "patient", "0.610", "0.500 (0.400 to 0.600)", "0.110 (0.020 to 0.200)", "0.300 (0.120)",
            "0.050", "too few unseen", "4.200 (2.900)", "3", "0.990",
        ),
    )  # fmt: skip


def test_guesses_stand_beside_those_of_unseen_patients() -> None:
    row = MetricRow(stage="attack", arm="attribute", fold="0", gan_seed="0", label="sex", metric="guessed", value="0.7",
                    subgroup="per patient", n_patients="120")  # fmt: skip
    rows = [
        row,
        replace(row, metric="guessed_control", value="0.6"),
        replace(row, metric="guessed_base", value="0.55"),
        replace(row, metric="guessed_difference", value="0.1", ci_low="-0.05", ci_high="0.25"),
        replace(row, label="age", value="", detail="not given: 4 training and 9 unseen patients, 10 needed"),
    ]
    table = table_of(rows)
    shown = guesses_table(
        SimpleNamespace(
            metrics=table.assign(**{name: pd.to_numeric(table[name]) for name in ("value", "ci_low", "ci_high")})
        )
    )  # type: ignore[arg-type]
    assert shown.rows[0] == ("sex", "0.700", "0.600", "0.100 (-0.050 to 0.250)", "0.550", "120")
    assert shown.rows[1][:2] == ("age", "not given: 4 training and 9 unseen patients, 10 needed")


def test_the_glossary_has_only_what_the_page_names() -> None:
    terms = dict(terms_in('<p title="FID">Two <b>GANs</b> and their KID, at 2 points; p &lt; 0.05</p>'))
    assert {"GAN", "KID", "Point", "p-value, p"} <= set(terms)
    assert not {"FID", "Precision", "Holm", "Arm", "GAN seed"} & set(terms), "FID stands in no text, `and` is no arm"


def test_every_term_of_the_templates_that_readers_asked_for_is_explained() -> None:
    asked = ("FID", "KID", "Precision", "Recall", "Density", "Coverage", "Holm", "DeLong", "BCa", "McNemar", "AUROC")
    assert [term for term, _ in terms_in(" ".join(asked))] == sorted(asked, key=str.lower)


def test_arms_have_plain_names_and_keep_those_of_the_files() -> None:
    assert arm_title("real+classical+synthetic@0.5") == "Real + synthetic images, 0.5 : 1"
    assert named_arm("real+classical") == "real images (real+classical)"
    assert arm_title("my-arm") == named_arm("my-arm") == "my-arm"


def test_the_plan_says_how_many_patients_it_takes() -> None:
    evidence = {"margin": 0.02, "n_patients": 33, "patients_needed": {"fewest": 287, "most": 2864}}
    assert patients_needed_words(evidence).startswith("about 290 to 2,900 test patients to see a gain of 2.0 points")
    assert patients_needed_words({"margin": 0.02, "n_patients": 33}) == ""


def test_memorisation_is_told_in_words_and_whole_numbers() -> None:
    """An older run has fewer figures, and no figure is made up for it."""
    full = {
        "synthetic_images": 10000, "copies": 2.0, "near_copies": 0.0012, "near_copies_low": 0.0007,
        "near_copies_high": 0.0021, "near_copies_control": 0.0, "near_patients": 9.0, "near_patients_of": 120.0,
        "near_unseen": 1.0, "near_unseen_of": 110.0, "nearer_to_training_rate": 0.53, "rate_high": 0.56,
        "rate_low": 0.5, "baseline_rate": 0.5, "control_rate": 0.49, "distance_ratio": 0.98, "authenticity": 0.9,
        "authenticity_control": 0.91,
    }  # fmt: skip
    stages = [SimpleNamespace(title=name, record=SimpleNamespace(figures=figures)) for name, figures in
              (("new", full), ("old", {"control_rate": 0.49}))]  # fmt: skip
    rows = {row[0]: row[1:] for row in memorisation_table(SimpleNamespace(of_kind=lambda kind: stages)).rows}
    assert rows["Images looked at for near copies"] == ("10,000", "–")
    assert rows["Near copies (interval)"] == ("0.12 % (0.07 % to 0.21 %)", "–")
    assert rows["Training patients of whom there is a near copy"] == ("9 of 120", "–")
    assert rows["The same of real validation images"] == ("49 %", "49 %")
    assert not memorisation_table(SimpleNamespace(of_kind=lambda kind: [])).rows


def test_every_family_network_and_detector_has_a_plain_name_and_keeps_the_one_of_the_files() -> None:
    for names, title in ((FAMILIES, family_title), (DETECTORS, detector_title), (ARMS, arm_title)):
        assert all(title(name) for name in names)
    raw = [name for name in DETECTORS if detector_title(name) == name]
    assert raw == [] and [name for name in FAMILIES if family_title(name) == name] == ["pix2pix"]
    assert [name for name in CLASSIFIERS if network_title(name) == name] == []
    assert [name for name in ARMS if arm_title(name) == name] == []
    assert detector_named("discriminator-logit@run") == (
        "Discriminator's logit, through the run's GAN (discriminator-logit@run)"
    )
    assert detector_named("my-ensemble") == "my-ensemble"
    assert arm_title("effnet-features+svm") == "Linear SVM on EfficientNet features"
