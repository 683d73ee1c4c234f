"""`report.html` and `summary.html`: self-contained files, and their pictures, from the run's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.core.files import atomic_path, clear_disk_errors, write_text
from pipeline.core.layout import FIGURES, REPORT, SHAREABLE_REPORT, SHAREABLE_SUMMARY, SUMMARY
from pipeline.core.patients import num_known
from pipeline.report import quality_tables, subgroup_tables, tables, verdict_tables
from pipeline.report.anomaly_parts import worklist_table
from pipeline.report.glossary import terms_in
from pipeline.report.picture import Picture
from pipeline.report.pictures import all_pictures, reliability_sentence
from pipeline.report.privacy_tables import attacks_table, certificate_table, guesses_table, memorisation_table
from pipeline.report.reading import Run, read_run
from pipeline.report.representation_tables import representations_table
from pipeline.report.sharing import WITHHELD, Redaction, config_without_paths, redaction
from pipeline.report.summary import summary_parts
from pipeline.report.words import count, memorisation_sentence, release_statement, utility_statement

Tables = dict[str, tables.Table | None]
_CONTENTS = (
    ("verdicts", "Verdicts"),
    ("data", "Data"),
    ("images", "Images"),
    ("quality", "Image quality"),
    ("training", "GAN training"),
    ("arms", "Classifiers"),
    ("reached", "How the verdict was reached"),
    ("anomaly", "Anomaly detectors"),
    ("memorisation", "Privacy"),
    ("audit", "Audit"),
    ("ledger", "Looks at the test patients"),
    ("again", "How it was made"),
    ("glossary", "Glossary"),
)
"""Sections of the template, and what the contents call them."""


def write_report(run_dir: Path, *, shareable: bool = False) -> Path:
    """Make the report of a finished run and its summary on one page from its files, and give the report's path.

    The confidential report (`report.html`) shows real images and also leaves its pictures in `figures/*.png`. The
    shareable one (`report-shareable.html`) has no image at all, real or synthetic (a synthetic image may be a copy of
    a real one), no id and no path, and writes no picture file. The summary (`summary.html`, `summary-shareable.html`)
    has the difference drawn, and no other picture.

    Raises:
        UserError: a file of the run is missing, or has not the columns that it should have; the message names it.
    """
    run = read_run(run_dir)
    redact = redaction(run, shareable=shareable)
    made_tables = _tables(run, redact, shareable=shareable)
    pictures = all_pictures(run, shareable=shareable)
    html = _render(run, redact, made_tables, pictures, shareable=shareable)
    place = run_dir / (SHAREABLE_REPORT if shareable else REPORT)
    parts = summary_parts(run, _summary(run), pictures, redaction(run, shareable=True), shareable=shareable)
    summary = templates().get_template("summary.html.j2").render(parts)
    with clear_disk_errors(run_dir):
        if not shareable:
            _write_pictures(run_dir / FIGURES, pictures)
        write_text(run_dir / (SHAREABLE_SUMMARY if shareable else SUMMARY), summary)
        write_text(place, html)
    return place


def _write_pictures(folder: Path, pictures: dict[str, Picture]) -> None:
    """Leave exactly these pictures in `folder`; those of an earlier report go."""
    for name, picture in pictures.items():
        with atomic_path(folder / f"{name}.png") as temporary:
            temporary.write_bytes(picture.png)
    for old in folder.glob("*.png"):
        if old.stem not in pictures:
            old.unlink()


def _render(run: Run, redact: Redaction, made_tables: Tables, pictures: dict[str, Picture], *, shareable: bool) -> str:
    experiment = run.experiment
    page = templates().get_template("template.html.j2")
    return page.render(
        made_tables,
        run=run,
        experiment=experiment,
        shareable=shareable,
        phantoms=experiment.data.simulated,
        finished=max((stage.record.finished for stage in run.stages), default="")
        .replace("T", " ")
        .replace("+00:00", " UTC"),
        summary=_summary(run),
        looks=[redact(sentence) for sentence in (run.verdict["looks"]["sentences"] if "looks" in run.verdict else ())],
        verdicts=_verdicts(run, redact),
        warnings=_warnings(run, redact),
        notes=_notes(run, redact, of_anomaly=False),
        anomaly_notes=_notes(run, redact, of_anomaly=True),
        memory=_memory(run),
        pictures=pictures,
        sweeps=[picture for name, picture in pictures.items() if name.startswith("sweep-")],
        strips=[picture for name, picture in pictures.items() if name.startswith("film-strip")],
        quality_absent=quality_tables.quality_sentence(run),
        methods=verdict_tables.methods_sentence(run),
        num_gans=len(run.of_kind("fit-gan")),
        config=config_without_paths(experiment) if shareable else run.config_text,
        terms_in=terms_in,
        contents=_CONTENTS,
        plan=verdict_tables.plan_lines(run),
        reliability_absent=reliability_sentence(run),
    )


def templates(*others: Path) -> Environment:
    """The pages' templates, and those in folders of `others`; they escape what they are given."""
    return Environment(
        loader=FileSystemLoader([Path(__file__).parent, *others]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _tables(run: Run, redact: Redaction, *, shareable: bool) -> Tables:
    made = {
        "data": tables.data_table(run),
        "fates": tables.fate_table(run),
        "rejected": tables.rejected_table(run),
        "quality": quality_tables.quality_table(run),
        "quality_classes": quality_tables.quality_classes_table(run),
        "translations": quality_tables.translation_table(run),
        "quality_gans": quality_tables.quality_gans_table(run),
        "watch": tables.watch_table(run),
        "checks": tables.checks_table(run),
        "arms": tables.arms_table(run),
        "classes": tables.classes_table(run),
        "representations": representations_table(run),
        "more_figures": tables.more_figures_table(run),
        "patients": tables.patients_table(run),
        "rule": verdict_tables.rule_table(run),
        "comparisons": verdict_tables.comparisons_table(run),
        "tests": verdict_tables.side_tests_table(run),
        "generators": verdict_tables.generators_table(run),
        "sites": subgroup_tables.sites_table(run.metrics),
        "subgroups": subgroup_tables.subgroup_table(run.metrics),
        "probe": subgroup_tables.probe_table(run.metrics),
        "guard": subgroup_tables.guard_table(run.metrics),
        "external": tables.external_table(run),
        "checklist": verdict_tables.checklist_table(run),
        "reverse": tables.reverse_table(run),
        "anomaly": tables.anomaly_table(run),
        "worklist": None if shareable else worklist_table(run),
        "attacks": attacks_table(run),
        "guesses": guesses_table(run),
        "certificate": certificate_table(run),
        "memorisation": memorisation_table(run),
        "audit": tables.audit_table(run),
        "audit_found": tables.audit_table(run, faults=True),
        "ledger": None if run.ledger is None else tables.look_table(run.ledger),
        "stages": tables.stages_table(run),
        "versions": tables.versions_table(run),
        "all_means": tables.all_means_table(run),
    }
    return {name: table.redacted(redact) if table else None for name, table in made.items()}


def _verdicts(run: Run, redact: Redaction) -> list[dict[str, Any]]:
    statements = (utility_statement(run.verdict["utility"]), release_statement(run.verdict["release"]))
    return [
        {
            "question": question,
            "tone": statement.tone,
            "title": statement.title,
            "sentences": statement.sentences,
            "reasons": [redact(str(reason)) for reason in statement.reasons],
        }
        for question, statement in zip(("Does it help?", "May it leave the building?"), statements, strict=True)
    ]


def _warnings(run: Run, redact: Redaction) -> list[str]:
    """The audit's errors and warnings as sentences, confounders first."""
    rows = tables.audit_rows(run)
    rows = rows[rows["severity"].isin(["error", "warning"])]
    texts = [(row["check"].replace("_", " "), redact(row["detail"])) for row in rows.to_dict("records")]
    ordered = sorted(texts, key=lambda text: "confound" not in text[0].lower())
    return [f"{check}: {detail}" if detail in ("", WITHHELD) else detail for check, detail in ordered]


def _notes(run: Run, redact: Redaction, *, of_anomaly: bool) -> list[str]:
    """Notes of the stages' records, each once: those of the detectors, which have a section, or all others."""
    notes = (
        note
        for stage in run.stages
        if (stage.kind in ("detect", "fit-normals", "shift")) == of_anomaly
        for note in stage.record.notes
    )
    told = set(tables.audit_rows(run)["detail"])
    return list(dict.fromkeys(redact(_sentence(note)) for note in notes if note not in told))


def _sentence(note: str) -> str:
    """With a capital, unless it begins with a name such as real+classical or follow_up."""
    return note[:1].upper() + note[1:] if note.split(" ")[0].isalpha() else note


def _memory(run: Run) -> list[str]:
    """What the memorisation figures say, generator by generator."""
    said = ((stage.title, memorisation_sentence(stage.record.figures)) for stage in run.of_kind("privacy"))
    return [f"{title[0].upper()}{title[1:]}: {sentence}" for title, sentence in said if sentence]


def _summary(run: Run) -> str:
    """The data in one line."""
    data = run.experiment.data
    used = run.manifest[run.manifest["fate"] == "used"]
    patients = num_known(used)
    people = count(patients, "patient") if patients else "patients unknown"
    shape = " × ".join(str(side) for side in data.shape)
    return (
        f"{count(len(used), 'image')} ({people}), {count(len(data.classes), 'class')} ({', '.join(data.classes)}; "
        f"disease side: {', '.join(data.positive)}), {data.spatial_dims}D at {shape}, source: {data.kind_words}"
    )
