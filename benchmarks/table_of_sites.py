"""The tables of docs/sites.md from a finished run: every arm across sites, the comparisons, and what a test set that
was collected like the training set would have shown.

Run: .venv/bin/python benchmarks/table_of_sites.py runs/shortcut
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from pipeline.config.loading import load_experiment
from pipeline.core.files import read_json
from pipeline.core.guard import CYCLE_COLUMN, FROM_IMAGE, GAP, TRANSLATION, WARNING
from pipeline.core.guard import STAGE as GUARD
from pipeline.core.layout import CONFIG, PREDICTIONS, VERDICT
from pipeline.core.metrics import MetricRow, read_metrics
from pipeline.data.batches.dataset import read_table
from pipeline.verdict.fits import FIT_KEY, disease_score

_STAGE, _SITE = "sites", "site = "


def main(run: Path) -> None:
    """Print them."""
    rows = [row for row in read_metrics(run) if row.stage == _STAGE and row.metric in ("auroc", "worst_cell")]
    strata = list(dict.fromkeys(row.subgroup for row in rows))
    print(f"| arm | {' | '.join(strata)} |")
    print("|---" * (1 + len(strata)) + "|")
    for arm in dict.fromkeys(row.arm for row in rows):
        found = {row.subgroup: row for row in rows if row.arm == arm}
        print(f"| `{arm}` | {' | '.join(figure(found[name]) for name in strata)} |")
    print("\n| arm | against | difference, points (95 %) | p (Holm) | alone |")
    print("|---|---|---|---|---|")
    for one in read_json(run / VERDICT)["utility"]["evidence"].get("comparisons", ()):
        low, high = (f"{100 * one[name]:+.1f}" if one[name] is not None else "–" for name in ("ci_low", "ci_high"))
        p = "not planned" if one["p_holm"] is None else f"{one['p_holm']:.3f}"
        names = f"`{one['arm']}` | `{one['reference']}`"
        print(f"| {names} | {100 * one['difference']:+.1f} ({low} to {high}) | {p} | {one['decision']} |")
    rows = read_metrics(run)
    if any(row.stage == TRANSLATION for row in rows):
        print_translations(rows)
    if load_experiment(run / CONFIG).data.correlation is None:
        return
    print("\nTest images weighted as the training images are drawn (data.correlation), AUROC, mean (SD over fits):")
    for arm, values in as_collected(run).items():
        print(f"  {arm}: {np.mean(values):.3f} ({np.std(values, ddof=1):.3f})")


def print_translations(rows: Sequence[MetricRow]) -> None:
    """What translations between sites keep and change, and what the guard says of the arms that saw them."""
    of = {(row.label, row.subgroup.removeprefix(_SITE), row.metric): row for row in rows if row.stage == TRANSLATION}
    pairs = sorted({key[:2] for key in of})
    names = ("label_flips", "wrong_calls", "called_target", "kid_target")
    print("\n| translation | flips | wrong (sources) | called target (sources) | KID (sources) | there and back | n |")
    print("|---" * 7 + "|")
    for label, site in pairs:
        found = [figure(of[label, site, name]) for name in names]
        plain = [f" ({float(of[label, site, f'{name}_source'].value):.2f})" for name in names[1:]]
        shown = [found[0], *(one.split(" ")[0] + other for one, other in zip(found[1:], plain, strict=True))]
        back = float(of[label, site, CYCLE_COLUMN].value)
        print(f"| {label} to {site} | {' | '.join(shown)} | {back:.3f} | {of[label, site, 'label_flips'].n_images} |")
    gaps = [row for row in rows if row.stage == GUARD and row.metric == GAP and not row.label]
    for row in gaps:
        print(f"gap of {row.arm}, {row.subgroup}: {figure(row)}")
    for row in rows:
        if row.stage == GUARD and row.metric in (FROM_IMAGE, WARNING):
            print(f"{row.metric}: {row.value} {row.detail}")


def as_collected(run: Path) -> dict[str, list[float]]:
    """AUROC of every fit on test images in the proportions of `data.correlation`, by arm."""
    data = load_experiment(run / CONFIG).data
    table = read_table(run / PREDICTIONS)
    found: dict[str, list[float]] = {}
    for key, fit in table[table["split"] == "test"].groupby(FIT_KEY):
        size = fit.groupby(["site", "label"])["image_id"].transform("size")
        wanted = [(data.correlation or {})[site][label] for site, label in zip(fit["site"], fit["label"], strict=True)]
        ill = fit["label"].isin(data.positive)
        value = roc_auc_score(ill, disease_score(fit, data.positive), sample_weight=wanted / size)
        found.setdefault(str(key[0]), []).append(float(value))
    return found


def figure(row: MetricRow) -> str:
    """A mean with its interval, where there is one."""
    value = f"{float(row.value):.2f}"
    return f"{value} ({float(row.ci_low):.2f}–{float(row.ci_high):.2f})" if row.ci_low else value


if __name__ == "__main__":
    main(Path(sys.argv[1]))
