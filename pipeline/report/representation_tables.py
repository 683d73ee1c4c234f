"""Fixed representations in the report: each arm beside the classifier from scratch, in one run and over a curve."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from matplotlib.ticker import NullFormatter, NullLocator

from pipeline.config.arms import REFERENCE_ARM, representation_of
from pipeline.report.picture import Picture
from pipeline.report.reading import Run, disease_label, ordered_arms
from pipeline.report.style import for_phone, house_style, panels, png
from pipeline.report.tables import PER_PATIENT, Table
from pipeline.report.words import (
    arm_explained,
    arm_lines,
    arm_title,
    metric_name,
    named_arm,
    number,
    p_value,
    points_with_interval,
    with_interval,
)

REPRESENTATION_NUMBERS = (
    "size", "draws", "n_patients", "reference_mean", "arm_mean", "difference", "ci_low", "ci_high", "p", "p_holm",
)  # fmt: skip
_MARKERS = "os^D"
_WORDS = {
    "helps": "better",
    "harms": "worse",
    "no_benefit": "not better",
    "inconclusive": "not told apart",
}


def representations_table(run: Run) -> Table | None:
    """Linear models on fixed representations, the reference first; None where there is none."""
    plan = run.experiment.verdict
    rows = run.metrics[(run.metrics["fold"] == "") & (run.metrics["seed"] == "") & (run.metrics["split"] == "test")]
    rows = rows[(rows["label"] == disease_label(run)) & (rows["stage"] == "downstream")]
    gaps = rows[rows["metric"] == f"{plan.endpoint}_difference"]
    if gaps.empty:
        return None
    values = rows[rows["metric"] == plan.endpoint]
    by_patient = values[values["subgroup"] == PER_PATIENT]
    values = by_patient if plan.unit == "patient" and len(by_patient) else values[values["subgroup"] == ""]
    values = values.set_index("arm")

    def value(arm: str) -> str:
        return with_interval(*values.loc[arm, ["value", "ci_low", "ci_high"]]) if arm in values.index else "–"

    def called(arm: str) -> str:
        return f"{arm_title(arm)}\n{arm_explained(arm)}"

    found = [(called(REFERENCE_ARM), value(REFERENCE_ARM), "–", "what the others are held to")]
    known = {str(gap["arm"]): gap for gap in gaps.to_dict("records")}
    for arm in ordered_arms(run, known):
        gap = known[arm]
        shown = points_with_interval(gap["value"], gap["ci_low"], gap["ci_high"])
        found.append((called(arm), value(arm), shown, str(gap["detail"])))
    endpoint = metric_name(plan.endpoint)
    caption = (
        "Linear models on vectors that were learnt without reading a label, beside a classifier from scratch: the "
        "verdict's inference, in a family of comparisons of their own. They have no say in whether GAN augmentation "
        "helps."
    )
    header = ("Arm", f"{endpoint} (interval)", "Difference (interval)", "Compared")
    return Table(caption, header, tuple(found), tight=True)


@dataclass(frozen=True)
class RepresentationParts:
    """What the curve's page shows of fixed representations."""

    answer: list[str]
    picture: Picture
    table: Table


def representation_parts(table: pd.DataFrame) -> RepresentationParts:
    """From the rows of representations.csv, an arm and a size each."""
    caption = "Means over draws and fits; intervals of the differences are in the table."
    alt = "Endpoint of each arm over the number of labelled images a class; the numbers are in the table below."
    picture = Picture("representations", alt, caption, *representation_plot(table))
    return RepresentationParts(representation_answer(table), picture, curve_representations(table))


def curve_representations(table: pd.DataFrame) -> Table:
    """An arm and a size a row."""
    rows = [
        (
            f"{row['size']:.0f}", named_arm(str(row["arm"])), number(row["reference_mean"]), number(row["arm_mean"]),
            points_with_interval(row["difference"], row["ci_low"], row["ci_high"]), p_value(row["p_holm"]),
            _WORDS.get(str(row["decision"]), str(row["decision"])),
        )
        for row in table.to_dict("records")
    ]  # fmt: skip
    endpoint = metric_name(str(table["endpoint"].iloc[0]))
    header = (
        "Labelled images a class", "Arm", f"{endpoint}, classifier from scratch", f"{endpoint}, arm",
        "Difference (interval)", "p, all sizes and arms counted (Holm)", "Compared",
    )  # fmt: skip
    return Table("Linear models on fixed representations beside a classifier from scratch.", header, tuple(rows))


def representation_plot(table: pd.DataFrame) -> tuple[bytes, bytes]:
    """The means of all arms and of the reference over the number of labelled images a class, and the same for a phone.

    A colour is a representation; a dashed line is a support vector machine.
    """
    with house_style():
        figure, (axes,) = panels(1, columns=1, height=4.4, width=7.4)
        figure.set_layout_engine("constrained")  # it alone knows of a legend outside
        reference = table.drop_duplicates("size")
        axes.plot(reference["size"], reference["reference_mean"], "k-", lw=2.2, label="Classifier from scratch")
        kinds = list(dict.fromkeys(representation_of(arm) for arm in table["arm"]))
        for arm, own in table.groupby("arm", sort=False):
            number, line = kinds.index(representation_of(str(arm))), "--" if str(arm).endswith("+svm") else "-"
            marker, colour = _MARKERS[number % len(_MARKERS)], f"C{number}"
            axes.plot(
                own["size"],
                own["arm_mean"],
                marker=marker,
                color=colour,
                ls=line,
                lw=1.4,
                ms=5,
                label=arm_lines(str(arm)),
            )
        axes.set_xscale("log")
        axes.set_xticks(reference["size"], labels=[f"{size:.0f}" for size in reference["size"]])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        endpoint = metric_name(str(table["endpoint"].iloc[0]))
        axes.set(xlabel="Labelled training images a class", ylabel=f"{endpoint} on test patients (0 to 1)")
        legend = figure.legend(loc="outside right upper", fontsize=8)
        wide = png(figure)
        legend.remove()
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)
        return wide, png(for_phone(figure))


def representation_answer(table: pd.DataFrame) -> list[str]:
    """Which arms do better and which worse than a classifier from scratch, size by size, in sentences."""
    said = []
    for size, rows in table.groupby("size", sort=True):
        parts = [
            f"{word} are {', '.join(map(named_arm, rows['arm'][rows['decision'] == decision]))}"
            for decision, word in (("helps", "better"), ("harms", "worse"))
            if (rows["decision"] == decision).any()
        ]
        told = "; ".join(parts) or "none is told apart from it"
        said.append(f"With {size:.0f} labelled images a class, beside a classifier from scratch: {told}.")
    return said
