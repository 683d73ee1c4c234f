"""A cohort of liver-lesion CT phantoms, written as image files with a label table. All of it is simulated.

The cohort has the sizes of Frid-Adar et al. 2018, "GAN-based synthetic medical image augmentation for increased CNN
performance in liver lesion classification", Neurocomputing 321: 53 cysts, 64 metastases, 65 haemangiomas.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from pipeline.core.errors import DataError
from pipeline.core.files import atomic_path
from pipeline.core.workers import side_by_side
from pipeline.data.phantoms.lesions import CLASSES, SPACING_MM, Lesion, Patient, lesion_image
from pipeline.data.phantoms.texture import SLAB_MM
from pipeline.data.writers import DicomIds, Floats, SlicePlace, write_dicom, write_dicom_series, write_nifti

__all__ = ["CLASSES", "Lesion", "PhantomSettings", "lesion_image", "write_cohort"]

MANUFACTURERS = {"Alder": 0.9, "Birch": 1.0, "Cedar": 1.12}
"""Invented makers, each with its factor on the kernels' blur. They are balanced over the classes."""
GROUP_SIZES = {"cyst": (0.6, 0.25, 0.15), "metastasis": (0.45, 0.3, 0.15, 0.1), "haemangioma": (0.85, 0.15)}
"""Chance of 1, 2, ... lesions of a class in one patient."""
MIXED = 0.08
"""Chance that a patient's lesions of one class join a patient who has another class."""
WORTH_LESIONS = {2: 150, 3: 40}
"""From so many on processes of their own are quicker than none."""


@dataclass(frozen=True)
class PhantomSettings:
    """A cohort of lesions.

    Attributes:
        format: None = single DICOM slices in 2D, NIfTI volumes in 3D; a 3D "dicom" is a folder of slices a lesion.
        spacing_mm: pixel size; None = 1.0 in 2D, 1.5 in 3D. The field of view is 96 mm.
        noise_hu: the noise's standard deviation under the soft kernel, median over patients.

    Raises:
        DataError: a value makes no sense.
    """

    spatial_dims: Literal[2, 3] = 2
    seed: int = 0
    cysts: int = 53
    metastases: int = 64
    haemangiomas: int = 65
    format: Literal["dicom", "nifti"] | None = None
    spacing_mm: float | None = None
    noise_hu: float = 12.0

    def __post_init__(self) -> None:
        if self.spatial_dims not in (2, 3):
            raise DataError(f"phantoms: spatial_dims must be 2 or 3, not {self.spatial_dims}")
        if min(self.counts.values()) < 0 or sum(self.counts.values()) == 0:
            raise DataError(
                f"phantoms: the numbers of lesions must not be negative and not all 0; they are {self.counts}"
            )
        if not 0.5 <= self.spacing <= 4 or self.noise_hu < 0:
            raise DataError("phantoms: spacing_mm must lie in [0.5, 4] and noise_hu must not be negative")
        if self.format not in (None, "dicom", "nifti"):
            raise DataError(f"phantoms: format must be dicom or nifti, not {self.format!r}")

    @property
    def counts(self) -> dict[str, int]:
        return dict(zip(CLASSES, (self.cysts, self.metastases, self.haemangiomas), strict=True))

    @property
    def spacing(self) -> float:
        return SPACING_MM[self.spatial_dims] if self.spacing_mm is None else self.spacing_mm

    @property
    def file_format(self) -> Literal["dicom", "nifti"]:
        return self.format or ("dicom" if self.spatial_dims == 2 else "nifti")


@dataclass
class _Member:
    """A patient of the cohort: the classes of the lesions, and what does not depend on them."""

    lesions: list[str]
    sex: str = ""
    age: int = 0
    manufacturer: str = ""


def write_cohort(folder: Path, settings: PhantomSettings, processes: int = 1) -> pd.DataFrame:
    """Simulate a cohort and write it into `folder`: `images/`, `sharp/`, `masks/` and, last, `labels.csv`.

    The same settings give the same bytes. One row a lesion; paths are relative to `folder`, a series' path is a folder.

    Args:
        processes: at most so many work side by side, patient by patient; few lesions are not worth their start.

    Returns:
        The table that `labels.csv` holds: `file` (soft kernel), `label`, `patient_id`, `mask` (NIfTI), `kernel_pair`
        (the same scan under the sharp kernel), `diameter_mm`, `sex`, `age`, `manufacturer`, `kernel`, `spacing_mm`, and
        `point_x`, `point_y`, `point_z`: the lesion's centre in DICOM's patient system (LPS mm).
    """
    streams = np.random.SeedSequence(settings.seed).spawn(2)
    members = _draw_members(np.random.default_rng(streams[0]), settings)
    seeds = streams[1].spawn(len(members))
    firsts = np.cumsum([0, *(len(member.lesions) for member in members)]).tolist()
    patients = list(zip(range(1, len(members) + 1), members, seeds, firsts[:-1], strict=True))
    worth = firsts[-1] >= WORTH_LESIONS[settings.spatial_dims]
    with side_by_side(
        _Simulation(folder, settings),
        patients,
        processes=min(processes, len(patients)) if worth else 1,
        name_of=lambda number: f"simulated patient {number + 1}",
    ) as parts:
        table = pd.DataFrame([row for part in parts for row in part])
    with atomic_path(folder / "labels.csv") as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    return table


@dataclass(frozen=True)
class _Simulation:
    """Simulates and writes patients, each from a seed of its own."""

    folder: Path
    settings: PhantomSettings

    def __call__(self, patient: tuple[int, _Member, np.random.SeedSequence, int]) -> list[dict[str, object]]:
        number, member, seed, first = patient
        random = np.random.default_rng(seed)
        return _write_patient(self.folder, self.settings, member, f"phantom-{number:04d}", random, first)


def _draw_members(rng: np.random.Generator, settings: PhantomSettings) -> list[_Member]:
    """Deal the lesions out to patients. Sex, age and manufacturer do not depend on the class."""
    members: list[_Member] = []
    for lesion_class, left in settings.counts.items():
        own: list[_Member] = []
        while left:
            chances = GROUP_SIZES[lesion_class]
            size = min(left, 1 + int(rng.choice(len(chances), p=chances)))
            if members and rng.random() < MIXED:
                members[int(rng.integers(len(members)))].lesions.extend([lesion_class] * size)
            else:
                own.append(_Member([lesion_class] * size))
            left -= size
        members += own
    used: Counter[tuple[str, str]] = Counter()
    for member in members:
        member.sex, member.age = str(rng.choice(["F", "M"])), int(np.clip(rng.normal(60, 13), 25, 88))
        names = rng.permutation(list(MANUFACTURERS)).tolist()
        member.manufacturer = min(names, key=lambda name: sum(used[name, label] for label in set(member.lesions)))
        used.update((member.manufacturer, label) for label in member.lesions)
    rng.shuffle(members)
    return members


def _write_patient(
    folder: Path, settings: PhantomSettings, member: _Member, patient_id: str, rng: np.random.Generator, first: int
) -> list[dict[str, object]]:
    """Write a patient's lesions, the first of which is the cohort's lesion number `first` (from 0)."""
    patient = Patient.draw(rng, MANUFACTURERS[member.manufacturer])
    counts = Counter(member.lesions)
    scan_centre = np.asarray([-65.0, -10.0, 120.0]) + rng.uniform(-12, 12, 3)
    rows: list[dict[str, object]] = []
    for number, label in enumerate(member.lesions, start=first + 1):
        siblings = int(rng.integers(counts[label])) if counts[label] > 1 else 0
        lesion = lesion_image(
            rng,
            label,
            settings.spatial_dims,
            patient=patient,
            siblings=siblings,
            spacing_mm=settings.spacing,
            noise_hu=settings.noise_hu,
        )
        field_centre = np.round(scan_centre + rng.uniform(-30, 30, 3), 1)
        writer = _LesionWriter(folder, settings, member, patient_id, f"lesion-{number:04d}", field_centre)
        point = np.round(field_centre + lesion.centre_mm, 2)
        rows.append(
            {
                "file": writer.write_image("images", lesion.image, "soft"),
                "label": label,
                "patient_id": patient_id,
                "mask": writer.write_mask(lesion),
                "kernel_pair": writer.write_image("sharp", lesion.sharp, "sharp"),
                "diameter_mm": round(lesion.diameter_mm, 1),
                "sex": member.sex,
                "age": member.age,
                "manufacturer": member.manufacturer,
                "kernel": "soft",
                "spacing_mm": settings.spacing,
                **dict(zip(("point_x", "point_y", "point_z"), point.tolist(), strict=True)),
            }
        )
    return rows


@dataclass(frozen=True)
class _LesionWriter:
    """The files of one lesion. `centre`: LPS mm of the field's centre."""

    folder: Path
    settings: PhantomSettings
    member: _Member
    patient_id: str
    name: str
    centre: Floats

    def affine(self, shape: tuple[int, ...]) -> Floats:
        """Array index to RAS mm; 2D arrays are [rows, cols], volumes [X, Y, Z] to left, posterior, superior."""
        step = self.settings.spacing
        axes = np.diag([step, step, step]) if len(shape) == 3 else np.diag([step, step, SLAB_MM])[:, [1, 0, 2]]
        lps = np.eye(4)
        lps[:3, :3] = axes
        middle = [(count - 1) / 2 for count in shape] + [0.0] * (3 - len(shape))
        lps[:3, 3] = self.centre - axes @ middle
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps

    def write_mask(self, lesion: Lesion) -> str:
        path = f"masks/{self.name}.nii.gz"
        write_nifti(self.folder / path, lesion.mask, self.affine(lesion.mask.shape))
        return path

    def write_image(self, room: str, image: Floats, kernel: str) -> str:
        """Write one kernel's image in HU and return its path in the cohort's folder."""
        whole = np.rint(image)
        affine = self.affine(image.shape)
        if self.settings.file_format == "nifti":
            path = f"{room}/{self.name}.nii.gz"
            write_nifti(self.folder / path, whole, affine)
            return path
        ids = DicomIds(self.patient_id, study=str(self.settings.seed), series=f"{self.name} {kernel}")
        description = f"SYNTHETIC phantom, portal venous, {kernel} kernel"
        attributes = {
            "Manufacturer": self.member.manufacturer,
            "ConvolutionKernel": kernel,
            "PatientSex": self.member.sex,
            "PatientAge": f"{self.member.age:03d}Y",
        }
        if image.ndim == 3:
            path = f"{room}/{self.name}"
            write_dicom_series(
                self.folder / path,
                whole,
                affine,
                unit="HU",
                description=description,
                synthetic=True,
                ids=ids,
                attributes=attributes,
            )
            return path
        path, step = f"{room}/{self.name}.dcm", self.settings.spacing
        x, y, z = (affine[:3, 3] * [-1, -1, 1]).tolist()
        write_dicom(
            self.folder / path,
            whole,
            unit="HU",
            spacing=(step, step, SLAB_MM),
            description=description,
            synthetic=True,
            ids=ids,
            place=SlicePlace((x, y, z)),
            attributes=attributes,
        )
        return path
