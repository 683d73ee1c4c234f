"""The report's table of the audit: each attack beside its control, by image and by patient."""

from __future__ import annotations

import math
from typing import Any

from pipeline.report.reading import Run
from pipeline.report.tables import PER_PATIENT, Table
from pipeline.report.words import number, with_interval

_HEADER = (
    "Attack", "Unit", "AUROC", "Control (range of halves)", "Difference (interval)", "Advantage (control)",
    "TPR at 1 % FPR", "at 0.1 %", "Standing out", "Planted leak",
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
        "" if out is None else str(int(out["value"])),
    )  # fmt: skip


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
