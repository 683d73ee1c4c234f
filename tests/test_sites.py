"""Across sites: cells, strata and the worst cell by hand, and a site that is a shortcut told in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from test_probe import planted, scores

from pipeline.config.loading import validate_experiment
from pipeline.core.errors import ConfigError, DataError, LeakageError
from pipeline.core.metrics import MetricRow, table_of
from pipeline.data.cohort.cells import cell_counts, cells_of, require_sites
from pipeline.measures.association import told_from
from pipeline.report.subgroup_tables import sites_table
from pipeline.verdict.decide import VerdictPlan, decide
from pipeline.verdict.fits import draw_test_sets, figures_of_fits
from pipeline.verdict.probe import probe_warnings
from pipeline.verdict.sites import shortcut_rows, site_rows
from pipeline.verdict.strata import in_stratum, judged_images, sides_judged

REFERENCE, ARM = "real+classical", "real+classical+synthetic@1"
PLAN = VerdictPlan(positive=("ill",), bootstrap=300, threshold="youden", arm=ARM)


def predictions(hears: dict[str, float], *, common: int = 95, rare: int = 20, seeds: int = 4) -> pd.DataFrame:
    """Binormal readers of two sites: in A most are ill, in B most are well; `hears` is how far each arm goes by A."""
    random = np.random.default_rng(3)
    counts = {("A", "ill"): common, ("A", "well"): rare, ("B", "ill"): rare, ("B", "well"): common}
    cells = [cell for cell, count in counts.items() for _ in range(count)]
    site, label = (np.array(column) for column in zip(*cells, strict=True))
    kind = np.where((site == "A") == (label == "ill"), "common", "rare")
    parts = []
    for split in ("val", "test"):
        base = random.normal(size=len(cells))
        for arm, heard in hears.items():
            for seed in range(seeds):
                score = base + 1.5 * (label == "ill") + heard * (site == "A") + 0.2 * random.normal(size=len(cells))
                facts = {"arm": arm, "fold": "0", "seed": str(seed), "gan_seed": "0" if arm == ARM else ""}
                ids = [f"{split}-{number}" for number in range(len(cells))]
                table = pd.DataFrame(facts | {"split": split, "image_id": ids, "patient_id": ids, "label": label})
                parts.append(table.assign(score_ill=score, score_well=-score, site=site, cell=kind))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return predictions({REFERENCE: 2.0, ARM: 0.0})


def mean_auroc(table: pd.DataFrame, arm: str, weigh: bool, **where: str) -> float:
    """By scikit-learn, fit by fit; with `weigh` an image counts one over the images of its cell."""
    test = table[(table["split"] == "test") & (table["arm"] == arm)]
    for name, value in where.items():
        test = test[test[name] == value]
    values = []
    for _, fit in test.groupby("seed"):
        size = fit.groupby(["site", "label"])["image_id"].transform("size")
        weight = 1 / size if weigh else np.ones(len(fit))
        values.append(roc_auc_score(fit["label"] == "ill", fit["score_ill"], sample_weight=weight))
    return float(np.mean(values))


def value_of(rows: list[MetricRow], arm: str, subgroup: str, metric: str) -> MetricRow:
    (row,) = [row for row in rows if (row.arm, row.subgroup, row.metric) == (arm, subgroup, metric)]
    return row


def test_strata_are_those_of_scikit_learn_with_a_weight_for_each_cell(table: pd.DataFrame) -> None:
    rows = site_rows(table, PLAN)
    assert {row.stage for row in rows} == {"sites"}
    for arm in (REFERENCE, ARM):
        for subgroup, expected in {
            "site = A": mean_auroc(table, arm, False, site="A"),
            "site = B": mean_auroc(table, arm, False, site="B"),
            "cells = balanced": mean_auroc(table, arm, True),
            "cells = reversed": mean_auroc(table, arm, True, cell="rare"),
        }.items():
            row = value_of(rows, arm, subgroup, "auroc")
            assert float(row.value) == pytest.approx(expected, abs=1e-5)
            assert float(row.ci_low) < expected < float(row.ci_high)
    gap = value_of(rows, ARM, "cells = reversed", "auroc_difference")
    assert float(gap.ci_low) > 0, "the reference goes by the site, which the reversed cells contradict"


def test_the_worst_cell_is_the_lowest_share_of_right_calls_fit_by_fit(table: pd.DataFrame) -> None:
    values = []
    for _, fit in table[table["arm"] == REFERENCE].groupby("seed"):
        val, test = (fit[fit["split"] == split] for split in ("val", "test"))
        order = np.sort(val["score_ill"])
        cuts, ill = (order[1:] + order[:-1]) / 2, val["label"] == "ill"
        gains = [(val["score_ill"] >= cut)[ill].mean() + (val["score_ill"] < cut)[~ill].mean() for cut in cuts]
        right = (test["score_ill"] >= cuts[int(np.argmax(gains))]) == (test["label"] == "ill")
        values.append(right.groupby([test["site"], test["label"]]).mean().min())
    row = value_of(site_rows(table, PLAN), REFERENCE, "cells = worst", "worst_cell")
    assert float(row.value) == pytest.approx(np.mean(values), abs=1e-5)
    assert float(row.ci_low) < np.mean(values) < float(row.ci_high)


@pytest.mark.parametrize(("stratum", "decision"), [("", "harms"), ("site=A", "inconclusive"), ("balanced", "helps"),
                                                   ("reversed", "helps")])  # fmt: skip
def test_the_verdict_takes_a_stratum_that_the_plan_names(table: pd.DataFrame, stratum: str, decision: str) -> None:
    """The reference reads the site: better on images as they are, equal within a site, worse where cells are equal."""
    verdict = decide(table, replace(PLAN, stratum=stratum))
    assert verdict.evidence["comparisons"][0]["decision"] == decision
    assert verdict.evidence["plan"]["stratum"] == stratum
    side = {"": (None, True), "site=A": ("A", False), "balanced": (None, True), "reversed": (None, True)}[stratum]
    wanted = {"cell": "rare"} if stratum == "reversed" else {"site": side[0]} if side[0] else {}
    weigh = side[1] and stratum != ""
    gain = mean_auroc(table, ARM, weigh, **wanted) - mean_auroc(table, REFERENCE, weigh, **wanted)
    assert verdict.evidence["difference"] == pytest.approx(gain, abs=1e-5)
    assert ("Judged on test images" in verdict.reasons[1]) == bool(stratum)
    assert ("tests" in verdict.evidence) == (stratum in ("", "site=A")), "no classical test weighs cells"


def test_the_worst_cell_can_be_the_endpoint(table: pd.DataFrame) -> None:
    found = decide(table, replace(PLAN, endpoint="worst_cell")).evidence
    rows = site_rows(table, PLAN)
    ends = [float(value_of(rows, arm, "cells = worst", "worst_cell").value) for arm in (ARM, REFERENCE)]
    assert found["difference"] == pytest.approx(ends[0] - ends[1], abs=1e-5)
    assert sides_judged(table, ("ill",), "image", "worst_cell", "") == (20, 20)
    # k² / Σ 1 / n of cells of 95 and 20
    assert sides_judged(table, ("ill",), "image", "auroc", "balanced") == (66, 66) == (int(4 / (1 / 95 + 1 / 20)),) * 2


def test_thresholds_are_those_of_all_sites_and_no_test_image_moves_them(table: pd.DataFrame) -> None:
    def thresholds(rows: pd.DataFrame, stratum: str) -> list[float]:
        part, positive, tests = judged_images(rows, ("ill",), "image", stratum, 10, 0)
        return [fit.threshold for fit in figures_of_fits(part, positive, tests, ("sensitivity",), "youden")]

    whole = thresholds(table, "")
    for stratum in ("site=A", "site=B", "balanced", "reversed"):
        assert thresholds(table, stratum) == whole
        kept = in_stratum(table, stratum)
        pd.testing.assert_frame_equal(kept[kept["split"] == "val"], table[table["split"] == "val"])
    moved = table.assign(score_ill=table["score_ill"].where(table["split"] == "val", table["score_ill"] + 5))
    assert thresholds(moved, "site=A") == whole


def test_a_test_image_on_which_a_threshold_is_fixed_is_a_leak(table: pd.DataFrame) -> None:
    """As where the target site's test images are given to val, so that its threshold suits them."""
    own = table[(table["split"] == "test") & (table["site"] == "B")]
    with pytest.raises(LeakageError, match="Thresholds and arms are chosen on val"):
        decide(pd.concat([table, own.assign(split="val")]), replace(PLAN, stratum="site=B"))


def test_a_cell_of_few_patients_decides_nothing() -> None:
    thin = predictions({REFERENCE: 2.0, ARM: 0.0}, rare=9, seeds=2)
    verdict = decide(thin, replace(PLAN, stratum="balanced"))
    assert verdict.decision == "inconclusive" and "has 9 test patients" in verdict.reasons[0]
    row = value_of(site_rows(thin, PLAN), ARM, "cells = balanced", "auroc")
    assert row.value and not row.ci_low
    assert decide(thin, PLAN).evidence["n_patients"] == 208


def test_draws_keep_the_patients_of_every_cell(table: pd.DataFrame) -> None:
    test = draw_test_sets(table, 50, 0)["0"]
    assert test.cells is not None
    for cell in range(4):
        drawn = test.weights[1:51, test.cells == cell].sum(axis=1)
        np.testing.assert_allclose(drawn, (test.cells == cell).sum())


def test_predictions_without_sites_or_with_another_one_say_what_lacks(table: pd.DataFrame) -> None:
    plain = table.drop(columns=["site", "cell"])
    assert decide(plain, PLAN).decision == "harms"
    for stratum, lacking in {"balanced": "column site", "reversed": "column cell"}.items():
        with pytest.raises(DataError, match=lacking):
            decide(plain, replace(PLAN, stratum=stratum))
    with pytest.raises(DataError, match="The sites are: A, B"):
        decide(table, replace(PLAN, stratum="site=C"))
    with pytest.raises(DataError, match="No cell of site and class is rarer"):
        decide(table.assign(cell="common"), replace(PLAN, stratum="reversed"))
    with pytest.raises(DataError, match="cells of site and class need a column site"):
        decide(plain, replace(PLAN, endpoint="worst_cell"))
    shared = table.assign(patient_id=table["split"] + table["image_id"].str[-1])
    with pytest.raises(DataError, match="images of several sites"):
        decide(shared, replace(PLAN, unit="patient", stratum="balanced"))


def test_rare_cells_are_those_below_independence() -> None:
    """Three sites: A 30 ill + 10 well, B 10 + 30, C 20 + 20. Half of each site's images are expected to be ill."""
    pairs = [("A", "ill", 30), ("A", "well", 10), ("B", "ill", 10), ("B", "well", 30), ("C", "ill", 20),
             ("C", "well", 20)]  # fmt: skip
    site = pd.Series([one for one, _, count in pairs for _ in range(count)])
    label = pd.Series([name for _, name, count in pairs for _ in range(count)])
    found = cells_of(site, label, cell_counts(site, label))
    assert set(zip(site[found == "rare"], label[found == "rare"], strict=True)) == {("A", "well"), ("B", "ill")}
    unknown = cells_of(pd.Series(["D", "A"]), pd.Series(["ill", "other"]), cell_counts(site, label))
    assert list(unknown) == ["rare", "rare"]


def test_how_well_a_site_tells_the_class() -> None:
    site, label = np.repeat([0, 0, 1, 1], [95, 5, 5, 95]), np.repeat([0, 1, 0, 1], [95, 5, 5, 95])
    patients = np.arange(200).astype(str)
    found = told_from(site, label, patients, 0)
    assert found.value == pytest.approx(balanced_accuracy_score(label, site)) == 0.95
    # a share of 0.95 of 200 patients: two standard errors are 2 * sqrt(0.95 * 0.05 / 200) = 0.031
    assert found.low is not None and found.high is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.0154, rel=0.15)
    twice = told_from(np.tile(site, 4), np.tile(label, 4), np.tile(patients, 4), 0)
    assert twice.low == pytest.approx(found.low, abs=0.01), "four images of a patient are one patient"
    assert told_from(np.tile([0, 1], 50), np.repeat([0, 1], 50), np.arange(100).astype(str), 0).value == 0.5


@pytest.mark.parametrize(("shown", "told"), [(True, 0.8), (False, 0.8), (True, 0.0)])
def test_a_shortcut_is_told_where_images_show_the_site_and_it_goes_with_the_class(
    tmp_path: Path, shown: bool, told: float
) -> None:
    dataset, manifest = planted(tmp_path, shown=shown, told=told)
    trained = set(manifest["image_id"][:60])
    plan = VerdictPlan(positive=("contrast",), bootstrap=300)
    rows = shortcut_rows(
        dataset, manifest, scores(manifest, 0.0), "manufacturer", trained, plan, ("normal", "contrast")
    )
    part = manifest[:60]
    shares = [(part["manufacturer"] == "B")[part["label"] == name].mean() for name in ("normal", "contrast")]
    (row,) = [row for row in rows if row.metric == "label_from_column"]
    assert float(row.value) == pytest.approx(0.5 + abs(shares[1] - shares[0]) / 2, abs=1e-5) and row.ci_low
    warned = probe_warnings(rows)
    if not (shown and told):
        assert warned == ()
        return
    assert warned[0].startswith(f"Shortcut: manufacturer alone tells the class in {100 * float(row.value):.0f} % [")
    assert "can be read off them (AUROC" in warned[0] and "cellbalanced" in warned[0]


def test_the_report_shows_arms_by_strata(table: pd.DataFrame) -> None:
    metrics = table_of(site_rows(table, PLAN))
    numbers = {name: pd.to_numeric(metrics[name], errors="coerce") for name in ("value", "ci_low", "ci_high")}
    shown = sites_table(metrics.assign(**numbers))
    assert shown is not None
    assert shown.header == ("Arm", "A", "B", "Balanced cells", "Reversed cells", "Worst cell")
    assert [row[0] for row in shown.rows] == ["Real images", "Real + synthetic images, 1 : 1"]
    assert shown.rows[0][3].startswith(f"{mean_auroc(table, REFERENCE, True):.3f}")
    assert sites_table(metrics[metrics["stage"] != "sites"].assign(**numbers).iloc[:0]) is None


def experiment(**changes: Any) -> Any:
    data = {"source": {"kind": "csv", "path": "a.csv"}, "classes": ["well", "ill"], "positive": ["ill"]}
    return validate_experiment({"name": "t", "data": data | changes.pop("data", {}), **changes}, "t")


def test_configurations_that_cannot_be_meant_are_refused() -> None:
    sited = {"site": "hospital"}
    assert experiment(data=sited, verdict={"stratum": "site=St. Mary"}).verdict.stratum == "site=St. Mary"
    with pytest.raises(ConfigError, match=r"name the column of the site in data\.site"):
        experiment(verdict={"stratum": "balanced"})
    with pytest.raises(ConfigError, match=r"name the column of the site in data\.site"):
        experiment(verdict={"endpoint": "worst_cell"})
    with pytest.raises(ConfigError, match=r"leave verdict\.stratum empty"):
        experiment(data=sited, verdict={"endpoint": "worst_cell", "stratum": "balanced"})
    with pytest.raises(ConfigError, match="stratum"):
        experiment(data=sited, verdict={"stratum": "best"})
    with pytest.raises(ConfigError, match="threshold"):
        experiment(data=sited, verdict={"threshold": "youden@site"})


def test_every_image_needs_a_site_and_there_must_be_two() -> None:
    manifest = pd.DataFrame({"path": ["a.png", "b.png"], "hospital": ["A", "B"]})
    require_sites(manifest, "hospital")
    for changed, said in {
        "": "1 of 2 labelled images have no value .* b.png",
        "A": "all images have one value",
    }.items():
        with pytest.raises(DataError, match=said):
            require_sites(manifest.assign(hospital=["A", changed]), "hospital")
    require_sites(manifest, "hospital", ("B", "A"))
    with pytest.raises(DataError, match=r"1 of 2 labelled .* another value than \['A', 'C'\].* No image is of C\."):
        require_sites(manifest, "hospital", ("A", "C"))
    with pytest.raises(DataError, match=r"0 of 2 labelled .* No image is of C\."):
        require_sites(manifest, "hospital", ("A", "B", "C"))
    with pytest.raises(DataError, match="no column clinic"):
        require_sites(manifest, "clinic")
