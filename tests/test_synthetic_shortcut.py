"""The guard: a classifier that takes being synthetic for a sign of the disease is named, one that is surer is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from pipeline.core.guard import FROM_IMAGE, FROM_SCORE, GAP, STAGE, WARNING
from pipeline.core.metrics import MetricRow, table_of
from pipeline.report.subgroup_tables import guard_table
from pipeline.verdict.decide import VerdictPlan
from pipeline.verdict.synthetic_shortcut import guard_rows

PLAN = VerdictPlan(positive=("ill",), bootstrap=200)
REAL, MIXED = "real+classical", "real+classical+synthetic@1"
TOLD = [MetricRow(stage=STAGE, metric=FROM_IMAGE, value="0.97", detail="within a class; chance 0.50, p = 0.002")]
Score = Callable[[str, str, bool, np.random.Generator], float]


def predictions(mixed: Score, plain: Score, sites: tuple[str, ...] = ("A", "B"), each: int = 40) -> pd.DataFrame:
    """Two fits of an arm with synthetic images and, for the reverse check, one of the reference without."""
    random, rows = np.random.default_rng(0), []
    for arm, gan_seed, score, seeds in ((REAL, "", plain, 1), (MIXED, "0", mixed, 2)):
        for seed in range(seeds):
            for site in sites:
                for label in ("well", "ill"):
                    for split in ("test", "synthetic"):
                        for number in range(each):
                            own = split == "synthetic"
                            name = f"{split}-{site}-{label}-{number}"
                            ill = float(np.clip(score(site, label, own, random), 0, 1))
                            rows.append({
                                "arm": arm, "fold": "0", "seed": str(seed), "gan_seed": "0" if own else gan_seed,
                                "split": split, "image_id": name, "patient_id": "" if own else name, "label": label,
                                "score_well": 1 - ill, "score_ill": ill, "site": site, "cell": "",
                            })  # fmt: skip
    return pd.DataFrame(rows)


def honest(site: str, label: str, synthetic: bool, random: np.random.Generator) -> float:
    return 0.5 + (0.2 if label == "ill" else -0.2) + random.normal(0, 0.1)


def surer(site: str, label: str, synthetic: bool, random: np.random.Generator) -> float:
    """As one that was trained on the synthetic images: they are farther from a half, on either side."""
    return honest(site, label, synthetic, random) + synthetic * (0.2 if label == "ill" else -0.2)


def fooled(site: str, label: str, synthetic: bool, random: np.random.Generator) -> float:
    """Synthetic images filled the ill of A and the well of B."""
    return honest(site, label, synthetic, random) + synthetic * (0.25 if site == "A" else -0.25)


def warned(rows: list[MetricRow]) -> list[str]:
    return [row.detail for row in rows if row.metric == WARNING]


def test_a_classifier_that_reads_synthetic_as_the_disease_is_named_at_each_site_with_its_gap() -> None:
    rows = guard_rows(predictions(fooled, honest), TOLD, PLAN)
    gaps = {(row.arm, row.subgroup, row.label): row for row in rows if row.metric == GAP}
    assert float(gaps[MIXED, "site = A", ""].value) == pytest.approx(0.25, abs=0.04)
    assert float(gaps[MIXED, "site = B", "ill"].value) == pytest.approx(-0.25, abs=0.04)
    for row in gaps.values():
        assert float(row.ci_low) < float(row.value) < float(row.ci_high)
    assert float(gaps[MIXED, "site = B", ""].ci_high) < 0
    assert abs(float(gaps[REAL, "site = A", ""].value)) < 0.06
    first, second = warned(rows)
    assert first.startswith(f"Synthetic shortcut: {MIXED} scores synthetic images of A 0.2") and "higher" in first
    assert "a sign of the disease there" in first and "of B" in second and "a sign of health there" in second
    assert warned(guard_rows(predictions(fooled, honest), [], PLAN)) == []  # nobody showed that images differ
    text = table_of(rows)
    table = guard_table(text.assign(**{key: pd.to_numeric(text[key]) for key in ("value", "ci_low", "ci_high")}))
    assert table is not None and ("A", "mean of the classes") in {line[1:3] for line in table.rows}


@pytest.mark.parametrize("score", [honest, surer])
def test_one_that_is_only_surer_of_what_it_was_trained_on_is_not(score: Score) -> None:
    rows = guard_rows(predictions(score, honest), TOLD, PLAN)
    assert warned(rows) == []
    auroc = [float(row.value) for row in rows if row.metric == FROM_SCORE and row.arm == MIXED]
    assert all(0.4 < value < 0.6 for value in auroc)


def test_images_that_look_sicker_to_everybody_are_no_shortcut_of_the_arm() -> None:
    """The reference, which never saw a synthetic image, has the same gap."""
    rows = guard_rows(predictions(fooled, fooled), TOLD, PLAN)
    assert warned(rows) == []


def test_gaps_and_auroc_of_a_worked_example_without_sites() -> None:
    """Well: real 0.1 and 0.3, synthetic 0.2 and 0.6. Ill: real 0.5 and 0.7, synthetic 0.6 and 0.9."""
    scores = {("well", "test"): (0.1, 0.3), ("well", "synthetic"): (0.2, 0.6),
              ("ill", "test"): (0.5, 0.7), ("ill", "synthetic"): (0.6, 0.9)}  # fmt: skip
    rows = [
        {"arm": MIXED, "fold": "0", "seed": "0", "gan_seed": "0", "split": split, "image_id": f"{split}{label}{number}",
         "patient_id": f"{split}{label}{number}" if split == "test" else "", "label": label, "score_well": 1 - one,
         "score_ill": one}
        for (label, split), both in scores.items() for number, one in enumerate(both)
    ]  # fmt: skip
    found = {(row.metric, row.label): row for row in guard_rows(pd.DataFrame(rows), TOLD, PLAN)}
    assert float(found[GAP, "well"].value) == pytest.approx(0.2) and float(found[GAP, "ill"].value) == pytest.approx(
        0.15
    )
    assert float(found[GAP, ""].value) == pytest.approx(0.175)
    assert float(found[FROM_SCORE, ""].value) == pytest.approx(6 / 8)  # of two classes' four pairs each, three are won
    assert found[GAP, ""].ci_low == ""  # fewer than ten patients
