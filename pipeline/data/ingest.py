"""Ingest: every image is read once, looked at, and becomes a row of the manifest or of the rejected list."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field

from pipeline.config.data import CsvSource, DataConfig, DicomSource, ExternalConfig, NpzSource, PhantomSource, Source
from pipeline.config.loading import data_root
from pipeline.config.section import Section
from pipeline.core.errors import ConfigError, DataError
from pipeline.core.files import digest_file, digest_json
from pipeline.core.layout import AUDIT, MANIFEST, REJECTED
from pipeline.core.records import Record
from pipeline.data.batches.dataset import write_table
from pipeline.data.cohort.arriving import (
    ARRIVING,
    arriving_rows,
    refuse_young_tables,
    require_some,
    set_apart,
    without_studies,
    young_files,
)
from pipeline.data.cohort.audit import audit_manifest
from pipeline.data.cohort.audit_rows import Row, audit_table
from pipeline.data.cohort.duplicates import near_groups
from pipeline.data.cohort.identities import largest_patient, refuse_one_patient, void_headers, with_patients
from pipeline.data.cohort.manifest import EXTERNAL, REJECTED_COLUMNS, row_dicts, shown, validate_manifest
from pipeline.data.cohort.several import refuse_units, with_site
from pipeline.data.cohort.sources import ImageReader, SourceRows, read_source, source_files, source_root
from pipeline.data.cohort.units import SIDES_KNOWN, UNIT_FROM, require_one_unit, unit_rows
from pipeline.data.looking import Look
from pipeline.data.many_images import on_every_image

if TYPE_CHECKING:
    from pipeline.config.experiment import Experiment

EXTERNAL_PREFIX, EXTERNAL_ROOT, SITES = "external-", "external", "sites"


class IngestConfig(Section):
    """What decides the manifest.

    Attributes:
        root: absolute folder that the manifest's paths start from; "" for phantoms, whose root is ingest's directory.
        labels: absolute path of a DICOM source's label table, else "".
        names: of a site: its label -> class, "" = left out; empty = its labels are the classes.
        key: the configuration's, for messages.
        external: the external site, if there is one.
        sites: in place of one source, several by name.
        young: names, from the root, of files that changed a moment ago: what belongs to them waits for a later run.
    """

    source: Source | None
    spatial_dims: int
    classes: tuple[str, ...]
    max_rejected: float
    root: str
    labels: str = ""
    names: dict[str, str] = Field(default_factory=dict)
    key: str = "data"
    external: IngestConfig | None = None
    sites: dict[str, IngestConfig] = Field(default_factory=dict)
    young: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        if self.source is None:
            return "data.sources"
        return "phantoms" if isinstance(self.source, PhantomSource) else self.source.path


def ingest_config(experiment: Experiment) -> IngestConfig:
    """The ingest section of `experiment`, its relative paths resolved against `RADAUG_DATA`."""
    data = experiment.data
    external = None if data.external is None else _site_config(data, data.external, "data.external")
    sites = {name: _site_config(data, site, f"data.sources.{name}") for name, site in data.sources.items()}
    return _source_config(data, data.source).model_copy(update={"external": external, "sites": sites})


def settled_config(experiment: Experiment) -> IngestConfig:
    """The ingest section, with the files that still arrive, where `data.settle_seconds` asks for them."""
    config, settle = ingest_config(experiment), experiment.data.settle_seconds
    external = config.external and _with_young(config.external, settle)
    sites = {name: _with_young(site, settle) for name, site in config.sites.items()}
    return _with_young(config, settle).model_copy(update={"external": external, "sites": sites})


def _with_young(config: IngestConfig, settle_seconds: float) -> IngestConfig:
    if settle_seconds == 0 or config.source is None or isinstance(config.source, PhantomSource):
        return config
    with suppress(DataError):  # ingest says what is wrong with the source
        files = source_files(config.source, Path(config.root), _labels(config))
        return config.model_copy(update={"young": young_files(files, Path(config.root), settle_seconds)})
    return config


def _site_config(data: DataConfig, site: ExternalConfig, key: str) -> IngestConfig:
    return _source_config(data, site.source).model_copy(update={"names": dict(site.labels), "key": key})


def _source_config(data: DataConfig, source: Source | None) -> IngestConfig:
    base = data_root()
    if isinstance(source, DicomSource) and source.unit == "series" and data.spatial_dims == 2:
        raise ConfigError("data.source.unit: series makes volumes. Set data.spatial_dims to 3, or the unit to file.")
    root = None if source is None else source_root(source, base)
    labels = base / source.labels if isinstance(source, DicomSource) else None
    return IngestConfig(
        source=source,
        spatial_dims=data.spatial_dims,
        classes=data.classes,
        max_rejected=data.max_rejected,
        root=str(root) if root else "",
        labels=str(labels.parent.resolve() / labels.name) if labels else "",
    )


def source_digest(config: IngestConfig) -> str:
    """Digest of what ingest would read: names, sizes and times of the images, and the content of label tables."""
    if config.external is not None:
        alone = config.model_copy(update={"external": None})
        return digest_json([source_digest(alone), source_digest(config.external)])
    if config.source is None:
        return digest_json({name: source_digest(site) for name, site in config.sites.items()})
    if isinstance(config.source, PhantomSource):
        return digest_json(config.source.model_dump(mode="json"))
    root, labels = Path(config.root), _labels(config)
    listed: dict[str, object] = {}
    for path in source_files(config.source, root, labels):
        name = path.name if path == labels else os.path.relpath(path, root)
        if not path.is_file():
            listed[name] = None
        elif path.suffix == ".csv":
            listed[name] = digest_file(path)
        else:
            status = path.stat()
            listed[name] = (status.st_size, status.st_mtime_ns)
    return digest_json(listed)


def run(config: IngestConfig, inputs: Mapping[str, Path], out_dir: Path) -> Record:
    """Write manifest.csv, rejected.csv and audit.csv (and, for phantoms, the cohort's files).

    An external site becomes external.csv, of the same form; its image ids begin with `external-`. Of several sites that
    train together the ids of images and patients begin with the site's name, and the column `site` has it.

    Raises:
        DataError: the source as a whole is wrong, or more images than `max_rejected` cannot be used.
    """
    manifest, rejected, notes = joined(config, out_dir) if config.sites else read_one(config, out_dir)
    refuse_one_patient(manifest, config.where)
    unusable = rejected[rejected["reason"] != ARRIVING]
    audit = pd.concat([audit_table(notes), audit_manifest(manifest, unusable, config.classes)], ignore_index=True)
    write_table(out_dir / MANIFEST, manifest)
    if config.external is not None:
        site, theirs = _read_site(config.external, out_dir / EXTERNAL_ROOT)
        if {*site["image_id"], *theirs["image_id"]} & {*manifest["image_id"], *rejected["image_id"]}:
            raise DataError(f"{config.where}: rename the images whose names begin with {EXTERNAL_PREFIX}.")
        write_table(out_dir / EXTERNAL, site)
        rejected = pd.concat([rejected, theirs], ignore_index=True)
    write_table(out_dir / REJECTED, rejected)
    write_table(out_dir / AUDIT, audit)
    warnings = tuple(audit["detail"][audit["severity"] == "warning"])
    waiting = int((rejected["reason"] == ARRIVING).sum())
    figures = {"images": len(manifest), "rejected": len(rejected) - waiting}
    figures |= {"labelled": int((manifest["label"] != "").sum())} | ({"arriving": waiting} if waiting else {})
    return Record("ingest", figures=figures, notes=warnings)


def read_one(config: IngestConfig, own_root: Path) -> tuple[pd.DataFrame, pd.DataFrame, list[Row]]:
    """The manifest, the rejected images and further audit rows of one source; `own_root` is for phantoms."""
    assert config.source is not None
    root = Path(config.root) if config.root else own_root
    classes = tuple(config.names) or config.classes
    threads = torch.get_num_threads()
    refuse_young_tables(_tables(config), root, config.young)
    rows = read_source(config.source, root, _labels(config), classes, config.spatial_dims, threads)
    rows, apart, studies = set_apart(rows, root, config.young)
    require_some(rows.table, apart, config.where)
    if config.names:
        rows = replace(rows, table=_renamed(rows.table, config))
    manifest, rejected = _look(
        rows, ImageReader(root, config.spatial_dims), getattr(config.source, "unit_of_values", None) or ""
    )
    _check_rejected(config, len(manifest), rejected)
    manifest, apart = without_studies(manifest, apart, studies)
    require_some(manifest, apart, config.where)
    rejected = pd.concat([rejected, apart], ignore_index=True).fillna("")
    voided = void_headers(manifest)
    manifest = with_patients(manifest, config.where, from_headers=isinstance(config.source, DicomSource))
    require_one_unit(manifest, config.where)
    notes = [*rows.notes, *arriving_rows(len(apart)), *voided, *largest_patient(manifest), *unit_rows(manifest)]
    manifest = manifest.drop(columns=[UNIT_FROM, SIDES_KNOWN])
    validate_manifest(manifest, config.classes, config.where, every_class=not config.key.startswith("data.sources"))
    return manifest, rejected, notes


def joined(config: IngestConfig, own_root: Path) -> tuple[pd.DataFrame, pd.DataFrame, list[Row]]:
    """The same of several sites, one after the other, under ids of their own.

    Raises:
        DataError: a class is at no site, or one site's values are in HU and another's not.
    """
    parts = {name: read_one(site, own_root / SITES / name) for name, site in config.sites.items()}
    rows = [with_site(manifest, name) for name, (manifest, _, _) in parts.items()]
    manifest = pd.concat(rows, ignore_index=True).fillna("")
    refuse_units(manifest)
    validate_manifest(manifest, config.classes, config.where)
    unusable = [rejected.assign(image_id=f"{name}-" + rejected["image_id"]) for name, (_, rejected, _) in parts.items()]
    rejected = pd.concat(unusable, ignore_index=True).fillna("")
    notes: list[Row] = [
        (check, severity, count, f"{name}: {detail}")
        for name, (_, _, found) in parts.items()
        for check, severity, count, detail in found
    ]
    return manifest, rejected, notes


def _renamed(table: pd.DataFrame, config: IngestConfig) -> pd.DataFrame:
    """Rows whose label is a class of ours, by our name for it; the others are left out."""
    unknown = sorted(set(table["label"]) - {*config.names, ""})
    if unknown:
        which = "external site" if config.key == "data.external" else "site"
        raise DataError(
            f"{config.where}: {len(unknown)} label(s) of the {which} are not in {config.key}.labels "
            f"{list(config.names)}: {shown(unknown)}. Name a class for each, or an empty name to leave its images out."
        )
    label = table["label"].map(config.names).fillna("")
    kept = (label != "") | (table["label"] == "")  # without a label of its own it is an unlabelled image
    return table.assign(label=label)[kept].reset_index(drop=True)


def _read_site(config: IngestConfig, own_root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The external site's labelled images and its rejected ones, under ids of their own."""
    site, rejected, _ = read_one(config, own_root)
    site = site[site["label"] != ""].reset_index(drop=True)
    if isinstance(config.source, PhantomSource):
        site["patient_id"] = EXTERNAL_PREFIX + site["patient_id"]  # all cohorts count their patients from 1
    near = site["near_group"].mask(site["near_group"] != "", EXTERNAL_PREFIX + site["near_group"])
    return (
        site.assign(image_id=EXTERNAL_PREFIX + site["image_id"], near_group=near),
        rejected.assign(image_id=EXTERNAL_PREFIX + rejected["image_id"]),
    )


def _tables(config: IngestConfig) -> list[Path]:
    """Files that name or hold all images: half of one is worse than none."""
    if isinstance(config.source, CsvSource | NpzSource):
        return [Path(config.root) / Path(config.source.path).name]
    return [Path(config.labels)] if config.labels else []


def _labels(config: IngestConfig) -> Path | None:
    return Path(config.labels) if config.labels else None


def _look(rows: SourceRows, reader: ImageReader, told: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The manifest with what the images say, and the list of rejected ones; `told` is the unit that the user names."""
    kept: list[dict[str, str]] = []
    thumbnails: list[NDArray[np.float32]] = []
    rejected = [dict(zip(REJECTED_COLUMNS, row, strict=True)) for row in rows.rejected.itertuples(index=False)]
    records = row_dicts(rows.table)
    paths = [reader.root / row["path"] for row in records]
    with on_every_image("ingest", Look(reader, told), records, paths) as looks:
        for row, small in looks:
            if small is None:
                rejected.append(row)
            else:
                kept.append(row)
                thumbnails.append(small)
    manifest = pd.DataFrame(kept, dtype=str).fillna("")
    if kept:
        groups = near_groups(np.stack(thumbnails))
        manifest["near_group"] = ["" if group < 0 else f"near-{group:04d}" for group in groups]
    return manifest, pd.DataFrame(rejected, columns=[*REJECTED_COLUMNS, "files"], dtype=str).fillna("")


def _check_rejected(config: IngestConfig, kept: int, rejected: pd.DataFrame) -> None:
    total = kept + len(rejected)
    if total and kept and len(rejected) <= config.max_rejected * total:
        return
    alike = rejected["reason"].str.replace(r"[\w.-]*\d[\w.]*", "#", regex=True)  # but for the figures and names in them
    first = dict(zip(reversed(list(alike)), reversed(list(rejected["reason"])), strict=True))
    reasons = "; ".join(f"{count} x {first[kind]}" for kind, count in Counter(alike).most_common(5))
    starts = f" Paths start at {config.root}." if rejected["reason"].str.contains("check the path").any() else ""
    raise DataError(
        f"{config.where}: {len(rejected)} of {total} images cannot be used, and data.max_rejected allows "
        f"{config.max_rejected:.0%}. Reasons: {reasons}. The first: {', '.join(rejected['path'][:3])}.{starts}"
    )
