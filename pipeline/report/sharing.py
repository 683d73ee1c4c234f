"""What a shareable report must leave out: every real image, every id, every path."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from pipeline.config.data import NpzSource, Source
from pipeline.config.experiment import Experiment
from pipeline.config.fetch import FetchConfig
from pipeline.config.loading import dump_experiment
from pipeline.core.layout import REJECTED
from pipeline.report.reading import Run

WITHHELD = "(withheld: it may name a patient, an image or a file)"
_ID_COLUMNS = ("image_id", "path", "patient_id", "series_id", "study_id", "mask")
_SPLITS = ("train", "val", "test", "unused", "unlabelled", "used", "external")
_SOURCE_KEYS = ("path", "labels", "patient_pattern")


class Redaction:
    """Replaces a text that contains one of `identifiers`; whole numbers below 10,000 are not taken for ids."""

    def __init__(self, identifiers: Iterable[str]) -> None:
        self._identifiers = sorted({name for name in identifiers if name and not _is_small_number(name)})

    def __call__(self, text: str) -> str:
        return WITHHELD if any(_contains(text, name) for name in self._identifiers) else text


def redaction(run: Run, *, shareable: bool) -> Redaction:
    """Redaction for the report: of nothing, or of all ids, paths and file names of the run."""
    if not shareable:
        return Redaction(())
    found: set[str] = set()
    for table in (run.manifest, run.only("ingest").table(REJECTED)):
        for column in _ID_COLUMNS:
            if column in table.columns:
                found.update(table[column])
        if "files" in table.columns:  # slices that a reason names
            found.update(name for names in table["files"] for name in names.split("/"))
    for source in run.experiment.data.every_source.values():
        found.update(str(getattr(source, key, "")) for key in ("path", "labels"))
    files = {part for name in found for part in (PurePosixPath(name).name, PurePosixPath(name).stem)}
    return Redaction((found | files) - {*_SPLITS, *run.experiment.data.classes})


def config_without_paths(experiment: Experiment) -> str:
    """The resolved configuration as YAML, without the names of folders and files and without patient ids."""
    data = experiment.data
    if data.source is not None:
        data = data.model_copy(update={"source": _withheld(data.source)})
    sites = {name: one.model_copy(update={"source": _withheld(one.source)}) for name, one in data.sources.items()}
    data = data.model_copy(update={"sources": sites})
    if data.external is not None:
        site = data.external.model_copy(update={"source": _withheld(data.external.source)})
        data = data.model_copy(update={"external": site})
    if data.patient_register is not None:
        data = data.model_copy(update={"patient_register": "(withheld)"})
    gan = experiment.gan
    if gan.start_from is not None:
        gan = gan.model_copy(update={"start_from": "(withheld)"})
    quality = experiment.quality
    if quality.extractor.endswith(".pt"):
        quality = quality.model_copy(update={"extractor": "(withheld)"})
    notify = experiment.notify.model_copy(update={"webhook": WITHHELD if experiment.notify.webhook else ""})
    hidden = {"data": data, "gan": gan, "quality": quality, "notify": notify, "fetch": FetchConfig()}
    return dump_experiment(experiment.model_copy(update=hidden))


def _withheld(source: Source) -> Source:
    hidden: dict[str, object] = {key: "(withheld)" for key in _SOURCE_KEYS if getattr(source, key, "")}
    if isinstance(source, NpzSource):
        hidden["patients"] = dict.fromkeys(source.patients, "(withheld)")
    return source.model_copy(update=hidden)


def _is_small_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and str(int(name)) == name and len(name) < 5


def _contains(text: str, name: str) -> bool:
    return name in text and re.search(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", text) is not None
