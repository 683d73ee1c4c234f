"""Prepare: one array of one size, as every network reads it. Raw files are never copied."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from pipeline.config.data import CropConfig
from pipeline.config.section import Section
from pipeline.core.errors import DataError
from pipeline.core.layout import IMAGES, MANIFEST, MASKS
from pipeline.core.records import Record
from pipeline.data.batches.dataset import new_array, read_table, write_table
from pipeline.data.batches.scaling import Scaling
from pipeline.data.cohort.manifest import row_dicts
from pipeline.data.cohort.sources import ImageReader
from pipeline.data.geometry import geometry
from pipeline.data.ingest import EXTERNAL_ROOT, SITES, ingest_config
from pipeline.data.many_images import on_every_image
from pipeline.data.placing import EXTERNAL, ONE_SOURCE, Placing, place_of
from pipeline.data.resampling import Floats

if TYPE_CHECKING:
    from pipeline.config.experiment import Experiment

CT_WINDOW = (-1000.0, 1000.0)
GREY_WINDOW = (0.0, 255.0)
_INT16 = np.iinfo(np.int16)


class PrepareConfig(Section):
    """What decides the arrays.

    Attributes:
        shape: `*spatial` of every image.
        window: as in `data.window`.
        spacing: mm per voxel on each axis, or None.
        root: as in `IngestConfig`.
        external_root: the external site's; None = there is no such site.
        site_roots: of several sites in place of one source.
    """

    spatial_dims: int
    shape: tuple[int, ...]
    window: tuple[float, float] | Literal["image"] | None
    spacing: tuple[float, ...] | None
    crop: CropConfig | None
    fit: Literal["pad", "stretch"]
    root: str
    external_root: str | None = None
    site_roots: dict[str, str] = Field(default_factory=dict)


def prepare_config(experiment: Experiment) -> PrepareConfig:
    """The prepare section of `experiment`."""
    data, spacing, source = experiment.data, experiment.data.spacing, ingest_config(experiment)
    return PrepareConfig(
        spatial_dims=data.spatial_dims,
        shape=data.shape,
        window=data.window,
        spacing=(spacing,) * data.spatial_dims if isinstance(spacing, float) else spacing,
        crop=data.crop,
        fit=data.fit,
        root=source.root,
        external_root=None if source.external is None else source.external.root,
        site_roots={name: site.root for name, site in source.sites.items()},
    )


def run(config: PrepareConfig, inputs: Mapping[str, Path], out_dir: Path) -> Record:
    """Write a data set of every image whose fate is `used`, in the manifest's order, the external site's included.

    Values are clipped to the window before anything else, so that its lowest value can stand for all that is outside.

    Raises:
        DataError: a file is not what ingest saw, a mask or point does not fit its image, no image is used, or the
            external site's values are of another kind.
    """
    started = time.monotonic()
    table = read_table(inputs["split"] / MANIFEST)
    table = table[table["fate"] == "used"].drop(columns="fate").reset_index(drop=True)
    if table.empty:
        raise DataError("prepare: the manifest has no image whose fate is 'used'.")
    outside = table["split"] == "external"
    scaling = choose_scaling(table["values"][~outside], config.window)
    _require_same_kind(scaling, table["values"][outside])
    affines = _write_arrays(config, table, scaling, _readers(config, inputs["ingest"]), out_dir)
    write_table(out_dir / MANIFEST, _placed(table, affines, config.spatial_dims))
    return Record(
        "prepare",
        figures={"images": len(table), "shape": list(config.shape), "seconds": round(time.monotonic() - started, 2)},
        notes=_notes(config, table),
        extra={"scaling": scaling.as_json()},
    )


def choose_scaling(values: pd.Series, window: tuple[float, float] | Literal["image"] | None) -> Scaling:
    """How images are stored: HU as int16, 8-bit images as uint8, others as float16 in [0, 1] of their own percentiles.

    Args:
        values: the manifest's column: uint8, HU or other.
        window: as in `data.window`; a numeric one keeps other images' own numbers, as float32.
    """
    kinds = set(values)
    if window == "image" or (window is None and "other" in kinds):
        return Scaling(1.0, 0.0, "none", (0.0, 1.0), "float16")
    if kinds == {"uint8"}:
        low, high = window or GREY_WINDOW
        return Scaling(1.0, 0.0, "none", (low, high), "uint8" if low >= 0 and high <= 255 else "float32")
    if kinds == {"HU"}:
        low, high = window or CT_WINDOW
        fits = low >= _INT16.min and high <= _INT16.max
        return Scaling(1.0, 0.0, "HU", (low, high), "int16" if fits else "float32")
    low, high = window or GREY_WINDOW
    return Scaling(1.0, 0.0, "none", (low, high), "float32")


def _require_same_kind(scaling: Scaling, values: pd.Series) -> None:
    """Refuse an external site whose numbers do not mean what those of the training images mean."""
    other = foreign_kinds(scaling, set(values))
    if other:
        ours = "HU" if scaling.unit == "HU" else "8-bit grey values" if scaling.dtype == "uint8" else "without a unit"
        raise DataError(
            f"data.external: its images have values of another kind ({', '.join(sorted(other))}) than those of "
            f"data.source ({ours}), so one window cannot serve both. Export them alike, or set data.window: image."
        )


def foreign_kinds(scaling: Scaling, kinds: set[str]) -> set[str]:
    """Those of `kinds` (of the manifest's column `values`) whose numbers do not mean what stored ones mean."""
    if scaling.dtype == "float16":  # each image in its own percentiles
        return set()
    if scaling.unit == "HU":
        return kinds - {"HU"}
    return kinds & {"HU", *(["other"] if scaling.dtype == "uint8" else [])}


def _readers(config: PrepareConfig, ingested: Path) -> dict[str, ImageReader]:
    """Readers by place, as `place_of` names it; phantoms lie in ingest's directory."""
    roots = {name: Path(root) if root else ingested / SITES / name for name, root in config.site_roots.items()}
    if not roots:
        roots[ONE_SOURCE] = Path(config.root) if config.root else ingested
    if config.external_root is not None:
        roots[EXTERNAL] = Path(config.external_root) if config.external_root else ingested / EXTERNAL_ROOT
    return {name: ImageReader(root, config.spatial_dims) for name, root in roots.items()}


def _write_arrays(
    config: PrepareConfig, table: pd.DataFrame, scaling: Scaling, readers: Mapping[str, ImageReader], out_dir: Path
) -> list[Floats]:
    """Fill images.npy (and masks.npy) row by row; give each image's affine [4, 4]."""
    shape = (len(table), 1, *config.shape)
    with_masks = "mask" in table and bool((table["mask"] != "").any())
    images = new_array(out_dir / IMAGES, scaling.dtype, shape)
    masks = new_array(out_dir / MASKS, np.uint8, shape) if with_masks else None
    placing = Placing(
        readers=readers,
        scaling=scaling,
        geometry=geometry(config.shape, spacing=config.spacing, crop=config.crop, fit=config.fit),
        to_point=config.crop is not None and config.crop.around == "point",
        folder=out_dir,
    )
    rows = row_dicts(table)
    paths = [readers[place_of(row, readers)].root / row["path"] for row in rows]
    with on_every_image("prepare", placing, list(enumerate(rows)), paths) as found:
        affines = list(found)
    images.flush()
    if masks is not None:
        masks.flush()
    return affines


def _placed(table: pd.DataFrame, affines: list[Floats], dims: int) -> pd.DataFrame:
    """The manifest with the prepared images' spacing (mm) and affine (16 numbers by row, index to RAS mm)."""
    spacing = ["x".join(f"{mm:.6g}" for mm in np.linalg.norm(affine[:3, :dims], axis=0)) for affine in affines]
    flat = [" ".join(f"{number:.8g}" for number in affine.ravel() + 0.0) for affine in affines]
    return table.assign(spacing=spacing, affine=flat)


def _notes(config: PrepareConfig, table: pd.DataFrame) -> tuple[str, ...]:
    unknown = Counter(table["spacing_known"])["false"]
    in_mm = config.spacing is not None or config.crop is not None
    if unknown and in_mm:
        return (f"{unknown} images do not state their pixel size: one pixel is taken as 1 mm.",)
    return ()
