"""`radaug sample`: images of a class from a finished run, as files that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.core.errors import UserError
from pipeline.core.records import load_record
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.dataset import MANIFEST, read_table
from pipeline.data.batches.scaling import Scaling
from pipeline.data.writers import DicomIds, write_dicom, write_dicom_series, write_nifti, write_png
from pipeline.synthesis.generate import TrainedGenerator

FileFormat = Literal["nifti", "png", "dicom"]


def sample_run(
    run_dir: Path, label: str, num: int, out_dir: Path, truncation_psi: float = 1.0, file_format: FileFormat = "nifti"
) -> list[Path]:
    """Write `num` images of class `label` from the run's generator of fold 0, seed 0, into `out_dir`.

    CT comes back in HU. The files say that they are synthetic; they are not cleared for sharing by being written.

    Returns:
        The files (for a 3D DICOM series: its folder), in order.

    Raises:
        UserError: the run has no generator, the class is unknown, or the format does not hold such images.
    """
    checkpoint = run_dir / "checkpoints" / "fold-0-gan-0"
    if not (checkpoint / "model.json").is_file():
        raise UserError(f"{run_dir}: holds no trained generator. Let `radaug run` finish first.")
    generator = TrainedGenerator(checkpoint, {name: run_dir / "stages" / name for name in ("prepare", "split")})
    if label not in generator.classes:
        raise UserError(f"--label {label}: the generator's classes are {generator.classes}.")
    if num < 1 or not 0 < truncation_psi <= 1:
        raise UserError("--num must be at least 1, and --truncation-psi above 0 and at most 1.")
    dims = len(generator.description["spatial_size"])
    if file_format == "png" and dims == 3:
        raise UserError("--format png: a volume does not fit into a PNG. Use nifti or dicom.")
    scaling = Scaling.from_json(generator.description["scaling"])
    spacing = _spacing(run_dir, dims)
    written = []
    seed = derive_seed(load_record(checkpoint).seed, "sample")
    for number, (sample_seed, image) in enumerate(generator.images(label, num, seed, truncation_psi)):
        stem = out_dir / f"synthetic-{label}-{number:05d}"
        ids = DicomIds(patient_id=f"synthetic-{sample_seed}", study=f"{sample_seed}", series=f"{sample_seed}-{label}")
        written.append(_write(stem, scaling.to_physical(image)[0], scaling, spacing, file_format, ids))
    return written


def _write(
    stem: Path, image: np.ndarray, scaling: Scaling, spacing: tuple[float, ...], file_format: FileFormat, ids: DicomIds
) -> Path:
    name = f"SYNTHETIC {stem.name}"
    if file_format == "png":
        write_png(stem.with_suffix(".png"), image, scaling.window)
        return stem.with_suffix(".png")
    if file_format == "nifti":
        write_nifti(stem.with_suffix(".nii.gz"), image, _affine(spacing))
        return stem.with_suffix(".nii.gz")
    if image.ndim == 3:
        write_dicom_series(stem, image, _affine(spacing), unit=scaling.unit, description=name, synthetic=True, ids=ids)
        return stem
    write_dicom(
        stem.with_suffix(".dcm"), image, unit=scaling.unit, spacing=(spacing[0], spacing[1]), description=name,
        synthetic=True, ids=ids,
    )  # fmt: skip
    return stem.with_suffix(".dcm")


def _affine(spacing: tuple[float, ...]) -> np.ndarray:
    """Index to RAS mm: volumes are prepared in RAS+; a 2D image's rows run to posterior, its columns to the left."""
    if len(spacing) == 3:
        return np.diag([*spacing, 1.0])
    affine = np.eye(4)
    affine[:2, :2] = [[0.0, -spacing[1]], [-spacing[0], 0.0]]
    return affine


def _spacing(run_dir: Path, dims: int) -> tuple[float, ...]:
    """mm a voxel of the prepared images: the median over them, 1 where the source does not say."""
    manifest = read_table(run_dir / "stages" / "prepare" / MANIFEST)
    known = manifest["spacing"].str.split("x", expand=True).astype(float).median()
    return tuple(float(value) for value in known[:dims])
