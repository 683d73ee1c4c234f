"""New images for what a finished run made: read, checked and prepared exactly as the run's own were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.config.data import Columns, DataConfig
from pipeline.config.experiment import Experiment
from pipeline.core.errors import DataError
from pipeline.core.layout import IMAGES, MASKS
from pipeline.data.batches.dataset import DataSet, new_array
from pipeline.data.batches.scaling import Scaling
from pipeline.data.cohort.given import given_images
from pipeline.data.cohort.manifest import row_dicts
from pipeline.data.cohort.sources import ImageReader
from pipeline.data.geometry import Placed, geometry
from pipeline.data.looking import Look
from pipeline.data.many_images import on_every_image
from pipeline.data.placing import ONE_SOURCE, Placing
from pipeline.data.prepare import PrepareConfig, foreign_kinds, prepare_config
from pipeline.data.readers.kinds import sniff
from pipeline.data.resampling import Floats
from pipeline.data.source_grid import on_source_grid
from pipeline.data.writers import write_nifti

_RADIOGRAPHS = frozenset({"CR", "DX", "DR", "RG"})
_SAY_NOTHING = frozenset({"", "OT", "SC"})
_UNSTATED = (".nii", ".nii.gz", ".npy")
"""Files that state neither unit nor modality: what the manifest says of them, the user said."""


@dataclass(frozen=True)
class NewImages:
    """Images as the run's networks see them, and those that are not for them.

    Attributes:
        dataset: the manifest's `shown` is an image's path as the user would name it.
        refused: path and reason.
        affines: from an image's index to RAS mm, [4, 4] each.
    """

    dataset: DataSet
    refused: pd.DataFrame
    affines: tuple[Floats, ...]
    reader: ImageReader

    def placed(self, number: int) -> bool:
        """Whether the image's file says where its voxels lie in the patient."""
        file = self.reader.root / self.dataset.manifest["path"].iloc[number]
        return file.is_dir() or sniff(file) in ("dicom", "nifti")

    def write_on_source(self, path: Path, values: np.ndarray, number: int) -> None:
        """Write values [*spatial] over prepared image `number` as NIfTI on the voxels of its source."""
        image = self.reader.image(row_dicts(self.dataset.manifest.iloc[[number]])[0])
        source = Placed(image.array, image.affine)
        write_nifti(path, on_source_grid(Placed(values[None], self.affines[number]), source)[0], source.affine)


def prepare_new(
    experiment: Experiment, scaling: Scaling, trained_on: pd.DataFrame, given: Path, folder: Path
) -> NewImages:
    """Prepare the images of `given` by the functions and settings of the run whose experiment this is.

    Args:
        scaling: the run's.
        trained_on: manifest of the run's own images.
        given: a DICOM, NIfTI, PNG, JPEG or npy file, a folder of these or of DICOM series, or a table with `path`.
        folder: empty; gets the prepared arrays.

    Raises:
        DataError: `given` as a whole is wrong. What is wrong with one image is in `refused`.
    """
    data = experiment.data
    found = given_images(given, data.spatial_dims, _columns(data))
    own = data.model_copy(update={"source": found.source, "sources": {}, "correlation": None, "external": None})
    config = prepare_config(experiment.model_copy(update={"data": own}))
    reader = ImageReader(Path(config.root), config.spatial_dims)
    told = getattr(data.source, "unit_of_values", None) or _told(trained_on)
    check = _Check(scaling, _known_kinds(trained_on["modality"]), _states_mm(config, trained_on))
    kept, refused = list[dict[str, str]](), [(row["path"], row["reason"]) for row in row_dicts(found.refused)]
    plain = {"label": "", "patient_id": "", "split": "test"}
    rows = [row | plain | {"shown": _shown(given, row)} for row in row_dicts(found.rows)]
    with on_every_image("read", Look(reader, told), rows, [reader.root / row["path"] for row in rows]) as looks:
        for row, (look, small) in zip(rows, looks, strict=True):
            reason = _in_words(look["reason"], config.spatial_dims) if small is None else check.fault(look)
            if reason:
                refused.append((row["shown"], reason))
            else:
                kept.append(look)
    images, placed = _placed(config, kept, scaling, reader, folder)
    good = [number for number, one in enumerate(placed) if not isinstance(one, str)]
    refused += [(row["shown"], one) for row, one in zip(kept, placed, strict=True) if isinstance(one, str)]
    manifest = pd.DataFrame([kept[number] for number in good], dtype=str).fillna("")
    return NewImages(
        DataSet(folder, manifest, images if len(good) == len(kept) else images[good], scaling),
        pd.DataFrame(refused, columns=["path", "reason"], dtype=str),
        tuple(one for one in placed if not isinstance(one, str)),
        reader,
    )


def _columns(data: DataConfig) -> Columns:
    """What a table of new images may say of them: as the run's own table calls it, else by radaug's names."""
    own = getattr(data.source, "columns", Columns())
    around = "" if data.crop is None else data.crop.around
    return Columns(
        series_id=own.series_id or "series_id",
        mask=(own.mask or "mask") if around == "mask" else "",
        point=(own.point or ("point_x", "point_y", "point_z")) if around == "point" else (),
    )


def _shown(given: Path, row: dict[str, str]) -> str:
    name = given.resolve().name if row["path"] == "." else row["path"]
    return f"{name}#{row['series_id']}" if row.get("series_id") else name


def _told(trained_on: pd.DataFrame) -> str:
    """The unit that the user named for the run's files that state none: CT among them is in HU."""
    unstated = trained_on["path"].str.lower().str.endswith(_UNSTATED)
    return "HU" if (unstated & (trained_on["modality"] == "CT") & (trained_on["values"] == "HU")).any() else ""


def _known_kinds(modalities: pd.Series) -> frozenset[str]:
    return frozenset(_kind(one) for one in modalities.unique()) - {""}


def _kind(modality: str) -> str:
    """What a modality comes down to: plain radiographs have several names, and exports say nothing."""
    return "" if modality in _SAY_NOTHING else "X-ray" if modality in _RADIOGRAPHS else modality


def _states_mm(config: PrepareConfig, trained_on: pd.DataFrame) -> bool:
    """Whether all of the run's images state their pixel size, and are prepared by it."""
    return (config.spacing is not None or config.crop is not None) and bool(
        (trained_on["spacing_known"] == "true").all()
    )


@dataclass(frozen=True)
class _Check:
    """What an image must have in common with those that the run learned from."""

    scaling: Scaling
    kinds: frozenset[str]
    in_mm: bool

    def fault(self, row: dict[str, str]) -> str:
        """What of the image of this manifest row differs, with the mend; empty where nothing does."""
        kind = _kind(row["modality"])
        if kind and self.kinds and kind not in self.kinds:
            return f"modality {row['modality']}: the run's images are {' and '.join(sorted(self.kinds))}; leave it out"
        if foreign_kinds(self.scaling, {row["values"]}):
            found = {"HU": "are HU", "uint8": "are grey levels from 0 to 255"}.get(row["values"], "have no known unit")
            ours = "HU" if self.scaling.unit == "HU" else "grey levels from 0 to 255"
            if self.scaling.dtype == "float32" and self.scaling.unit != "HU":
                ours = "numbers without a unit"
            unstated = ours == "HU" and row["path"].lower().endswith(_UNSTATED)
            mend = "; if it is CT in HU, say so in a table with a column modality" if unstated else ""
            return f"its values {found}, and the run's images hold {ours}: export it as those were{mend}"
        if self.in_mm and row["spacing_known"] != "true":
            return "it does not state its pixel size, by which the run's images were prepared: export it with one"
        return ""


def _in_words(reason: str, spatial_dims: int) -> str:
    """A reader's reason; a mend that would change the configuration is none for a finished run."""
    what, mark, _ = reason.partition(", but spatial_dims is ")
    return f"{what}, but the run's images have {spatial_dims} dimensions: give such images" if mark else reason


def _placed(
    config: PrepareConfig, rows: Sequence[dict[str, str]], scaling: Scaling, reader: ImageReader, folder: Path
) -> tuple[np.ndarray, list[Floats | str]]:
    """The arrays [N, 1, *shape] in stored numbers, and of each image its affine or why it could not be prepared."""
    shape = (len(rows), 1, *config.shape)
    if not rows:
        return np.empty(shape, scaling.dtype), []
    images = new_array(folder / IMAGES, scaling.dtype, shape)
    if any(row.get("mask") for row in rows):
        new_array(folder / MASKS, np.uint8, shape)
    placing = Placing(
        readers={ONE_SOURCE: reader},
        scaling=scaling,
        geometry=geometry(config.shape, spacing=config.spacing, crop=config.crop, fit=config.fit),
        to_point=config.crop is not None and config.crop.around == "point",
        folder=folder,
    )
    paths = [reader.root / row["path"] for row in rows]
    with on_every_image("prepare", _PlacedOrNot(placing), list(enumerate(rows)), paths) as found:
        return images, list(found)


@dataclass(frozen=True)
class _PlacedOrNot:
    """Places an image, or says why it cannot."""

    placing: Placing

    def __call__(self, numbered: tuple[int, dict[str, str]]) -> Floats | str:
        try:
            return self.placing(numbered)
        except DataError as error:
            return str(error).removeprefix(f"{numbered[1]['path']}: ")
