"""What ingest notes of one image. Imported by processes that read images, and so without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UnreadableImage
from pipeline.data.cohort.duplicates import pixel_digest, thumbnail
from pipeline.data.cohort.manifest import FACTS
from pipeline.data.cohort.sources import ImageReader
from pipeline.data.cohort.units import SIDES_KNOWN, UNIT_FROM, unit_of
from pipeline.data.readers.folders import files_below
from pipeline.data.readers.image import Image

MODALITIES = frozenset({"", "CT", "CR", "DX", "DR", "RG", "RF", "XA", "MG", "PX", "IO", "OT", "SC"})
"""X-ray images of all kinds, and exports that do not say; anything else (MR, US, PT, …) is rejected."""


@dataclass(frozen=True)
class Look:
    """Looks at the images of rows.

    Attributes:
        told: the unit that the user names, or "".
    """

    reader: ImageReader
    told: str

    def __call__(self, row: dict[str, str]) -> tuple[dict[str, str], NDArray[np.float32] | None]:
        """The image's manifest row and its thumbnail; for one that cannot be used a rejected row and None."""
        try:
            image = self.reader.image(row)
            _require_usable(row["path"], image)
            return _described(row, image, self.told), thumbnail(image.array)
        except UnreadableImage as error:
            named = _named_files(self.reader.root / row["path"], error.reason)
            return {"image_id": row["image_id"], "path": row["path"], "reason": error.reason, "files": named}, None


def _named_files(place: Path, reason: str) -> str:
    """The files of a series' folder that a reason names, with a slash between: a shareable report must not."""
    names = {path.name for path in files_below(place)} if place.is_dir() else set()
    return "/".join(sorted(name for name in names if name in reason))


def _require_usable(path: str, image: Image) -> None:
    modality = image.meta.get("modality", "")
    if modality not in MODALITIES:
        raise UnreadableImage(path, f"wrong modality ({modality}): radaug works on CT and X-ray images; leave it out")
    if not np.isfinite(image.array).all():
        raise UnreadableImage(path, "values are NaN or infinite: mend the image, or leave it out")
    if image.array.min() == image.array.max():
        raise UnreadableImage(path, "constant: all pixels have one value; leave it out, or export it again")


def _described(row: dict[str, str], image: Image, told: str) -> dict[str, str]:
    """The manifest row of an image: the source's columns, then facts (a column of the user's wins), then content."""
    array, meta = image.array, image.meta
    facts = {name: row.get(name) or meta.get(name, "") for name in (*FACTS, "study_id", "spacing_known")}
    facts["modality"] = facts["modality"].strip().upper()
    values, unit_from = unit_of(row["path"], image, facts["modality"], told)
    content = {
        "spacing": "x".join(f"{mm:.6g}" for mm in image.spacing),
        "size": "x".join(str(size) for size in array.shape[1:]),
        "values": values,
        "minimum": f"{array.min():.6g}",
        "maximum": f"{array.max():.6g}",
        "pixel_digest": pixel_digest(array),
        "header_patient": meta.get("patient_id", ""),
        UNIT_FROM: unit_from,
        SIDES_KNOWN: meta.get(SIDES_KNOWN, ""),
    }
    own = {name: value for name, value in row.items() if name not in content and name not in facts}
    clashing = {f"source_{name}": row[name] for name in content if name in row}
    return own | clashing | facts | content
