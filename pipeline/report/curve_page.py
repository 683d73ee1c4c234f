"""`curve.html`: the low-data curve in one self-contained file and its picture, from the files that the curve left."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.ticker import NullFormatter, NullLocator

from pipeline.config.loading import load_experiment
from pipeline.core.files import atomic_path, clear_disk_errors, read_json, write_text
from pipeline.core.layout import (
    CONFIG,
    CURVE,
    CURVE_LEFT_OUT,
    CURVE_POINTS,
    CURVE_REPRESENTATIONS,
    CURVE_TABLE,
    FIGURES,
    LEDGER,
    LOOKS,
)
from pipeline.report.glossary import terms_in
from pipeline.report.names import family_title, network_title
from pipeline.report.page import templates
from pipeline.report.picture import Picture
from pipeline.report.reading import read_numbers
from pipeline.report.representation_tables import REPRESENTATION_NUMBERS, representation_parts
from pipeline.report.style import BLUE, VERMILLION, for_phone, house_style, panels, png
from pipeline.report.tables import Table, look_table
from pipeline.report.words import (
    arm_explained,
    arm_lines,
    arm_title,
    count,
    metric_name,
    named_arm,
    number,
    p_value,
    with_interval,
)

_NUMBERS = (
    "size", "draws", "train_patients", "without_patient", "n_patients", "reference_mean", "arm_mean", "difference",
    "ci_low", "ci_high", "p_holm", "same_as", "same_as_low", "same_as_high",
)  # fmt: skip


_GENERATORS = {
    "failed": "generators failed, so that size says nothing about GAN augmentation",
    "not judged": "the generators could not be judged: look at their samples before believing that synthetic "
    "images are worth nothing",
}
"""Sentences on what the gate saw; see pipeline/verdict/gate.py."""


def write_curve_page(place: Path) -> Path:
    """Make the page from curve.csv, points.csv, left_out.csv, ledger.csv and config.yaml in `place`, and from
    representations.csv where it is there; give its path.

    It shows no image and no id.

    Raises:
        UserError: one of the files is missing, or lacks a column; the message names it.
    """
    experiment = load_experiment(place / CONFIG)
    curve = read_curve(place)
    points = read_numbers(place, CURVE_POINTS, ("size", "value"), ("draw", "arm"))
    left_out = read_numbers(place, CURVE_LEFT_OUT, ("size",), ("reason",))
    picture = Picture(
        "curve", "Endpoint over the number of real training images, with and without synthetic ones", _caption(curve),
        *curve_plot(curve, points),
    )  # fmt: skip
    asked = (place / CURVE_REPRESENTATIONS).is_file()
    represented = representation_parts(read_representations(place)) if asked else None
    html = templates().get_template("curve.html.j2").render(
        experiment=experiment,
        phantoms=experiment.data.simulated,
        without_patient=int(curve["without_patient"].max()),
        arm=arm_title(curve["arm"].iloc[0]),
        arm_means=arm_explained(curve["arm"].iloc[0]),
        gan=family_title(experiment.gan.family),
        classifier=network_title(experiment.classifier.network),
        terms_in=terms_in,
        answer=answer(curve),
        picture=picture,
        curve=curve_rows(curve),
        represented=represented,
        left_out=[(f"{size:.0f}", reason) for size, reason in zip(left_out["size"], left_out["reason"], strict=True)],
        looks=read_looks(place),
        ledger=look_table(read_numbers(place, LEDGER, (), ())),
    )  # fmt: skip
    with clear_disk_errors(place):
        for one in (picture, *([represented.picture] if represented else [])):
            with atomic_path(place / FIGURES / f"{one.name}.png") as temporary:
                temporary.write_bytes(one.png)
        write_text(place / CURVE, html)
    return place / CURVE


def read_looks(place: Path) -> list[str]:
    """What a reader must know of earlier looks at the test patients, in sentences."""
    if not (place / LOOKS).is_file():
        return []
    return [str(sentence) for sentence in read_json(place / LOOKS)["sentences"]]


def read_curve(place: Path) -> pd.DataFrame:
    """The rows of curve.csv, a size each.

    Raises:
        UserError: it is missing, or lacks a column.
    """
    texts = ("arm", "reference", "endpoint", "decision", "no_interval", "generators")
    return read_numbers(place, CURVE_TABLE, _NUMBERS, texts)


def read_representations(place: Path) -> pd.DataFrame:
    """The rows of representations.csv, an arm and a size each.

    Raises:
        UserError: it is missing, or lacks a column.
    """
    texts = ("arm", "reference", "endpoint", "decision", "no_interval")
    return read_numbers(place, CURVE_REPRESENTATIONS, REPRESENTATION_NUMBERS, texts)


def answer(curve: pd.DataFrame) -> list[str]:
    """How many real images the synthetic ones are worth, in sentences."""
    helped = curve[curve["decision"] == "helps"]
    said = [
        f"With {row['size']:.0f} real images a class, {named_arm(row['arm'])} did what {same} real images do."
        for row, same in zip(helped.to_dict("records"), _same_as(helped, curve), strict=True)
    ]
    if not said:
        said.append(
            f"At none of {count(len(curve), 'size')} did synthetic images help by the rule: they could not be shown to "
            "be worth any real image."
        )
    for state, words in _GENERATORS.items():
        at = curve.loc[curve["generators"] == state, "size"]
        if len(at):
            said.append(f"With {', '.join(f'{size:.0f}' for size in at)} real images a class, {words}.")
    harmed = curve.loc[curve["decision"] == "harms", "size"]
    if len(harmed):
        said.append(f"They did harm with {', '.join(f'{size:.0f}' for size in harmed)} real images a class.")
    return said


def curve_rows(curve: pd.DataFrame) -> Table:
    """A row a size: both arms, their difference, what the rule says, and the number of real images that do the same."""
    endpoint = metric_name(curve["endpoint"].iloc[0])
    rows = [
        (
            f"{row['size']:.0f}", f"{row['train_patients']:.0f}", f"{row['draws']:.0f}", number(row["reference_mean"]),
            number(row["arm_mean"]),
            with_interval(100 * row["difference"], 100 * row["ci_low"], 100 * row["ci_high"], digits=1),
            p_value(row["p_holm"]), f"{_decided(row['decision'])}. {row['no_interval']}".removesuffix(". "),
            row["generators"], same,
        )
        for row, same in zip(curve.to_dict("records"), _same_as(curve, curve), strict=True)
    ]  # fmt: skip
    reference, arm = (arm_title(curve[side].iloc[0]).lower() for side in ("reference", "arm"))
    header = (
        "Real images a class", "Patients in training", "Draws", f"{endpoint}, {reference}", f"{endpoint}, {arm}",
        "Difference, points (interval)", "p, all sizes counted (Holm)",
        "Decision", "Generators", "Does what so many real images do",
    )  # fmt: skip
    return Table(f"Tested on the same {curve['n_patients'].iloc[0]:.0f} patients at every size.", header, tuple(rows))


def _decided(decision: str) -> str:
    """`no_benefit` in words."""
    return decision.replace("_", " ")


def curve_plot(curve: pd.DataFrame, points: pd.DataFrame) -> tuple[bytes, bytes]:
    """Both arms over the number of real images a class; a point is a draw, a line joins the means.

    The same for a phone.
    """
    with house_style():
        figure, (axes,) = panels(1, columns=1, height=4.4, width=7.4)
        sizes = curve["size"].to_numpy()
        sides = (("reference", "reference_mean", BLUE, "o", 0.97), ("arm", "arm_mean", VERMILLION, "s", 1.03))
        for side, mean, colour, marker, aside in sides:
            name = curve[side].iloc[0]
            own = points[points["arm"] == name]
            axes.plot(own["size"] * aside, own["value"], marker, color=colour, alpha=0.35, ms=4, ls="none")
            axes.plot(sizes * aside, curve[mean], color=colour, marker=marker, ms=7, lw=1.8, label=arm_lines(name))
        axes.set_xscale("log")
        axes.set_xticks(sizes, labels=[f"{size:.0f}" for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        endpoint = metric_name(curve["endpoint"].iloc[0])
        axes.set(xlabel="Real training images a class", ylabel=f"{endpoint} on test patients (0 to 1)")
        axes.legend(loc="lower right")
        return png(figure), png(for_phone(figure))


def _same_as(rows: pd.DataFrame, curve: pd.DataFrame) -> list[str]:
    """Such as `40 (25 to 60)`; `≥ 200` and `≤ 10` at the ends of the curve."""
    least, most = curve["size"].min(), curve["size"].max()

    def shown(value: float) -> str:
        sign = "≥ " if value >= most else "≤ " if value <= least else ""
        return sign + number(value, 0)

    texts = [[shown(value) for value in rows[name]] for name in ("same_as", "same_as_low", "same_as_high")]
    return [f"{value} ({low} to {high})" for value, low, high in zip(*texts, strict=True)]


def _caption(curve: pd.DataFrame) -> str:
    return (
        f"A small mark is a draw: a training set that shares no patient with the others, and a GAN of its own. "
        f"Large marks are means. Up to {curve['draws'].max():.0f} draws a size."
    )
