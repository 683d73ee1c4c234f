"""Fixed representations beside the classifier from scratch: the comparison, the report, a whole run and a curve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from judged_run import experiment, judged_run
from sklearn.metrics import roc_auc_score
from tiny_run import TINY

from flows.cli import launch
from flows.curve import _write_representations
from pipeline.config.loading import validate_experiment
from pipeline.core.layout import CURVE_REPRESENTATIONS
from pipeline.core.metrics import MetricRow, read_metrics
from pipeline.core.records import load_record
from pipeline.report.reading import read_run
from pipeline.report.representation_tables import representation_answer, representations_table
from pipeline.verdict.decide import VerdictPlan, decide
from pipeline.verdict.representations import representation_rows, representation_table, size_representations

REFERENCE, GAN_ARM = "real+classical", "real+classical+synthetic@1"
GOOD, BAD, SAME = "effnet-features+svm", "vae-features+logistic", "discriminator-features+logistic"
PLAN = VerdictPlan(positive=("disease",), bootstrap=300)


def predictions(gains: dict[str, float], patients: int = 120, draws: int = 1, images: int = 1) -> pd.DataFrame:
    """Binormal readers of the same patients; `gains` adds to an arm's separation of 1."""
    random = np.random.default_rng(0)
    owner = np.repeat(np.arange(patients), images)
    disease = owner % 2 == 0
    difficulty = random.normal(size=patients)[owner]
    tables = []
    for draw in range(draws):
        for arm, gain in gains.items():
            for seed in range(3):
                for split in ("val", "test"):
                    score = difficulty + (1 + gain) * disease + 0.3 * random.normal(size=len(owner))
                    key = {"arm": arm, "fold": str(draw), "seed": str(seed), "split": split}
                    tables.append(
                        pd.DataFrame(
                            {
                                **key, "gan_seed": "0" if arm in (SAME, GAN_ARM) else "",
                                "image_id": [f"{split}-{place}" for place in range(len(owner))],
                                "patient_id": [f"{split}-{one}" for one in owner],
                                "label": np.where(disease, "disease", "normal"),
                                "score_disease": score, "score_normal": -score,
                            }
                        )
                    )  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def auroc(table: pd.DataFrame, arm: str) -> float:
    own = table[(table["arm"] == arm) & (table["split"] == "test")]
    return float(
        np.mean(
            [roc_auc_score(fit["label"] == "disease", fit["score_disease"]) for _, fit in own.groupby(["fold", "seed"])]
        )
    )


def by_arm(rows: list[MetricRow]) -> dict[str, MetricRow]:
    assert {(row.stage, row.split, row.label, row.metric) for row in rows} == {
        ("downstream", "test", "disease", "auroc_difference")
    }
    return {row.arm: row for row in rows}


def test_each_representation_is_compared_with_the_classifier_from_scratch() -> None:
    table = predictions({REFERENCE: 0.0, GOOD: 1.5, BAD: -0.9, SAME: 0.0, GAN_ARM: 0.0})
    rows = by_arm(representation_rows(table, PLAN, "disease"))
    assert set(rows) == {GOOD, BAD, SAME}
    for arm, row in rows.items():
        assert float(row.value) == pytest.approx(auroc(table, arm) - auroc(table, REFERENCE), abs=1e-6)
        assert float(row.ci_low) < float(row.value) < float(row.ci_high) and row.n_patients == "120"
    assert rows[GOOD].detail.startswith(f"better than {REFERENCE} (p = ") and rows[GOOD].detail.endswith("over 3)")
    assert rows[BAD].detail.startswith("worse than")
    assert rows[SAME].detail.startswith(("not told apart from", "not better than"))


def test_they_are_a_family_of_their_own_and_change_nothing_of_the_gans_verdict() -> None:
    gains = {REFERENCE: 0.0, GAN_ARM: 0.6}
    alone = decide(predictions(gains), PLAN).as_json()
    table = predictions(gains | {GOOD: 1.5, BAD: -0.9})
    beside = decide(table, PLAN).as_json()
    assert alone["decision"] == beside["decision"] and beside["reasons"] == alone["reasons"]
    assert beside["evidence"]["p_holm"] == alone["evidence"]["p_holm"]
    assert [one["arm"] for one in beside["evidence"]["comparisons"]] == [GAN_ARM]
    assert representation_rows(predictions(gains), PLAN, "disease") == []
    # nobody adds synthetic images: the verdict compares nothing, the representations are compared all the same
    only = predictions({REFERENCE: 0.0, GOOD: 1.5})
    assert decide(only, PLAN).decision == "inconclusive" and len(representation_rows(only, PLAN, "disease")) == 1


def test_a_patients_images_count_once_where_patients_are_the_unit() -> None:
    table = predictions({REFERENCE: 0.0, GOOD: 1.5}, images=2)
    plan = VerdictPlan(positive=("disease",), bootstrap=200, unit="patient")
    means = table.groupby(["arm", "fold", "seed", "split", "patient_id", "label"], as_index=False)["score_disease"]
    expected = auroc(means.mean(), GOOD) - auroc(means.mean(), REFERENCE)
    (row,) = representation_rows(table, plan, "disease")
    assert float(row.value) == pytest.approx(expected, abs=1e-6) and row.n_patients == "120"


def test_one_fit_an_arm_has_no_interval_and_says_so() -> None:
    table = predictions({REFERENCE: 0.0, GOOD: 1.5})
    (row,) = representation_rows(table[table["seed"] == "0"], PLAN, "disease")
    assert (row.ci_low, row.ci_high) == ("", "") and "their scatter is unknown" in row.detail


def test_sizes_and_arms_share_alpha_by_holms_rule() -> None:
    rows = [
        {"size": size, "arm": arm, "p": p, "decision": decision}
        for size, arm, p, decision in (
            (50, GOOD, 0.001, "helps"), (10, GOOD, 0.02, "helps"), (10, BAD, 0.02, "harms"),
            (50, BAD, None, "no_benefit"),
        )
    ]  # fmt: skip
    found = representation_table(rows, 0.05)
    assert found["size"].tolist() == [10, 10, 50, 50]
    # by hand: 4 x 0.001, then 3 x 0.02 twice, then 1
    assert found["p_holm"].tolist() == pytest.approx([0.06, 0.06, 0.004, 1.0])
    assert found["decision"].tolist() == ["inconclusive", "inconclusive", "helps", "no_benefit"]
    assert representation_answer(found) == [
        "With 10 labelled images a class, beside a classifier from scratch: none is told apart from it.",
        f"With 50 labelled images a class, beside a classifier from scratch: better are linear SVM on "
        f"EfficientNet features ({GOOD}).",
    ]


def test_a_curve_without_representations_leaves_no_table_of_an_earlier_one(tmp_path: Path) -> None:
    row = {"size": 10, "arm": GOOD, "p": 0.5, "decision": "inconclusive"}
    _write_representations(tmp_path, [row], 0.05)
    assert pd.read_csv(tmp_path / CURVE_REPRESENTATIONS)["arm"].tolist() == [GOOD]
    _write_representations(tmp_path, [], 0.05)
    assert not (tmp_path / CURVE_REPRESENTATIONS).exists()


def test_a_size_has_the_means_of_both_arms_over_its_draws() -> None:
    table = predictions({REFERENCE: 0.0, GOOD: 1.5, GAN_ARM: 0.0}, draws=3)
    (row,) = size_representations(table, PLAN, 10)
    assert (row["size"], row["draws"], row["n_patients"], row["arm"]) == (10, 3, 120, GOOD)
    assert row["reference_mean"] == pytest.approx(auroc(table, REFERENCE), abs=1e-6)
    assert row["arm_mean"] == pytest.approx(auroc(table, GOOD), abs=1e-6)
    assert row["difference"] == pytest.approx(row["arm_mean"] - row["reference_mean"], abs=1e-9)
    assert row["decision"] == "helps"


def test_the_report_has_them_in_a_table_of_their_own(tmp_path: Path) -> None:
    table = predictions({REFERENCE: 0.0, GOOD: 1.5, SAME: 0.0})
    arms = [REFERENCE, GOOD, SAME]
    settings = validate_experiment(experiment().model_dump(mode="json") | {"arms": arms}, "t")
    run = read_run(judged_run(tmp_path / "run", table, settings, fate=["used"] * 240))
    shown = representations_table(run)
    assert shown is not None and [row[0].split("\n")[0] for row in shown.rows] == [
        "Real images",
        "Linear SVM on EfficientNet features",
        "Logistic regression on the discriminator's features",
    ]
    assert shown.rows[1][0].endswith(
        f"by a linear support vector machine on the features of EfficientNet-Lite0, trained on photographs ({GOOD})"
    )
    assert shown.rows[1][1].startswith(f"{auroc(table, GOOD):.3f} (") and shown.rows[0][2] == "–"
    assert shown.rows[1][2].startswith("+") and shown.rows[1][3].startswith("better than real+classical")
    plain = judged_run(
        tmp_path / "plain", predictions({REFERENCE: 0.0, GAN_ARM: 0.0}), experiment(), fate=["used"] * 240
    )
    assert representations_table(read_run(plain)) is None


@pytest.fixture
def study(ready_children: None, tmp_path: Path) -> Path:
    config = tmp_path / "tiny.yaml"
    config.write_text(
        "data:\n  source: {kind: phantom, cysts: 40, metastases: 40, haemangiomas: 40}\n"
        "  classes: [cyst, metastasis, haemangioma]\n  positive: [metastasis]\n"
        "  train_per_class: 8\n  surplus: unlabelled\n"
        "representation: {of: [vae, discriminator], models: [logistic]}\n"
        "arms: [real+classical, real+classical+synthetic@1]\n"
    )
    return config


ASKED = ["vae-features+logistic", "discriminator-features+logistic"]


def command(name: str, config: Path, out: Path, *words: str) -> int:
    settings = [token for change in [*TINY, "anomaly.detectors=[]"] for token in ("--set", change)]
    return launch([name, str(config), "--out", str(out), "--engine", "direct", *settings, *words])


@pytest.mark.slow
def test_a_whole_run_compares_two_representations(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "tiny"
    assert command("run", study, out) == 0
    said = pd.read_csv(out / "predictions.csv", dtype=str, keep_default_na=False)
    own = said[said["arm"].isin(ASKED)]
    assert own.groupby(["arm", "gan_seed"])["seed"].nunique().to_dict() == {
        (ASKED[0], ""): 2, (ASKED[1], "0"): 2
    }  # fmt: skip
    rows = [row for row in read_metrics(out) if row.metric == "auroc_difference"]
    assert [row.arm for row in rows] == ASKED
    facts = load_record(out / "stages" / "downstream-fold-0").figures["fits"][f"{ASKED[0]} seed 1"]
    splits = pd.read_csv(out / "stages" / "split" / "splits.csv")["split"].value_counts()
    assert (facts["labelled"], facts["unlabelled"]) == (splits["train"], splits["unlabelled"]) and splits["train"] == 24
    page = (out / "report.html").read_text()
    assert "Is a classifier from scratch needed?" in page and "by logistic regression on the latent means" in page


def test_one_command_compares_them_at_two_numbers_of_labels(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs" / "curve"
    assert command("curve", study, out, "--sizes", "4", "8", "--draws", "1", "--set", "classifier.seeds=1") == 0
    found = pd.read_csv(out / "representations.csv")
    assert sorted(zip(found["size"], found["arm"], strict=True)) == sorted((n, arm) for n in (4, 8) for arm in ASKED)
    assert (found["draws"] == 1).all() and found["reference"].unique().tolist() == [REFERENCE]
    assert found["difference"].tolist() == pytest.approx((found["arm_mean"] - found["reference_mean"]).tolist())
    shown = capsys.readouterr().out
    assert "With 4 labelled images a class, beside a classifier from scratch: " in shown
    page = (out / "curve.html").read_text()
    assert "Is a classifier from scratch needed?" in page and page.count('src="data:image/png') == 2
    assert (out / "figures" / "representations.png").is_file()
