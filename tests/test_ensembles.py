"""Ensembles of anomaly detectors: ranks among validation normals, fits paired, one more arm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from judged_run import experiment, judged_run
from scipy.stats import binom
from test_verdict_rule import AUGMENTED, REFERENCE, simulate

from pipeline.anomaly.detect import COLUMNS, detect_config
from pipeline.config.anomaly import AnomalyConfig, ensemble_arm
from pipeline.core.records import Record
from pipeline.data.batches.dataset import read_table
from pipeline.measures.conformal import alarm_threshold
from pipeline.verdict.detectors import SUPERVISED, detector_rows
from pipeline.verdict.ensembles import ensemble_warnings, with_ensembles
from pipeline.verdict.stage import run, verdict_config

PATIENTS = ("val-a", "val-b", "val-c", "val-d", "val-ill", "test-a", "test-b", "test-ill")


def fit_of(arm: str, scores: list[float], fold: str = "0", gan_seed: str = "", seed: str = "0") -> pd.DataFrame:
    """A fit on PATIENTS, of whom four are normal validation patients."""
    return pd.DataFrame(
        {
            "arm": arm, "fold": fold, "gan_seed": gan_seed, "seed": seed, "image_id": PATIENTS, "patient_id": PATIENTS,
            "split": [one.split("-")[0] for one in PATIENTS], "score": scores,
            "label": ["abnormal" if one.endswith("ill") else "normal" for one in PATIENTS],
        }
    )  # fmt: skip


def scores_of(table: pd.DataFrame, **which: str) -> dict[str, float]:
    for name, value in which.items():
        table = table[table[name] == value]
    assert len(table) == len(PATIENTS)
    return dict(zip(table["image_id"], table["score"], strict=True))


def test_the_mean_of_ranks_among_validation_normals_by_hand() -> None:
    table = pd.concat(
        [
            fit_of("one", [10, 20, 30, 40, 99, 25, 40, 41]),  # the ill one's 99 ranks nobody
            fit_of("two", [0.4, 0.3, 0.2, 0.1, 0.35, 0.0, 0.15, 9.0]),
        ]
    )
    found = with_ensembles(table, {"both": ["one", "two"]})
    assert scores_of(found, arm="ensemble both") == {
        "val-a": (0 + 3 / 4) / 2,
        "val-b": (1 / 4 + 2 / 4) / 2,
        "val-c": (2 / 4 + 1 / 4) / 2,
        "val-d": (3 / 4 + 0) / 2,
        "val-ill": (1 + 3 / 4) / 2,
        "test-a": (2 / 4 + 0) / 2,
        "test-b": (3 / 4 + 1 / 4) / 2,  # 40 is not below 40
        "test-ill": 1.0,
    }
    pd.testing.assert_frame_equal(found.iloc[: len(table)], table.reset_index(drop=True))  # members stay as they are


def test_labels_of_test_patients_and_their_company_change_no_rank() -> None:
    random = np.random.default_rng(0)
    table = pd.concat([fit_of(arm, list(random.normal(size=8))) for arm in ("one", "two")])
    other = table.assign(label=np.where(table["split"] == "test", "abnormal", table["label"]))
    other = other[other["image_id"] != "test-b"]
    first, second = (
        with_ensembles(one, {"both": ["one", "two"]}).query("arm == 'ensemble both'").set_index("image_id")["score"]
        for one in (table, other)
    )
    assert (first.drop("test-b") == second).all()


def test_fits_are_paired_in_the_order_of_seeds_within_a_fold() -> None:
    """`gan` has GAN seeds 2 and 10 (in that order, not the alphabet's), `plain` one fit that serves both."""
    rising, falling = list(range(8)), list(range(8, 0, -1))
    table = pd.concat(
        [
            fit_of("gan", falling, gan_seed="10"),
            fit_of("gan", rising, gan_seed="2"),
            fit_of("plain", rising),
            fit_of("gan", falling, fold="1", gan_seed="2"),
            fit_of("plain", falling, fold="1"),
        ]
    )
    found = with_ensembles(table, {"both": ["gan", "plain"]})
    made = found[found["arm"] == "ensemble both"]
    assert sorted(set(zip(made["fold"], made["gan_seed"], made["seed"], strict=True))) == [
        ("0", "", "0"), ("0", "", "1"), ("1", "", "0"),
    ]  # fmt: skip
    assert scores_of(made, fold="0", seed="0")["val-d"] == 3 / 4  # rising and rising
    assert scores_of(made, fold="0", seed="1")["val-d"] == 3 / 8  # falling and rising
    assert scores_of(made, fold="1")["val-d"] == 0


def test_an_ensemble_whose_member_has_no_scores_in_a_fold_is_left_out_and_said() -> None:
    table = pd.concat(
        [fit_of("one", list(range(8)), fold=fold) for fold in "01"]
        + [fit_of("two", list(range(8)), fold="0")]
        + [fit_of("three", list(range(8)), fold=fold) for fold in "01"]
    )
    ensembles = {"broken": ["one", "two"], "lost": ["one", "four"], "whole": ["one", "three"]}
    found = with_ensembles(table, ensembles)
    assert set(found["arm"]) == {"one", "two", "three", "ensemble whole"}
    assert ensemble_warnings(table, ensembles) == (
        "ensemble broken: left out; two gave no scores.",
        "ensemble lost: left out; four gave no scores.",
    )
    assert with_ensembles(pd.DataFrame(), ensembles).empty and not ensemble_warnings(pd.DataFrame(), ensembles)


def simulated(noise: list[np.ndarray], splits: list[str], ill: np.ndarray) -> pd.DataFrame:
    """Detectors `d0`, `d1`, ... whose scores are the given numbers, one a patient."""
    ids = [f"p{number}" for number in range(len(ill))]
    sides = np.where(ill, "abnormal", "normal")
    return pd.concat(
        pd.DataFrame(
            {"arm": f"d{number}", "fold": "0", "gan_seed": "", "seed": "0", "split": splits, "image_id": ids,
             "patient_id": ids, "label": sides, "score": scores}
        )
        for number, scores in enumerate(noise)
    )  # fmt: skip


def test_independent_detectors_are_better_together_and_compared_like_any_other() -> None:
    random = np.random.default_rng(1)
    ill = np.arange(400) % 2 == 1
    splits = ["val"] * 200 + ["test"] * 200
    noise = [random.normal(ill * 1.0, 1.0) * scale for scale in (1, 1000, 0.01)]
    table = with_ensembles(simulated(noise, splits, ill), {"three": ["d0", "d1", "d2"]})
    rows = detector_rows(table, ("d0", "d1", "d2", ensemble_arm("three")), 0.1, alpha=0.05, bootstrap=200, seed=0)
    auroc = {row.arm: float(row.value) for row in rows if row.metric == "auroc" and row.fold == ""}
    assert set(auroc) == {"d0", "d1", "d2", "ensemble three"} and SUPERVISED not in auroc
    # one detector: Phi(1 / sqrt 2) = 0.76; the sum of three would have Phi(sqrt 3 / sqrt 2) = 0.89
    assert max(auroc["d0"], auroc["d1"], auroc["d2"]) < 0.84 < auroc["ensemble three"]
    (difference,) = (row for row in rows if row.metric == "auroc_difference" and row.arm == "ensemble three")
    assert difference.detail.startswith("better than d0") and "over 3" in difference.detail


@pytest.mark.parametrize("correlated", [0.0, 0.7])
def test_false_alarms_of_an_ensemble_are_near_the_asked_share(correlated: float) -> None:
    """Of exchangeable normals at most the rate plus 1 / n, within what 2,000 draws of a new patient can show."""
    random = np.random.default_rng(2)
    normals, rate, draws = 59, 0.1, 2000
    alarms = 0
    for _ in range(draws // 20):
        shared = random.normal(size=normals + 20)
        noise = [correlated * shared + random.normal(size=normals + 20) for _ in range(3)]
        splits, ill = ["val"] * normals + ["test"] * 20, np.zeros(normals + 20, dtype=bool)
        table = with_ensembles(simulated(noise, splits, ill), {"all": ["d0", "d1", "d2"]})
        own = table[table["arm"] == "ensemble all"].set_index("image_id")
        val = own[own["split"] == "val"]
        cut = alarm_threshold(val["score"].to_numpy(), val.index.to_numpy(dtype=str), rate)
        alarms += int((own.loc[own["split"] == "test", "score"] >= cut).sum())
    # the 20 new patients of a draw share their threshold: a standard error about 1.2 times the binomial one
    assert alarms <= binom.ppf(0.9999, draws, rate + 1 / normals)
    assert alarms >= binom.ppf(0.0001, draws, rate / 2)


def test_the_verdict_writes_its_rows_and_says_which_is_left_out(tmp_path: Path) -> None:
    """Both detectors give the supervised score back; their ensemble's AUROC is then theirs, up to ranks of 1."""
    table = simulate({REFERENCE: 0.0, AUGMENTED: 0.0}, patients=40)
    ensembles = {"both": ("pca", "padim"), "broken": ("pca", "knn")}
    asked = AnomalyConfig(detectors=("pca", "padim", "knn"), ensembles=ensembles)
    config = experiment().model_copy(update={"anomaly": asked})
    stages = judged_run(tmp_path / "run", table, config) / "stages"
    reference = table[(table["arm"] == REFERENCE) & (table["seed"].astype(str) == "0")]
    for detector in ("pca", "padim"):
        normal = (reference["label"] == "normal").astype(int)
        scores = reference.assign(detector=detector, gan_seed="", normal=normal, p_value=1.0)
        place = stages / f"detect-{detector}"
        place.mkdir()
        scores.rename(columns={"score_disease": "anomaly_score"})[list(COLUMNS)].to_csv(
            place / "anomaly.csv", index=False
        )
        Record("detect", fold=0, variant=detector).save(place)
    out = tmp_path / "verdict"
    out.mkdir()
    record = run(verdict_config(config), {place.name: place for place in stages.iterdir()}, out)
    rows = read_table(out / "metrics.csv")
    means = rows[(rows["stage"] == "anomaly") & (rows["fold"] == "") & (rows["metric"] == "auroc")]
    auroc = means.set_index("arm")["value"].astype(float)
    assert set(auroc.index) == {"pca", "padim", "ensemble both", SUPERVISED}
    assert 0.6 < auroc["pca"] == auroc["padim"] and abs(auroc["ensemble both"] - auroc["pca"]) < 0.05
    compared = rows[(rows["metric"] == "auroc_difference") & (rows["stage"] == "anomaly")]
    assert set(compared["arm"]) == {"padim", "ensemble both"}
    assert "ensemble broken: left out; knn gave no scores." in record.notes


def test_members_are_named_among_the_detectors() -> None:
    asked = AnomalyConfig(detectors=("pca", "padim"), ensembles={"both": ("pca", "padim")})
    assert asked.ensembles == {"both": ("pca", "padim")}
    with pytest.raises(
        ValueError, match=r"ensembles\.both: pdaim is not among detectors: pca, padim; did you mean padim"
    ):
        AnomalyConfig(detectors=("pca", "padim"), ensembles={"both": ("pca", "pdaim")})
    with pytest.raises(ValueError, match="knn is not among detectors"):
        AnomalyConfig(detectors=("pca", "padim"), ensembles={"both": ("pca", "knn")})
    for members in (("pca",), ("pca", "pca")):
        with pytest.raises(ValueError, match="two detectors or more, each once"):
            AnomalyConfig(detectors=("pca", "padim"), ensembles={"both": members})


def test_an_ensemble_makes_no_detector_stale() -> None:
    """Detect stages do not know of it: their sections are the same with and without."""
    sections, verdicts = [], []
    for ensembles in ({}, {"both": ("pca", "padim")}):
        asked = AnomalyConfig(detectors=("pca", "padim"), ensembles=ensembles)
        made = experiment().model_copy(update={"anomaly": asked})
        sections.append(detect_config(made, "pca", 0, None))
        verdicts.append(verdict_config(made))
    assert sections[0] == sections[1] and verdicts[0] != verdicts[1]
