"""What prepare makes of one image. Imported by processes that read images, and so without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline.core.errors import DataError
from pipeline.core.layout import IMAGES, MASKS
from pipeline.data.batches.scaling import Scaling
from pipeline.data.cohort.duplicates import pixel_digest
from pipeline.data.cohort.sources import ImageReader
from pipeline.data.geometry import Item, Placed, Step
from pipeline.data.resampling import Floats

PERCENTILES = (0.5, 99.5)
EXTERNAL, ONE_SOURCE = "external", ""


@dataclass
class Placing:
    """Puts images into the arrays of a data set.

    Attributes:
        readers: by place, as `place_of` names it.
        geometry: as `pipeline.data.geometry` makes it.
        to_point: whether the lesion's point decides the place.
        folder: holds images.npy [N, 1, *shape], and masks.npy if a row has a mask.
    """

    readers: Mapping[str, ImageReader]
    scaling: Scaling
    geometry: Step
    to_point: bool
    folder: Path

    def __call__(self, numbered: tuple[int, dict[str, str]]) -> Floats:
        """Fill a row of the arrays with the image of a manifest row; give its affine [4, 4].

        Raises:
            DataError: the file is not what ingest saw, or its mask or point does not fit.
        """
        number, row = numbered
        placed = self.geometry(self._item(row))
        self._images[number] = self.scaling.to_stored(placed.image.array + self.scaling.window[0])
        if placed.mask is not None:
            self._masks[number] = placed.mask.array > 0
        return placed.image.affine

    @cached_property
    def _images(self) -> np.ndarray:
        return np.lib.format.open_memmap(self.folder / IMAGES, mode="r+")

    @cached_property
    def _masks(self) -> np.ndarray:
        return np.lib.format.open_memmap(self.folder / MASKS, mode="r+")

    def _item(self, row: dict[str, str]) -> Item:
        """One image for the geometry, its lowest value subtracted so that 0 is outside."""
        reader = self.readers[place_of(row, self.readers)]
        image = reader.image(row)
        if pixel_digest(image.array) != row["pixel_digest"]:
            raise DataError(f"{row['path']}: the file changed since ingest. Run again: ingest will read it anew.")
        array = image.array[:1]
        if self.scaling.dtype == "float16":
            low, high = np.percentile(array, PERCENTILES)
            array = np.clip((array - low) / max(float(high - low), 1e-6), 0, 1)
        above = np.clip(array, *self.scaling.window)
        above -= self.scaling.window[0]
        mask = None
        if row.get("mask"):
            found = reader.mask(row)
            mask = Placed((found.array[:1] > 0).astype(np.uint8), found.affine)
        point = _point(row) if row.get("point_x") and self.to_point else None
        return Item(row["path"], Placed(above, image.affine), mask, point)


def place_of(row: Mapping[str, str], readers: Mapping[str, ImageReader]) -> str:
    """Which of `readers` reads the image of a manifest row: the external site's, the one source's, or its site's."""
    if row["split"] == EXTERNAL:
        return EXTERNAL
    return ONE_SOURCE if ONE_SOURCE in readers else row["site"]


def _point(row: dict[str, str]) -> tuple[float, float, float]:
    """The lesion's place, LPS mm in the manifest, as RAS mm; NaN for a third coordinate that is not given."""
    try:
        x, y, z = (float(row.get(f"point_{axis}") or "nan") for axis in "xyz")
    except ValueError as error:
        raise DataError(f"{row['path']}: its point is not a number in mm. Use a decimal point, as in 12.5.") from error
    return -x, -y, z
