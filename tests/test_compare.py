"""Runs side by side: the run's own figures, intervals inside what is possible, and who is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from judged_run import experiment, judged_run
from scipy import stats
from sklearn.metrics import roc_auc_score
from test_verdict_rule import AUGMENTED, REFERENCE, simulate

from flows.cli import launch
from pipeline.data.batches.dataset import read_table
from pipeline.measures.resampling import Interval
from pipeline.verdict.compare import compare_runs

LONG = "a-study-with-a-name-that-is-much-longer-than-anyone-would-like-it-to-be"


def two_runs(root: Path, **settings: int) -> list[Path]:
    """Two runs on the same test patients; the second one's arms are a little better, and its name is long."""
    first = simulate({REFERENCE: 0.0, AUGMENTED: 0.5}, **{"patients": 30, **settings})
    second = simulate({REFERENCE: 0.3, AUGMENTED: 0.8}, **{"patients": 30, "seed": 5, **settings})
    config = experiment()
    return [judged_run(root / "one", first, config), judged_run(root / LONG, second, config)]


def auroc(run: Path, arm: str) -> float:
    table = pd.read_csv(run / "predictions.csv")
    test = table[(table["arm"] == arm) & (table["split"] == "test")]
    return float(
        np.mean([roc_auc_score(fit["label"] == "disease", fit["score_disease"]) for _, fit in test.groupby("seed")])
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((0.98, 0.9, 1.06), (0.9, 1.0)),
        ((0.5, -0.4, 1.4), (None, None)),
        ((0.5, None, None), (None, None)),
        ((0.5, 0.2, 0.7), (0.2, 0.7)),
    ],
)
def test_an_interval_is_cut_to_what_is_possible_or_left_out(
    given: tuple[float, float | None, float | None], expected: tuple[float | None, float | None]
) -> None:
    assert Interval(*given).within(0.0, 1.0) == Interval(given[0], *expected)


def test_values_are_the_runs_own_and_the_difference_is_paired(tmp_path: Path) -> None:
    runs = two_runs(tmp_path)
    found = compare_runs(runs).set_index(["run", "arm"])
    for run in runs:
        metrics = read_table(run / "metrics.csv")
        whole = (metrics["fold"] == "") & (metrics["metric"] == "auroc") & (metrics["subgroup"] == "")
        for arm in (REFERENCE, AUGMENTED):
            theirs = metrics[whole & (metrics["arm"] == arm)].iloc[0]
            mine = found.loc[(run.name, arm)]
            assert [f"{mine[name]:.6g}" for name in ("value", "ci_low", "ci_high")] == [
                theirs["value"], theirs["ci_low"], theirs["ci_high"],
            ]  # fmt: skip
            assert mine["value"] == pytest.approx(auroc(run, arm)) and mine["endpoint"] == "auroc"
    for arm in (REFERENCE, AUGMENTED):
        gap = found.loc[(LONG, arm)]
        assert gap["difference"] == pytest.approx(auroc(runs[1], arm) - auroc(runs[0], arm))
        assert (gap["pairing"], gap["against"]) == ("paired", "one")
        assert -1 <= gap["low"] < gap["difference"] < gap["high"] <= 1


def test_other_patients_are_unpaired_and_their_errors_add(tmp_path: Path) -> None:
    """With t intervals on either side: the difference's variance is the sum of both (Satterthwaite's freedom)."""
    one, _ = two_runs(tmp_path)
    other = simulate({REFERENCE: 0.2, AUGMENTED: 0.2}, patients=30, seed=7)
    other = other.assign(**{name: "other-" + other[name] for name in ("image_id", "patient_id")})
    two = judged_run(tmp_path / "two", other, experiment())
    found = compare_runs([one, two]).set_index(["run", "arm"])
    row = found.loc[("two", REFERENCE)]
    assert row["pairing"] == "unpaired"
    halves = [
        (found.loc[(name, REFERENCE), "value"] - found.loc[(name, REFERENCE), "ci_low"]) for name in ("one", "two")
    ]
    half = row["difference"] - row["low"]
    least = stats.norm.ppf(0.975) * np.hypot(*(one / stats.t.ppf(0.975, 29) for one in halves))
    assert 0.9 * least < half < 1.2 * np.hypot(*halves)


def test_nothing_that_is_printed_or_written_leaves_the_possible_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two wild fits an arm near an AUROC of 1: Student's quantile with one degree of freedom is 12.7."""
    wild = {"patients": 24, "seeds": 2, "fit_sd": 2.0}
    tables = [simulate({REFERENCE: 3.0, AUGMENTED: 2.0}, seed=seed, **wild) for seed in (3, 5)]  # type: ignore[arg-type]
    config = experiment(subgroups=["sex"])
    sexes = ["F" if number // 2 % 2 else "M" for number in range(tables[0]["image_id"].nunique())]
    runs = [judged_run(tmp_path / f"r{place}", table, config, sex=sexes) for place, table in enumerate(tables)]
    metrics = read_table(runs[0] / "metrics.csv")
    bounded = metrics[metrics["ci_low"] != ""]
    lows, highs = bounded["ci_low"].astype(float), bounded["ci_high"].astype(float)
    least = np.where(bounded["metric"].str.endswith("_difference"), -1.0, 0.0)
    assert len(bounded) > 20 and (lows >= least).all() and (highs <= 1).all()
    assert not ((lows == least) & (highs == 1)).any()
    found = compare_runs(runs)
    given = found.dropna(subset=["low"])
    assert (found["ci_high"].dropna() <= 1).all() and (given["low"] >= -1).all() and (given["high"] <= 1).all()
    assert (found["ci_high"] == 1).any()  # it was cut
    evidence = json.loads((runs[0] / "verdict.json").read_text())["utility"]["evidence"]
    assert all(one["ci_low"] is None or -1 <= one["ci_low"] <= one["ci_high"] <= 1 for one in evidence["comparisons"])


def test_a_difference_that_could_be_anything_has_no_interval_and_says_why(tmp_path: Path) -> None:
    """One fit of the reference is right about everybody and the other wrong; the arm does not scatter."""
    runs = []
    for name in ("one", "two"):
        table = simulate({REFERENCE: 0.0, AUGMENTED: 0.0}, patients=24, seeds=2)
        right = (table["label"] == "disease") == (
            (table["seed"] == 0) | (table["arm"] == AUGMENTED) | (table["split"] == "val")
        )
        noise = np.random.default_rng(len(runs)).uniform(0, 0.1, len(table))
        table["score_disease"] = np.where(right, 0.9 - noise, 0.1 + noise)
        table["score_normal"] = 1 - table["score_disease"]
        runs.append(judged_run(tmp_path / name, table, experiment()))
    found = compare_runs(runs).set_index(["run", "arm"])
    row = found.loc[("two", REFERENCE)]
    assert row[["ci_low", "ci_high", "low", "high"]].isna().all() and "more fits are needed" in row["note"]
    utility = json.loads((runs[0] / "verdict.json").read_text())["utility"]
    assert utility["decision"] == "inconclusive" and utility["evidence"]["ci_low"] is None
    assert "more fits are needed" in utility["evidence"]["no_interval"] == utility["reasons"][1]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"patients": 8}, "there are 8 test patients; below 10"),
        ({"seeds": 1}, "one fit an arm: its scatter is unknown"),
    ],
)
def test_no_interval_where_none_can_be_given(tmp_path: Path, settings: dict[str, int], why: str) -> None:
    row = compare_runs(two_runs(tmp_path, **settings)).iloc[1]
    assert np.isnan(row["low"]) and np.isnan(row["high"]) and why in row["note"]
    evidence = json.loads((tmp_path / "one" / "verdict.json").read_text())["utility"]["evidence"]
    assert evidence["ci_low"] is None and evidence["no_interval"]


def test_the_terminal_names_metric_and_arms_within_80_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = two_runs(tmp_path)
    assert launch(["compare", *map(str, runs)]) == 0
    shown = capsys.readouterr().out
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert shown.startswith("AUROC on test patients")
    assert {REFERENCE, AUGMENTED} <= set(shown.splitlines())
    assert shown.count(f"  {LONG}:") == 2 and "against one, paired" in " ".join(shown.split())
    row = compare_runs(runs).iloc[1]
    assert f"{100 * row['difference']:+.1f} points ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})" in shown
    assert launch(["compare", *map(str, runs), "--json"]) == 0
    assert {row["endpoint"] for row in json.loads(capsys.readouterr().out)} == {"auroc"}


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    tables = [simulate({REFERENCE: 0.0, AUGMENTED: 0.1}, patients=24, seed=seed) for seed in (0, 1)]
    runs = [judged_run(tmp_path / side / "demo", table, experiment()) for side, table in zip("ab", tables, strict=True)]
    assert set(compare_runs(runs)["run"]) == {str(run) for run in runs}


def test_a_run_is_given_once_and_is_there_and_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = two_runs(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(one)
    shutil.copytree(one, tmp_path / "copy")
    for again in ("one", "./one", "link", f"{LONG}/../one", str(one)):
        assert launch(["compare", "one", again]) == 2
        assert "are the same run" in capsys.readouterr().err
    assert launch(["compare", str(two), "one", "copy"]) == 2
    assert "one and copy hold the same predictions" in capsys.readouterr().err
    (two / "verdict.json").unlink()
    (tmp_path / "empty").mkdir()
    assert launch(["compare", "one", "nowhere", LONG, "empty"]) == 2
    said = capsys.readouterr().err
    for part in (
        "nowhere: there is no such run",
        f"{LONG}: is not a finished run: it has no verdict.json",
        "empty: is not",
    ):
        assert part in said


def test_the_page_names_every_arm_and_run_and_has_the_lines_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, page = two_runs(tmp_path), tmp_path / "pages" / "compare.html"
    assert launch(["compare", *map(str, runs), "--out", str(page)]) == 0
    shown = capsys.readouterr().out
    assert f"Page: {page}" in shown
    html = page.read_text(encoding="utf-8")
    found = compare_runs(runs)
    for row in found.to_dict("records"):
        assert f"{row['value']:.3f} ({row['ci_low']:.3f} to {row['ci_high']:.3f})" in html
        assert f"({row['arm']})" in html and row["run"] in html
        if row["against"]:
            assert f"{100 * row['difference']:+.1f} points" in html
    assert "<script" not in html and "http:" not in html and "https:" not in html
    assert not [name for name in read_table(runs[0] / "manifest.csv")["image_id"] if f">{name}<" in html], "no id"
    assert launch(["compare", *map(str, runs), "--out", str(tmp_path)]) == 2
    assert "ends in .html" in capsys.readouterr().err
