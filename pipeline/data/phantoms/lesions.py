"""One simulated liver lesion: a cyst, a metastasis or a haemangioma in the portal-venous phase of CT.

Classes look as in textbooks, and overlap as in hospitals: cystic metastases, proteinaceous cysts, haemangiomas that are
filled, or hardly enhanced at their rim; small lesions fade in thick slices, and some patients breathe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from pipeline.core.errors import DataError
from pipeline.data.phantoms import texture as world
from pipeline.data.phantoms.texture import Floats, Grid, blend

CLASSES = ("cyst", "metastasis", "haemangioma")
SPACING_MM = {2: 1.0, 3: 1.5}


@dataclass(frozen=True)
class Patient:
    """What a patient's lesions share: the liver, the scan, and the style of each class (through `style_seed`)."""

    liver_hu: float
    vessel_hu: float
    texture_hu: float
    noise_factor: float
    style_seed: int
    blur: float = 1.0

    @classmethod
    def draw(cls, rng: np.random.Generator, blur: float = 1.0) -> Patient:
        fatty = rng.random() < 0.15
        liver_hu = float(rng.normal(82, 6) if fatty else rng.normal(109, 7))
        return cls(
            liver_hu=liver_hu,
            vessel_hu=float(np.clip(rng.normal(162, 12), liver_hu + 25, 195)),
            texture_hu=float(rng.uniform(2.5, 5.5)),
            noise_factor=float(np.clip(rng.lognormal(0, 0.2), 0.7, 1.45)),
            style_seed=int(rng.integers(2**31)),
            blur=blur,
        )


@dataclass(frozen=True)
class Lesion:
    """One lesion's images.

    Attributes:
        image, sharp: HU under the soft and the sharp kernel, [rows, cols], or [X, Y, Z] with axes to left, posterior
            and superior.
        mask: the lesion, same shape, bool.
        diameter_mm: of the circle or ball with the mask's area or volume.
        centre_mm: the mask's centre of mass as (left, posterior, superior) mm from the field's centre.
    """

    image: Floats
    sharp: Floats
    mask: NDArray[np.bool_]
    diameter_mm: float
    centre_mm: tuple[float, float, float]


def lesion_image(
    rng: np.random.Generator,
    lesion_class: str,
    spatial_dims: Literal[2, 3] = 2,
    *,
    patient: Patient | None = None,
    siblings: int = 0,
    spacing_mm: float | None = None,
    noise_hu: float = 12.0,
) -> Lesion:
    """Simulate one lesion in a field of 96 mm, up to 15 mm off its centre.

    Args:
        lesion_class: cyst, metastasis or haemangioma.
        patient: None = a new one.
        siblings: further lesions of this class that the field shows too; they are not in the mask.
        spacing_mm: pixel size; None = 1.0 in 2D, 1.5 in 3D.

    Raises:
        DataError: the class is not one of the three.
    """
    if lesion_class not in PAINTERS:
        raise DataError(f"phantoms: the lesion class must be one of {', '.join(CLASSES)}, not {lesion_class!r}")
    patient = patient or Patient.draw(rng)
    spacing = spacing_mm or SPACING_MM[spatial_dims]
    grid = Grid.of_field(spatial_dims, spacing)
    radius = float(np.clip(rng.lognormal(np.log(10.0), 0.45), 2.8, 29))
    centre = _off_centre(rng, radius, spatial_dims)
    image = world.liver(rng, grid, patient.liver_hu, patient.texture_hu)
    image = world.add_vessels(rng, grid, image, patient.vessel_hu)
    image = world.add_surroundings(rng, grid, image, centre, radius)
    for _ in range(siblings):
        image = _add_sibling(rng, grid, image, patient, lesion_class, centre, radius)
    image, depth = _add_lesion(rng, grid, image, patient, lesion_class, centre, radius)
    if rng.random() < 0.12:  # breathing
        image = gaussian_filter1d(image, float(rng.uniform(0.8, 1.8)) / spacing, axis=1, mode="nearest")
    mask = depth > 0
    if spatial_dims == 2:
        image, mask = image.mean(axis=2).T, (mask.mean(axis=2) > 0.5).T
    return _scanned(rng, image, mask, patient, spacing, noise_hu)


def _scanned(
    rng: np.random.Generator, image: Floats, mask: NDArray[np.bool_], patient: Patient, spacing: float, noise_hu: float
) -> Lesion:
    """Both kernels' images of one scan, and the lesion's measures."""
    white = rng.standard_normal(image.shape, np.float32)
    noise = noise_hu * patient.noise_factor
    soft = world.reconstruct(image, white, spacing, "soft", noise, patient.blur)
    sharp = world.reconstruct(image, white, spacing, "sharp", noise, patient.blur)
    middle = (np.argwhere(mask).mean(axis=0) - (np.asarray(mask.shape) - 1) / 2) * spacing
    measure = float(mask.sum()) * spacing**mask.ndim
    diameter = 2 * np.sqrt(measure / np.pi) if mask.ndim == 2 else np.cbrt(6 * measure / np.pi)
    x, y, z = (middle[1], middle[0], 0.0) if mask.ndim == 2 else middle
    return Lesion(soft, sharp, mask, float(diameter), (float(x), float(y), float(z)))


def _off_centre(rng: np.random.Generator, radius: float, spatial_dims: int) -> Floats:
    """A place for a lesion that keeps it inside the field; a 2D plane passes near the lesion's middle."""
    reach = min(15.0, world.FIELD_MM / 2 - 1.35 * radius - 1)
    place = world.unit_vector(rng) * np.float32(reach * rng.uniform(0.15, 1))
    if spatial_dims == 2:
        place[2] = rng.uniform(-0.4, 0.4) * radius
    return place


def _add_sibling(
    rng: np.random.Generator,
    grid: Grid,
    image: Floats,
    patient: Patient,
    lesion_class: str,
    centre: Floats,
    radius: float,
) -> Floats:
    """Another lesion of the patient, clear of the one at `centre`, if what lies there is liver."""
    size = float(np.clip(rng.lognormal(np.log(6.5), 0.4), 2.5, 14))
    place = centre + world.unit_vector(rng, 0.2) * np.float32(1.35 * (radius + size) + rng.uniform(3, 18))
    box, around = grid.window(place - 1.3 * size, place + 1.3 * size)
    if min(around.shape) == 0 or abs(float(image[box].mean()) - patient.liver_hu) > 12:
        return image
    return _add_lesion(rng, grid, image, patient, lesion_class, place, size)[0]


class _Shape(NamedTuple):
    """A lesion's region: its grid, mm inside its margin, the same from 0 at the margin to about 1 in the middle."""

    grid: Grid
    centre: Floats
    radius: float
    depth: Floats
    relative: Floats


class _Paint(NamedTuple):
    hu: Floats
    depth: Floats
    softness_mm: float


def _add_lesion(
    rng: np.random.Generator,
    grid: Grid,
    image: Floats,
    patient: Patient,
    lesion_class: str,
    centre: Floats,
    radius: float,
) -> tuple[Floats, Floats]:
    """The image with the lesion, and mm inside the lesion's margin at every grid point."""
    reach = np.float32(1.6 * radius + 5)
    box, part = grid.window(centre - reach, centre + reach)
    style = np.random.default_rng([patient.style_seed, CLASSES.index(lesion_class)])
    paint = PAINTERS[lesion_class](rng, style, part, patient, centre, radius)
    painted, depth = image.copy(), np.full(grid.shape, -99, np.float32)
    painted[box] = blend(image[box], paint.hu, paint.depth, paint.softness_mm)
    depth[box] = paint.depth
    return painted, depth


def _lobed(
    rng: np.random.Generator, grid: Grid, centre: Floats, radius: float, *, lobes: int, spread: float, rough: float
) -> _Shape:
    """A union of ellipsoids around `centre` with a surface made uneven by a random field."""
    depth: world.Floats = np.full(grid.shape, -99, np.float32)
    for _ in range(lobes):
        place = centre + world.unit_vector(rng) * np.float32(spread * radius * rng.uniform(0.5, 1))
        radii = radius * rng.uniform(0.8, 1.12, 3) * (1.0 if lobes == 1 else 0.84)
        lobe = world.ellipsoid_depth(grid, place, radii.astype(np.float32), world.rotation(rng))
        depth = np.maximum(depth, lobe)
    coarse, fine = (rough * radius, max(0.5 * radius, 1.2)), (0.45 * rough * radius, max(0.22 * radius, 1.2))
    depth = depth + world.smooth_field(rng, grid, coarse, fine)
    return _Shape(grid, centre, radius, depth, np.clip(depth / radius, 0, 1))


def _cyst(
    rng: np.random.Generator, style: np.random.Generator, grid: Grid, patient: Patient, centre: Floats, radius: float
) -> _Paint:
    """Water: sharp, round or oval, even. One in six patients has denser (proteinaceous or bled) cysts."""
    del patient
    base = style.normal(32, 8) if style.random() < 0.17 else style.normal(10, 6)
    lobes = 2 if rng.random() < 0.18 else 1
    shape = _lobed(rng, grid, centre, radius, lobes=lobes, spread=0.3 * (lobes - 1), rough=0.02)
    hu = np.full(grid.shape, np.clip(base + rng.normal(0, 3), -2, 48), np.float32)
    return _Paint(hu, shape.depth, float(rng.uniform(0.35, 0.8)))


def _metastasis(
    rng: np.random.Generator, style: np.random.Generator, grid: Grid, patient: Patient, centre: Floats, radius: float
) -> _Paint:
    """Hypo-attenuating and ill-defined: plain, with a rim (target), necrotic or cystic, as the primary tumour is."""
    kind = style.choice(["plain", "target", "necrotic", "cystic"], p=[0.4, 0.3, 0.19, 0.11])
    base = max(patient.liver_hu - style.uniform(32, 64), 34) + rng.normal(0, 3)
    softness = float(np.clip(style.uniform(0.8, 2.2) * rng.uniform(0.8, 1.2), 0.6, 0.18 * radius + 0.6))
    rough = 0.05 if kind == "cystic" else float(style.uniform(0.07, 0.14))
    shape = _lobed(rng, grid, centre, radius, lobes=int(rng.integers(1, 4)), spread=0.35, rough=rough)
    mottle = world.smooth_field(rng, grid, (1.0, max(0.18 * radius, 1.2)))
    hu = np.float32(base) + np.float32(style.uniform(4, 9)) * mottle
    inner = shape.relative - np.float32(style.uniform(0.28, 0.42)) + 0.07 * mottle
    if kind == "target":
        ring = base + style.uniform(16, 38) + 7 * mottle
        hu = blend(np.float32(ring) + np.zeros_like(hu), hu - style.uniform(2, 16), inner + 0.1, 0.07)
    elif kind == "necrotic":
        hu = blend(hu + 8, np.float32(style.normal(30, 7)) + 3 * mottle, inner, 0.07)
    elif kind == "cystic":
        hu = blend(hu, np.float32(style.normal(21, 7)) + 2 * mottle, inner + 0.2, 0.06)
        softness = 0.7
    return _Paint(hu.astype(np.float32), shape.depth, softness)


def _haemangioma(
    rng: np.random.Generator, style: np.random.Generator, grid: Grid, patient: Patient, centre: Floats, radius: float
) -> _Paint:
    """Lobulated, with discontinuous nodules at its rim as bright as vessels, filling in to a varying degree."""
    base = max(patient.liver_hu - style.uniform(28, 54), 38) + rng.normal(0, 3)
    blood = patient.vessel_hu - rng.uniform(-6, 14)
    shape = _lobed(rng, grid, centre, radius, lobes=int(rng.integers(2, 5)), spread=0.4, rough=0.05)
    mottle = world.smooth_field(rng, grid, (1.0, max(0.2 * radius, 1.2)))
    softness = float(rng.uniform(0.5, 1.1))
    if rng.random() < (0.3 if radius < 7 else 0.06):  # filled at once
        return _Paint((np.float32(blood) + 5 * mottle).astype(np.float32), shape.depth, softness)
    fill = float(rng.beta(1.3, 2.0))
    bright = np.full(grid.shape, -9, np.float32)
    for _ in range(int(rng.poisson(7 + 8 * fill)) if rng.random() > 0.07 else 0):
        place = centre + world.unit_vector(rng, 0.5) * np.float32(radius * rng.uniform(0.72, 0.98))
        size = radius * (0.2 + 0.26 * fill) * rng.uniform(0.7, 1.5, 3)
        nodule = world.ellipsoid_depth(grid, place, size.astype(np.float32), world.rotation(rng))
        bright = np.maximum(bright, nodule + np.float32(0.05 * radius) * mottle)
    hu = np.float32(base) + 5 * mottle + np.float32(14 * fill)
    hu = blend(hu, np.float32(blood) + 5 * mottle, bright, max(0.05 * radius, 0.5))
    return _Paint(hu.astype(np.float32), shape.depth, softness)


Painter = Callable[[np.random.Generator, np.random.Generator, Grid, Patient, Floats, float], _Paint]
PAINTERS: dict[str, Painter] = {"cyst": _cyst, "metastasis": _metastasis, "haemangioma": _haemangioma}
