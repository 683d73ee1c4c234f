"""The report's table of the audit: each attack beside its control, by image and by patient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pipeline.report.reading import Run
from pipeline.report.tables import PER_PATIENT, Table
from pipeline.report.words import number, with_interval

_HEADER = (
    "Attack", "Unit", "AUROC", "Control (range of halves)", "Difference (interval)", "Advantage (control)",
    "TPR at 1 % FPR", "at 0.1 %", "Worst patient (unseen)", "Standing out", "Planted leak",
)  # fmt: skip


def attacks_table(run: Run) -> Table:
    """Members against unseen, members among themselves, and how much more the first is."""
    rows = run.metrics[run.metrics["stage"] == "attack"]
    planted = rows[rows["metric"] == "planted_auroc"].set_index("arm")["value"].to_dict()
    cells = []
    for attack, unit in dict.fromkeys(zip(rows["arm"], rows["subgroup"], strict=True)):
        own = rows[(rows["arm"] == attack) & (rows["subgroup"] == unit)]
        found = {row["metric"]: row for row in own.to_dict("records")}
        if "membership_auroc" in found:
            leak = number(planted.get(attack))
            cells.append((attack, "patient" if unit == PER_PATIENT else "image", *_cells(found), leak))
    return Table("Attacks: are training patients told from unseen ones?", _HEADER, tuple(cells))


_GUESSES = ("Column", "Training patients", "Unseen (control)", "Difference (interval)", "Commonest value", "Patients")


def guesses_table(run: Run) -> Table:
    """How often values of patients are read from the release, of training patients and of unseen ones."""
    rows = run.metrics[(run.metrics["stage"] == "attack") & run.metrics["metric"].str.startswith("guessed")]
    cells = []
    for column in dict.fromkeys(rows["label"]):
        found = {row["metric"]: row for row in rows[rows["label"] == column].to_dict("records")}
        first = found["guessed"]
        if math.isnan(first["value"]):
            cells.append((column, first["detail"], "", "", "", str(first["n_patients"])))
            continue
        gap = found["guessed_difference"]
        cells.append(
            (
                column, number(first["value"]), number(found["guessed_control"]["value"]),
                with_interval(gap["value"], gap["ci_low"], gap["ci_high"]), number(found["guessed_base"]["value"]),
                str(first["n_patients"]),
            )
        )  # fmt: skip
    return Table("Can values of patients be read from the release?", _GUESSES, tuple(cells))


def _cells(found: dict[str, Any]) -> tuple[str, ...]:
    def value(metric: str, absent: str = "") -> str:
        row = found.get(metric)
        return absent if row is None or math.isnan(row["value"]) else number(float(row["value"]))

    def ranged(metric: str) -> str:
        row = found[metric]
        return with_interval(row["value"], row["ci_low"], row["ci_high"])

    out = found.get("standing_out")
    return (
        value("membership_auroc"), ranged("membership_auroc_control"), ranged("membership_auroc_difference"),
        f"{value('membership_advantage')} ({value('membership_advantage_control')})",
        *(value(f"membership_tpr_at_fpr_{fpr}", "too few unseen") for fpr in ("0.01", "0.001")),
        "" if "worst_patient" not in found else f"{value('worst_patient')} ({value('worst_patient_control')})",
        "" if out is None else str(int(out["value"])),
    )  # fmt: skip


_MEMORY: dict[str, str] = {
    "Images looked at for near copies": "{synthetic_images:,}",
    "Copies of a training image": "{copies:.0f}",
    "Near copies (interval)": "{near_copies:.2%} ({near_copies_low:.2%} to {near_copies_high:.2%})",
    "Unseen real images that are as near to a training image": "{near_copies_control:.2%}",
    "Training patients of whom there is a near copy": "{near_patients:.0f} of {near_patients_of:.0f}",
    "Unseen patients to whom a synthetic image is as near": "{near_unseen:.0f} of {near_unseen_of:.0f}",
    "Nearer to a training image than to an unseen one (range over draws)":
        "{nearer_to_training_rate:.0%} ({rate_low:.0%} to {rate_high:.0%}); without memory {baseline_rate:.0%}",
    "The same of real validation images": "{control_rate:.0%}",
    "Distance to the nearest training image over that to the nearest unseen one": "{distance_ratio:.2f}",
    "Authentic (validation images)": "{authenticity:.0%} ({authenticity_control:.0%})",
}  # fmt: skip
"""A line of the table -> how it reads the figures of the stage `privacy`."""


def memorisation_table(run: Run) -> Table:
    """What was found of copies, one column a GAN; of figures that an older run does not have, a dash."""
    stages = run.of_kind("privacy")
    told = {title: [_filled(text, stage.record.figures) for stage in stages] for title, text in _MEMORY.items()}
    rows = tuple((title, *cells) for title, cells in told.items() if cells)
    return Table("Memorisation figures, by GAN.", ("Figure", *(stage.title for stage in stages)), rows)


def _filled(text: str, figures: Mapping[str, Any]) -> str:
    try:
        return text.format(**figures).replace("%", " %")
    except KeyError:
        return "–"


_CERTIFIED = {
    "unit": "Unit", "epsilon": "ε", "delta": "δ", "accountant": "Accountant", "mechanism": "Mechanism",
    "units": "Units", "noise_multiplier": "Noise multiplier", "sampling_rate": "Sampling rate", "steps": "Looks at the "
    "patients", "clip": "Clipped at", "neighbours": "Neighbours", "trust_model": "Trust", "covers": "Covers",
    "outside": "Outside the promise", "switched_off": "Switched off",
}  # fmt: skip


def certificate_table(run: Run) -> Table | None:
    """What the generator's certificate of differential privacy says; None = it has none."""
    found = run.verdict["release"]["evidence"].get("certificate")
    if not found:
        return None
    rows = tuple((title, _shown(found[name])) for name, title in _CERTIFIED.items() if name in found)
    return Table("Certificate of differential privacy", ("", ""), rows)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " · ".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
