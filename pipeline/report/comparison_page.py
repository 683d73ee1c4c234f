"""Runs side by side as one self-contained page: every arm in every run, and its difference from the first run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from pipeline.config.experiment import Experiment
from pipeline.core.files import clear_disk_errors, write_text
from pipeline.report.glossary import terms_in
from pipeline.report.page import templates
from pipeline.report.picture import Picture
from pipeline.report.style import CYCLE, house_style, panels, png
from pipeline.report.tables import Table
from pipeline.report.words import arm_explained, arm_lines, arm_title, metric_name, points_with_interval, with_interval


def write_comparison_page(found: pd.DataFrame, runs: Mapping[str, Experiment], place: Path) -> Path:
    """Write the page into the file `place`, and give it back.

    It shows no image and no id.

    Args:
        found: what `compare_runs` gives.
        runs: the configuration of each run, by the name that `found` calls it.
    """
    endpoint = metric_name(str(found["endpoint"].iloc[0]))
    alt = f"{endpoint} of {found['arm'].nunique()} arms in {len(runs)} runs; the numbers are in the table below."
    caption = "Squares: mean over fits; bars: interval (a hollow square has none). One colour a run."
    page = templates().get_template("compare.html.j2").render(
        runs=runs,
        endpoint=endpoint,
        answer=_answer(found),
        picture=Picture("compare", alt, caption, comparison_plot(found, endpoint)),
        table=_arms_table(found, endpoint),
        told=_runs_table(runs),
        terms_in=terms_in,
    )  # fmt: skip
    with clear_disk_errors(place.parent):
        write_text(place, page)
    return place


def _answer(found: pd.DataFrame) -> list[str]:
    """For each arm in a later run, whether its difference from the first run can be told from chance."""
    said = []
    for row in found[found["against"] != ""].to_dict("records"):
        gap = points_with_interval(row["difference"], row["low"], row["high"])
        if pd.isna(row["low"]):
            told = "no interval, so nothing can be said"
        elif row["low"] > 0 or row["high"] < 0:
            told = f"{'better' if row['low'] > 0 else 'worse'} than chance explains"
        else:
            told = "not told apart"
        said.append(f"{arm_title(row['arm'])}, {row['run']} against {row['against']}: {gap}: {told}.")
    return said or ["No arm is in two of these runs: nothing can be compared."]


def _arms_table(found: pd.DataFrame, endpoint: str) -> Table:
    rows = []
    for row in found.to_dict("records"):
        gap = points_with_interval(row["difference"], row["low"], row["high"]) if row["against"] else "–"
        value = with_interval(row["value"], row["ci_low"], row["ci_high"])
        against = f"{row['against']}, {row['pairing']}" if row["against"] else "–"
        rows.append(
            (arm_title(row["arm"]), row["run"], value, gap, against, row["note"] or "–", arm_explained(row["arm"]))
        )
    header = ("Arm", "Run", f"{endpoint} (interval)", "Difference (interval)", "Against", "Note", "What it learns from")
    return Table(f"{endpoint}, arm by arm.", header, tuple(rows))


def _runs_table(runs: Mapping[str, Experiment]) -> Table:
    rows = tuple(
        (
            name, one.gan.family, f"{one.gan.num_images:,}", one.classifier.network, str(one.classifier.steps),
            str(one.classifier.seeds), " × ".join(map(str, one.data.shape)), one.data.kind_words, str(one.seed),
        )
        for name, one in runs.items()
    )  # fmt: skip
    header = ("Run", "GAN", "Images shown to it", "Classifier", "Steps", "Seeds", "Image size", "Source", "Seed")
    return Table("How each run was made; config.yaml of a run has every key.", header, rows)


def comparison_plot(found: pd.DataFrame, endpoint: str) -> bytes:
    """Every arm's value and interval, the runs below each other in colours of their own."""
    arms, runs = list(dict.fromkeys(found["arm"])), list(dict.fromkeys(found["run"]))
    with house_style():
        figure, (axes,) = panels(1, columns=1, height=1.2 + len(arms) * (0.3 + 0.22 * len(runs)), width=8.0)
        for place, run in enumerate(runs):
            colour = CYCLE[(place + 1) % len(CYCLE)]
            own = found[found["run"] == run].set_index("arm")
            down = [arms.index(arm) + 0.7 * ((place + 0.5) / len(runs) - 0.5) for arm in own.index]
            for y, low, high in zip(down, own["ci_low"], own["ci_high"], strict=True):
                axes.plot([low, high], [y, y], color=colour, lw=2)
            known = own["ci_low"].notna().to_numpy()
            axes.scatter(own["value"], down, marker="s", color=colour, zorder=3, label=run,
                         facecolors=[colour if one else "white" for one in known])  # fmt: skip
        axes.set_yticks(range(len(arms)), labels=[arm_lines(arm) for arm in arms])
        axes.set_ylim(len(arms) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"{endpoint} on test patients (0 to 1)")
        figure.legend(loc="outside upper left", ncols=min(len(runs), 3))
        return png(figure)
