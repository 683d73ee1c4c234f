"""The report's tables, as text cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from pipeline.core.layout import AUDIT, REJECTED
from pipeline.core.patients import num_known
from pipeline.report.names import detector_named
from pipeline.report.reading import Run, disease_label, fit_rows, mean_rows, ordered_arms
from pipeline.report.sharing import Redaction
from pipeline.report.words import METRIC_NAMES, arm_explained, arm_title, metric_name, number, with_interval

_MAIN = ("auroc", "sensitivity", "specificity", "balanced_accuracy")
PER_PATIENT = "per patient"
_SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True)
class Table:
    """A table with a caption.

    Attributes:
        tones: a colour class for each row: "", bad or caution.
        tight: cells keep their own line breaks and get no others.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    tones: tuple[str, ...] = ()
    tight: bool = False

    def redacted(self, redact: Redaction) -> Table:
        """The same table without cells that may name a patient, an image or a file."""
        return replace(self, rows=tuple(tuple(redact(cell) for cell in row) for row in self.rows))

    def toned_rows(self) -> list[tuple[str, tuple[str, ...]]]:
        return list(zip(self.tones or ("",) * len(self.rows), self.rows, strict=True))


def data_table(run: Run) -> Table:
    """Images and patients a class, split and fold."""
    table = run.splits.merge(run.manifest[["image_id", "label", "patient_id"]], on="image_id", how="left")
    known = ("train", "val", "test", "unlabelled", "external", "unused")
    splits = [name for name in known if (table["split"] == name).any()]
    classes = [*run.experiment.data.classes, *([""] if (table["label"] == "").any() else [])]
    folds = sorted(set(table["fold"]), key=lambda fold: (len(fold), fold))
    rows = []
    for fold in folds:
        for label in classes:
            own = table[(table["fold"] == fold) & (table["label"] == label)]
            cells = [_images_and_patients(own[own["split"] == split]) for split in splits]
            rows.append((*([fold] if len(folds) > 1 else []), label or "(no label)", *cells))
    lead = ("Fold", "Class") if len(folds) > 1 else ("Class",)
    return Table("Images (patients) used, by class and split.", (*lead, *splits), tuple(rows))


def _images_and_patients(rows: pd.DataFrame) -> str:
    patients = num_known(rows)
    return f"{len(rows)} ({patients if patients else '–'})" if len(rows) else "0"


def fate_table(run: Run) -> Table:
    """What became of every image of the source."""
    counts = run.manifest["fate"].value_counts().sort_index()
    rows = [(str(fate), str(count)) for fate, count in zip(counts.index, counts, strict=True)]
    if not any(fate.startswith("rejected") for fate, _ in rows):
        rows.append(("rejected at reading", str(len(run.only("ingest").table(REJECTED)))))
    return Table("What became of the source's images.", ("Fate", "Images"), tuple(rows))


def rejected_table(run: Run) -> Table:
    """Reasons for rejecting images, with counts."""
    reasons = run.only("ingest").table(REJECTED, ("reason",))["reason"].value_counts()
    rows = tuple((str(reason), str(count)) for reason, count in zip(reasons.index, reasons, strict=True))
    return Table("Images that could not be used, by reason.", ("Reason", "Images"), rows)


_MEASURES = ("similarity", "reached", "twins", "overfitting")


def watch_table(run: Run) -> Table | None:
    """What the collapse watch saw of each generator as it was delivered; None where no GAN was watched."""
    rows, tones = [], []
    for stage in run.of_kind("fit-gan"):
        watch = stage.record.figures.get("watch", {"checks": []})
        last = [c for c in watch["checks"] if c["num_images"] == stage.record.figures["num_images"]][-1:]
        for check in last:
            bad = sum(other["finding"] != "good" for other in watch["checks"])
            back = f"{watch['rollbacks']}{', then ended early' if watch['ended_early'] else ''}"
            numbers = (number(check[name], 2) for name in _MEASURES)
            rows.append((stage.title, f"{len(watch['checks'])} ({bad})", *numbers, back))
            tones.append("" if check["finding"] == "good" and not watch["rollbacks"] else "caution")
    header = ("GAN", "Checks (not good)", *(metric_name(name) for name in _MEASURES), "Went back")
    caption = "The collapse watch: its last check of each generator."
    return Table(caption, header, tuple(rows), tuple(tones)) if rows else None


def checks_table(run: Run) -> Table | None:
    """Every check of the generator named for release, or else of the first one."""
    stage = run.released("fit-gan") or next(iter(run.of_kind("fit-gan")), None)
    checks = stage.record.figures.get("watch", {"checks": []})["checks"] if stage else []
    if stage is None or not checks:
        return None
    rows = tuple(
        (str(c["attempt"] + 1), f"{c['num_images']:,}", *(number(c[name], 2) for name in _MEASURES), c["finding"])
        for c in checks
    )
    header = ("Attempt", "Real images shown", *(metric_name(name) for name in _MEASURES), "Finding")
    return Table(f"Every check, {stage.title}.", header, rows)


def arms_table(run: Run) -> Table:
    """Arms by metrics on the test patients, disease against the rest, mean over fits with interval."""
    rows = mean_rows(run.metrics, "test")
    rows = rows[rows["label"] == disease_label(run)]
    rows = rows[rows["metric"].isin(_MAIN)]
    return _by_arm(run, rows, f"{_disease_words(run)}: mean over fits (interval), test patients.", explain=True)


def more_figures_table(run: Run) -> Table:
    """The remaining figures of the same rows: predictive values, AUPRC and calibration."""
    rows = mean_rows(run.metrics, "test")
    rows = rows[(rows["label"] == disease_label(run)) & ~rows["metric"].isin(_MAIN)]
    return _by_arm(run, rows, "Predictive values, average precision and calibration, test patients.", explain=False)


def external_table(run: Run) -> Table:
    """Arms by metrics at the external site; empty without one."""
    rows = mean_rows(run.metrics, "external")
    rows = rows[(rows["label"] == disease_label(run)) & rows["metric"].isin(_MAIN)]
    return _by_arm(run, rows, "At the external site, with the same classifiers and thresholds.", explain=False)


def patients_table(run: Run) -> Table:
    """Arms by metrics with one patient counting once; empty where every patient has one image."""
    rows = run.metrics[(run.metrics["subgroup"] == PER_PATIENT) & (run.metrics["fold"] == "")]
    rows = rows[rows["metric"].isin(_MAIN) & (rows["split"] == "test")]
    caption = "Patient by patient: the mean score of a patient's images; diseased if any of them is."
    return _by_arm(run, rows, caption, explain=False)


def classes_table(run: Run) -> Table:
    """The same for each class against the rest and their mean; empty for two classes."""
    rows = mean_rows(run.metrics, "test")
    rows = rows[(rows["label"] != disease_label(run)) & rows["metric"].isin(_MAIN)]
    return _by_arm(
        run, rows, "Each class against the rest, and macro (mean over classes): test patients.", explain=False
    )


def reverse_table(run: Run) -> Table:
    """Arms trained on real images, tested on synthetic ones: mean and range over fits."""
    rows = fit_rows(run.metrics, "synthetic")
    found = []
    for (arm, label, metric), own in rows.groupby(["arm", "label", "metric"], sort=True):
        values = own["value"]
        spread = f"{number(values.min())} to {number(values.max())}"
        found.append(
            (arm_title(str(arm)), str(label), metric_name(str(metric)), number(values.mean()), spread, str(len(own)))
        )
    header = ("Arm", "Class", "Figure", "Mean over fits", "Lowest to highest", "Fits")
    return Table("Trained on real, tested on synthetic images; no patients, so no interval.", header, tuple(found))


def _by_arm(run: Run, rows: pd.DataFrame, caption: str, *, explain: bool) -> Table:
    metrics = [name for name in METRIC_NAMES if (rows["metric"] == name).any()]
    rows = rows[rows["metric"].isin(metrics)]
    found = []
    for arm in ordered_arms(run, rows["arm"]):
        of_arm = rows[rows["arm"] == arm]
        for label in dict.fromkeys(of_arm["label"]):
            own = of_arm[of_arm["label"] == label]
            lead = f"{arm_title(arm)}\n{arm_explained(arm) if explain else label}"
            found.append((lead, *(_cell(own[own["metric"] == name]) for name in metrics), _patients(own)))
    header = ("Arm" if explain else "Arm, class", *(metric_name(name) for name in metrics), "Patients (images)")
    return Table(caption, header, tuple(found), tight=True)


def _cell(rows: pd.DataFrame) -> str:
    return "\n".join(_with_shown(rows)["shown"]).replace(" (", "\n(") or "–"


def _patients(rows: pd.DataFrame) -> str:
    return "; ".join(sorted(set(_with_shown(rows)["people"]))) or "–"


def _with_shown(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of metrics.csv with two columns more: `shown`, value and interval, and `people`, patients (images)."""
    records = rows.to_dict("records")
    return rows.assign(
        shown=[with_interval(row["value"], row["ci_low"], row["ci_high"]) for row in records],
        people=[f"{row['n_patients'] or '–'} ({row['n_images'] or '–'})" for row in records],
    )


def _text_rows(table: pd.DataFrame, columns: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(str(cell) for cell in row) for row in table[list(columns)].itertuples(index=False, name=None))


def _disease_words(run: Run) -> str:
    data = run.experiment.data
    return f"Disease ({', '.join(data.positive)}) against the rest ({', '.join(data.negative)})"


_ANOMALY_COLUMNS = {
    "AUROC (interval)": "auroc",
    "AUPRC": "auprc",
    "Sensitivity at 90 % specificity": "sensitivity@0.9",
    "at 95 %": "sensitivity@0.95",
    "False alarms": "false_alarms",
}
_PIXEL_COLUMNS = {"Pixel AUROC": "pixel_auroc", "AUPRO": "aupro", "Dice": "dice"}


def anomaly_table(run: Run) -> Table:
    """Figures of the detectors, patient by patient, one row a detector; those of their maps where masks are known."""
    rows = run.metrics[(run.metrics["stage"] == "anomaly") & (run.metrics["fold"] == "")]
    shown = _with_shown(rows).set_index(["arm", "metric"])["shown"].to_dict()
    against = rows[rows["metric"] == "auroc_difference"].set_index("arm")["detail"].to_dict()
    columns = _ANOMALY_COLUMNS | (_PIXEL_COLUMNS if rows["metric"].isin(list(_PIXEL_COLUMNS.values())).any() else {})
    cells = tuple(
        (detector_named(arm), *(shown.get((arm, metric), "") for metric in columns.values()), against.get(arm, ""))
        for arm in dict.fromkeys(rows["arm"])
    )
    return Table("Anomaly detectors: normal against abnormal patients.", ("Detector", *columns, "Verdict"), cells)


def audit_rows(run: Run) -> pd.DataFrame:
    """Rows of the audit, the gravest first."""
    audit = run.only("split").table(AUDIT, ("check", "severity", "count", "detail")).drop_duplicates()
    rank = audit["severity"].map({name: index for index, name in enumerate(_SEVERITIES)}).fillna(len(_SEVERITIES))
    return audit.assign(rank=rank).sort_values("rank", kind="stable").drop(columns="rank")


def audit_table(run: Run, *, faults: bool = False) -> Table:
    """All checks of the data, coloured by severity; or those that found a fault."""
    rows = audit_rows(run)
    rows = rows[rows["severity"].isin(["error", "warning"])] if faults else rows
    tones = tuple({"error": "bad", "warning": "caution"}.get(severity, "") for severity in rows["severity"])
    rows = rows.assign(check=rows["check"].str.replace("_", " "))
    columns = ("severity", "check", "count", "detail")
    header = tuple(name.capitalize() for name in columns)
    caption = "What the checks of the data found" if faults else "Checks of the data"
    return Table(f"{caption}, before anything was trained.", header, _text_rows(rows, columns), tones)


def look_table(ledger: pd.DataFrame) -> Table:
    """The looks at test patients, whatever columns the ledger has."""
    header = tuple(metric_name(name) for name in ledger.columns)
    return Table(
        "Every look at any of these patients, over all runs that share the cache.",
        header,
        _text_rows(ledger, list(ledger.columns)),
    )


def stages_table(run: Run) -> Table:
    """Time, memory and device of each stage."""
    rows = []
    for stage in run.stages:
        record = stage.record
        cost = (number(record.wall_s, 1), number(record.peak_mib, 0))
        rows.append((stage.name, *cost, record.device, record.precision, record.finished))
    header = ("Stage", "Time (s)", "Peak memory (MiB)", "Device", "Precision", "Finished")
    return Table("Stages of the run; a stage kept from an earlier run shows its own time.", header, tuple(rows))


def versions_table(run: Run) -> Table:
    """Versions of the software that made the stages."""
    found: dict[str, set[str]] = {}
    for stage in run.stages:
        for name, version in stage.record.versions.items():
            found.setdefault(name, set()).add(version)
    rows = tuple((name, ", ".join(sorted(versions))) for name, versions in sorted(found.items()))
    return Table("Software.", ("Package", "Version"), rows)


def all_means_table(run: Run) -> Table:
    """Every row of metrics.csv that is a mean over fits, as it stands there."""
    rows = run.metrics[(run.metrics["fold"] == "") & (run.metrics["seed"] == "")]
    columns = ("stage", "arm", "split", "label", "subgroup", "metric", "shown", "n_patients", "n_images", "detail")
    header = ("Stage", "Arm", "Split", "Class", "Subgroup", "Metric", "Value", "Patients", "Images", "Detail")
    caption = "All means over fits; metrics.csv also has every single fit."
    return Table(caption, header, _text_rows(_with_shown(rows), columns))
