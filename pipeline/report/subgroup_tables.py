"""The report's tables of subgroups and of what can be read off the images besides the disease."""

from __future__ import annotations

import pandas as pd

from pipeline.core.guard import FROM_IMAGE, GAP, STAGE
from pipeline.report.tables import Table
from pipeline.report.words import arm_title, metric_name, number, with_interval

_FIGURES = ("auroc", "sensitivity", "specificity")
_DIFFERENCE = "_difference"
_PROBE, _PROBE_WARNING = "probe", "probe_warning"
_SITES, _WORST_CELL = "sites", "worst_cell"


def subgroup_table(metrics: pd.DataFrame) -> Table | None:
    """Every arm in every subgroup, its difference from the reference below each figure; None without subgroups.

    Args:
        metrics: metrics.csv with numbers in value, ci_low and ci_high.
    """
    named = metrics["subgroup"].str.contains(" = ", regex=False)
    rows = metrics[named & metrics["metric"].str.removesuffix(_DIFFERENCE).isin(_FIGURES)]
    rows = rows[rows["stage"] == "downstream"]
    if rows.empty:
        return None
    cells, tones = [], []
    for (subgroup, arm), own in rows.groupby(["subgroup", "arm"], sort=False):
        figures = tuple(_figure(own, name) for name in _FIGURES)
        first = own.iloc[0]
        cells.append((str(subgroup), arm_title(str(arm)), *figures, f"{first['n_patients']} ({first['n_images']})"))
        differences = own[own["metric"].str.endswith(_DIFFERENCE)]
        tones.append("caution" if bool((differences["ci_high"] < 0).any()) else "")
    header = ("Subgroup", "Arm", *(metric_name(name) for name in _FIGURES), "Patients (images)")
    caption = (
        "Subgroups of the test patients: mean over fits (interval), and below it the difference from real images. "
        "Thresholds are those of all patients. No interval below 10 patients with, or without, the disease. "
        "Intervals are not corrected for the number of subgroups."
    )
    return Table(caption, header, tuple(cells), tuple(tones), tight=True)


def _figure(rows: pd.DataFrame, name: str) -> str:
    lines = []
    for metric, sign in ((name, False), (name + _DIFFERENCE, True)):
        for row in rows[rows["metric"] == metric].to_dict("records"):
            shown = with_interval(row["value"], row["ci_low"], row["ci_high"])
            lines.append(f"{'+' if sign and row['value'] >= 0 else ''}{shown}")
    return "\n".join(lines) or "–"


def sites_table(metrics: pd.DataFrame) -> Table | None:
    """Every arm within each site, over balanced and reversed cells, and in its worst cell; None without sites.

    Args:
        metrics: metrics.csv with numbers in value, ci_low and ci_high.
    """
    rows = metrics[(metrics["stage"] == _SITES) & metrics["metric"].isin(["auroc", _WORST_CELL])]
    if rows.empty:
        return None
    strata = list(dict.fromkeys(rows["subgroup"]))
    cells = []
    for arm, own in rows.groupby("arm", sort=False):
        shown = own.set_index("subgroup")[["value", "ci_low", "ci_high"]].T.to_dict()
        figures = (with_interval(*shown[name].values()) if name in shown else "–" for name in strata)
        cells.append((arm_title(str(arm)), *figures))
    names = {"cells = balanced": "Balanced cells", "cells = reversed": "Reversed cells", "cells = worst": "Worst cell"}
    header = ("Arm", *(names.get(name, name.removeprefix("site = ")) for name in strata))
    caption = (
        "Across sites: AUROC within each site, with every cell of site and class counting the same (balanced), and in "
        "the cells alone that are rare in training (reversed), where a classifier that goes by the site falls below "
        "0.5; last, the share of right calls in the cell where it is lowest. Means over fits (interval); thresholds "
        "are those of all validation images. No interval where a cell has fewer than 10 patients."
    )
    return Table(caption, header, tuple(cells), tight=True)


def probe_table(metrics: pd.DataFrame) -> Table | None:
    """What the confounder probe found, column by column; None where nothing was probed."""
    rows = metrics[(metrics["stage"] == _PROBE) & (metrics["metric"] != _PROBE_WARNING)]
    if rows.empty:
        return None
    cells = tuple(
        (
            row["subgroup"],
            _QUESTIONS.get(row["metric"], metric_name(row["metric"])) + (f"\n{row['arm']}" if row["arm"] else ""),
            with_interval(row["value"], row["ci_low"], row["ci_high"]),
            row["detail"],
            number(row["n_patients"], 0) if row["n_patients"] else "–",
        )
        for row in rows.to_dict("records")
    )
    header = ("Column", "Question", "Answer (interval)", "How", "Patients")
    return Table("Confounder probe: what else the images tell, and whether the classifier listens.", header, cells)


def guard_table(metrics: pd.DataFrame) -> Table | None:
    """What the guard against synthetic shortcuts found; None where no synthetic image was looked at."""
    rows = metrics[metrics["stage"] == STAGE]
    gaps = rows[(rows["metric"] == GAP) & rows["value"].notna()]
    told = rows[(rows["metric"] == FROM_IMAGE) & rows["value"].notna()]
    if gaps.empty and told.empty:
        return None
    cells = [
        ("Images", "all", "any", f"AUROC {with_interval(*(row[key] for key in _BOUNDS))}", row["detail"])
        for row in told.to_dict("records")
    ]
    for row in gaps.to_dict("records"):
        of = row["subgroup"].removeprefix("site = ") or "all", row["label"] or "mean of the classes"
        how = "" if row["label"] else row["detail"]
        cells.append((arm_title(row["arm"]), *of, with_interval(*(row[key] for key in _BOUNDS)), how))
    caption = (
        "Guard against synthetic shortcuts. Images: can synthetic ones be told from real ones of the same class? Arms: "
        "the mean disease score of synthetic images less that of real test images. Where the mean of the classes is "
        "far from 0, and farther than that of real images with classical augmentation, whose classifier never saw a "
        "synthetic image, being synthetic has become a sign of the disease (or, below 0, of health)."
    )
    return Table(caption, ("Arm", "Site", "Class", "Answer (interval)", "How"), tuple(cells), tight=True)


_BOUNDS = ("value", "ci_low", "ci_high")
_QUESTIONS = {
    "column_from_image": "Can it be read off the images? (AUROC)",
    "label_from_column": "Does it tell the class? (balanced accuracy)",
    "column_from_score": "Does the disease score tell it? (AUROC)",
}
