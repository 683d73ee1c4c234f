"""The rule of decision: controls, draws, patients as units, planned comparisons, and what the report says of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from flows.cli import launch
from pipeline.config.arms import ARMS, arm_facts
from pipeline.config.loading import load_experiment
from pipeline.core.errors import DataError
from pipeline.report.reading import Run
from pipeline.report.verdict_tables import comparisons_table, methods_sentence, rule_table, side_tests_table
from pipeline.verdict import VerdictPlan, decide
from pipeline.verdict.comparison import combine
from pipeline.verdict.fits import by_patient, draw_test_sets, figures_of_fits
from pipeline.verdict.stage import with_external

PLAN = VerdictPlan(positive=("disease",), bootstrap=300)
REFERENCE, AUGMENTED, POOL = "real+classical", "real+classical+synthetic@1", "pool-gan"
OVERSAMPLING, PSEUDO = "real+classical+oversampling", "real+classical+pseudolabels"
FADING, FIXMATCH = "real+classical+fadingpseudolabels", "real+classical+fixmatch"


def simulate(
    gains: dict[str, float],
    *,
    seed: int = 0,
    patients: int = 80,
    images: int = 2,
    seeds: int = 3,
    draws: int = 1,
    draw_sd: float = 0.0,
    fit_sd: float = 0.05,
) -> pd.DataFrame:
    """Binormal readers on the same test patients in every draw; `gains` adds to an arm's separation of 1."""
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), images)
    disease = owner % 2 == 0
    difficulty = random.normal(size=patients)[owner]
    tables = []
    for draw in range(draws):
        for arm, gain in gains.items():
            effect = gain + (draw_sd * random.normal() if gain is not None and arm != REFERENCE else 0.0)
            for number in range(seeds):
                separation = 1 + effect + fit_sd * random.normal()
                for split in ("val", "test"):
                    logit = difficulty + separation * disease + 0.3 * random.normal(size=len(owner))
                    score = 1 / (1 + np.exp(-logit))
                    names = [f"{split}-{place}" for place in range(len(owner))]
                    people = [f"{split}-{one}" for one in owner]
                    key = {"arm": arm, "fold": draw, "seed": number, "gan_seed": "", "split": split}
                    labels = {"label": np.where(disease, "disease", "normal")}
                    scores = {"score_disease": score, "score_normal": 1 - score}
                    tables.append(pd.DataFrame({"image_id": names, "patient_id": people, **key, **labels, **scores}))
    return pd.concat(tables, ignore_index=True)


def test_without_a_plan_the_disease_side_is_told_by_its_name() -> None:
    found = decide(simulate({REFERENCE: 0.0, AUGMENTED: 2.0}))
    assert found.decision == "helps" and found.evidence["plan"]["positive"] == ("disease",)


def test_a_gain_that_a_control_shows_too_is_no_help() -> None:
    """Oversampling, which needs no GAN, gains as much: the GAN cannot be said to help."""
    alone = decide(simulate({REFERENCE: 0.0, AUGMENTED: 1.5}), PLAN)
    beside = decide(simulate({REFERENCE: 0.0, AUGMENTED: 1.5, OVERSAMPLING: 1.5}), PLAN)
    weaker = decide(simulate({REFERENCE: 0.0, AUGMENTED: 2.5, OVERSAMPLING: 0.3}), PLAN)
    assert alone.decision == "helps" and weaker.decision == "helps"
    assert beside.decision in ("no_benefit", "inconclusive")
    assert any(OVERSAMPLING in reason and "needs no GAN" in reason for reason in beside.reasons)


def test_a_required_control_that_is_missing_is_named() -> None:
    missing = decide(simulate({REFERENCE: 0.0, POOL: 2.0}), PLAN)
    assert missing.decision == "inconclusive" and PSEUDO in " ".join(missing.reasons)
    known = {REFERENCE: 0.0, POOL: 2.0, PSEUDO: 0.3, FADING: 0.3, FIXMATCH: 0.3}
    for control in (FADING, FIXMATCH):
        one = decide(simulate({arm: gain for arm, gain in known.items() if arm != control}), PLAN)
        assert one.decision == "inconclusive" and control in " ".join(one.reasons)
    assert decide(simulate(known), PLAN).decision == "helps"


@pytest.mark.parametrize("others", [{AUGMENTED: 0.0}, {}])
def test_pseudo_labels_that_beat_the_pool_gan_are_recommended(others: dict[str, float]) -> None:
    """Whether the pool GAN is the primary arm or not."""
    found = decide(simulate({REFERENCE: 0.0, **others, POOL: 0.8, PSEUDO: 2.5}), PLAN)
    advice = [reason for reason in found.reasons if reason.startswith("Use your archive, not the GAN")]
    assert len(advice) == 1 and f"{PSEUDO} beats {POOL} (-" in advice[0]


def test_a_control_without_an_archive_that_beats_the_arm_is_recommended_too() -> None:
    found = decide(simulate({REFERENCE: 0.0, AUGMENTED: 0.0, OVERSAMPLING: 2.0}), PLAN)
    assert any(reason.startswith(f"The GAN is not needed: {OVERSAMPLING} beats") for reason in found.reasons)
    equal = decide(simulate({REFERENCE: 0.0, AUGMENTED: 0.8, OVERSAMPLING: 0.8}), PLAN)
    assert not any("not needed" in reason for reason in equal.reasons)


CANDIDATES = [name + "@1" * facts.ratio for name, facts in ARMS.items() if facts.candidate]


@pytest.mark.parametrize("arm", CANDIDATES)
def test_an_arm_that_does_not_beat_the_pretrained_network_is_no_help(arm: str) -> None:
    facts = arm_facts(arm)
    assert facts is not None
    weak = dict.fromkeys(facts.controls, 0.0)
    assert decide(simulate(weak | {arm: 1.0}), PLAN).decision == "helps"
    found = decide(simulate(weak | {arm: 1.0, "pretrained+classical": 2.5}), PLAN)
    assert found.decision != "helps"
    assert any(reason.startswith("The GAN is not needed: pretrained+classical beats") for reason in found.reasons)


def test_draws_of_the_training_set_are_paired_and_their_scatter_counts() -> None:
    """Five labelled draws on the same patients whose effects are +0.8 or -0.8 are no proof of a gain."""
    steady = decide(simulate({REFERENCE: 0.0, AUGMENTED: 0.6}, draws=5, draw_sd=0.0, patients=200), PLAN)
    unsteady = decide(simulate({REFERENCE: 0.0, AUGMENTED: 0.6}, draws=5, draw_sd=0.8, patients=200), PLAN)
    assert steady.decision == "helps" and steady.evidence["paired_on_draws"]
    assert unsteady.decision == "inconclusive"
    assert "labelled draws" in steady.reasons[0] and steady.evidence["tests"] == {"sign_flip_p": pytest.approx(2 / 32)}


def test_the_error_over_draws_is_that_of_their_differences() -> None:
    table = simulate({REFERENCE: 0.0, AUGMENTED: 0.5}, draws=4, draw_sd=0.5, patients=400)
    tests = draw_test_sets(table.astype({"fold": str}), 300, 0)
    fits = figures_of_fits(table.astype({"fold": str, "seed": str}), ("disease",), tests, ("auroc",))
    arm, reference = ([fit for fit in fits if fit.arm == name] for name in (AUGMENTED, REFERENCE))
    found = combine([(1.0, arm), (-1.0, reference)], "auroc", tests)
    by_draw = np.array(list(found.by_fold.values()))
    assert found.paired and found.estimate is not None
    patients = found.estimate.error**2 - by_draw.var(ddof=1) / 4
    rows = np.mean([fit.values["auroc"] for fit in arm], axis=0) - np.mean(
        [f.values["auroc"] for f in reference], axis=0
    )
    assert patients == pytest.approx(rows[1:301].var(ddof=1), rel=1e-6)


def test_one_patient_counts_once_where_the_plan_says_so() -> None:
    table = simulate({REFERENCE: 0.0, AUGMENTED: 1.0}, images=3)
    found = by_patient(table, ("disease",))
    one = found[(found["arm"] == REFERENCE) & (found["seed"] == 0) & (found["image_id"] == "patient test-0")]
    mine = table[(table["arm"] == REFERENCE) & (table["seed"] == 0) & (table["patient_id"] == "test-0")]
    assert one["score_disease"].item() == pytest.approx(mine["score_disease"].mean())
    verdict = decide(table, replace(PLAN, unit="patient"))
    assert verdict.evidence["n_images"] == verdict.evidence["n_patients"] == 80


def test_planned_comparisons_share_alpha() -> None:
    """Holm: of three planned p-values the smallest counts three times."""
    gains = {REFERENCE: 0.0, AUGMENTED: 0.5, "real+classical+synthetic@2": 0.5, OVERSAMPLING: 0.0}
    pairs = (("real+classical+synthetic@2", REFERENCE), (OVERSAMPLING, REFERENCE))
    found = decide(simulate(gains), replace(PLAN, arm=AUGMENTED, comparisons=pairs)).evidence["comparisons"]
    planned = [one for one in found if one["p_holm"] is not None]
    assert len(planned) == 3
    smallest = min(planned, key=lambda one: one["p"])
    assert smallest["p_holm"] == pytest.approx(min(1.0, 3 * smallest["p"]))


def test_equivalence_is_a_90_percent_interval_inside_the_margin() -> None:
    found = decide(simulate({REFERENCE: 0.0, AUGMENTED: 0.0}, patients=1200, seeds=6, fit_sd=0.01), PLAN)
    assert found.decision == "no_benefit" and found.evidence["equivalent"]


def test_a_plan_that_names_an_absent_arm_or_class_is_refused() -> None:
    table = simulate({REFERENCE: 0.0, AUGMENTED: 0.0})
    with pytest.raises(DataError, match="real\\+classical\\+synthetic@9"):
        decide(table, replace(PLAN, arm="real+classical+synthetic@9"))
    with pytest.raises(DataError, match="score_tumour"):
        decide(table, replace(PLAN, positive=("tumour",)))
    with pytest.raises(DataError, match="split is test"):
        decide(table[table["split"] == "val"], PLAN)


def test_the_command_judges_anyones_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.csv"
    simulate({REFERENCE: 0.0, AUGMENTED: 2.0}).to_csv(path, index=False)
    assert launch(["verdict", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["decision"] == "helps"
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        "name: mine\ndata:\n  source: {kind: phantom}\n  classes: [normal, disease]\n  positive: [disease]\n"
        "verdict: {endpoint: sensitivity, bootstrap: 200}\n",
        encoding="utf-8",
    )
    assert launch(["verdict", str(path), "--plan", str(plan)]) == 0
    assert json.loads(capsys.readouterr().out)["evidence"]["endpoint"] == "sensitivity"
    assert launch(["verdict", str(tmp_path / "none.csv")]) == 2
    (tmp_path / "empty.csv").write_bytes(b"")
    assert launch(["verdict", str(tmp_path / "empty.csv")]) == 2


def _run(table: pd.DataFrame) -> Run:
    root = Path(__file__).parents[1]
    verdict = {"utility": decide(table, PLAN).as_json()}
    found: Any = SimpleNamespace(verdict=verdict, experiment=load_experiment(root / "configs" / "demo.yaml"))
    return cast(Run, found)


def test_the_report_tells_rule_comparisons_and_methods() -> None:
    run = _run(simulate({REFERENCE: 0.0, AUGMENTED: 2.0, OVERSAMPLING: 0.2}))
    rule, compared, tests = rule_table(run), comparisons_table(run), side_tests_table(run)
    assert rule is not None and compared is not None and tests is not None
    assert ("Margin: a gain below it does not matter", "2.0 points") in rule.rows
    assert [row[:3] for row in compared.rows] == [
        ("Real + synthetic images, 1 : 1", "Real images", "primary"),
        ("Real + synthetic images, 1 : 1", "Real images, duplicated", "not planned"),
    ]
    text = methods_sentence(run)
    assert (
        "80 test patients (160 images)" in text
        and "SNGAN" in text
        and "(real+classical+synthetic@1) and real images (real+classical)" in text
        and "Holm" in text
    )


def test_the_external_site_is_told_and_does_not_decide() -> None:
    """At home the arm gains, elsewhere it loses: the decision is the home's, and the reader is told."""
    home, away = simulate({REFERENCE: 0.0, AUGMENTED: 2.0}), simulate({REFERENCE: 1.5, AUGMENTED: 0.0}, seed=1)
    away = away[away["split"] == "test"].assign(split="external", image_id=lambda rows: "away-" + rows["image_id"])
    table = pd.concat([home, away.assign(patient_id=away["image_id"])], ignore_index=True)
    found = with_external(decide(table, PLAN), table, PLAN)
    assert found.decision == "helps" and "At the external site" in found.reasons[-1]
    assert found.evidence["external"]["difference"] < 0 < found.evidence["difference"]
    alone = decide(home, PLAN)
    assert with_external(alone, home, PLAN) == alone
