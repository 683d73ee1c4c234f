"""The images of a pack as files, with a row of provenance for each."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.files import safe_name
from pipeline.data.batches.dataset import write_table
from pipeline.data.synthetic_dicom import DicomOrigin
from pipeline.data.synthetic_files import FileFormat, write_synthetic
from pipeline.release.material import IMAGES_FOLDER, PROVENANCE, Material

FACTS = ("image_id", "label", "sample_seed", "truncation_psi", "weights_digest", "fold", "gan_seed", "pixel_digest")


def write_images(root: Path, material: Material, formats: tuple[FileFormat, ...]) -> pd.DataFrame:
    """Write `images/FORMAT/CLASS/…` below `root` and provenance.csv; give its table.

    A row has an image's seed, label, truncation, the digest of the generator's weights, that of its stored numbers,
    and in a column for each format its file; of a DICOM series its folder.
    """
    rows = []
    for row in material.rows:
        told = {name: str(material.synthetic.manifest[name].iloc[row]) for name in FACTS if name != "pixel_digest"}
        stored = material.synthetic.images[row, 0]
        told["image_id"] = f"synthetic-{safe_name(told['label'])}-{told['image_id'].rpartition('-')[2]}"
        told["pixel_digest"] = pixel_digest(stored)
        for one in formats:
            told[one] = _write(root, stored, told, material, one)
        rows.append(told)
    table = pd.DataFrame(rows)
    write_table(root / PROVENANCE, table)
    return table


def pixel_digest(stored: np.ndarray) -> str:
    """Digest of an image's stored numbers [*spatial], by which provenance.csv knows it."""
    return sha256(np.ascontiguousarray(stored).tobytes()).hexdigest()


def _write(root: Path, stored: np.ndarray, told: dict[str, str], material: Material, file_format: FileFormat) -> str:
    scaling = material.synthetic.scaling
    origin = DicomOrigin(
        told["image_id"], told["label"], told["sample_seed"], told["truncation_psi"], told["weights_digest"],
        str(material.description["gan"]["family"]), material.uid_root, orientation=material.xray_orientation,
        x_ray=material.x_ray,
    )  # fmt: skip
    stem = root / IMAGES_FOLDER / file_format / safe_name(told["label"]) / told["image_id"]
    image = stored.astype(np.float64) * scaling.scale + scaling.offset
    paths = write_synthetic(stem, image, scaling, material.spacing, file_format, origin)
    place = paths[0].parent if file_format == "dicom" and image.ndim == 3 else paths[0]
    return place.relative_to(root).as_posix()
