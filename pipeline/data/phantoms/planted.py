"""Liver patches that are healthy, or hold one plain lesion of a chosen diameter and contrast: how little is found?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import DataError
from pipeline.data.phantoms import texture as world
from pipeline.data.phantoms.lesions import SPACING_MM, Patient
from pipeline.data.phantoms.texture import Floats, Grid

_MARGIN_MM = 0.8
_WIDEST_MM = 32.0
"""The liver's edge keeps clear of a lesion as wide as this, whatever is planted, so that it tells nothing of it."""


@dataclass(frozen=True)
class Patch:
    """A liver patch.

    Attributes:
        image: HU under the soft kernel, [rows, cols], or [X, Y, Z] with axes to left, posterior and superior.
        mask: the lesion, same shape, bool; nothing in a healthy patch.
    """

    image: Floats
    mask: NDArray[np.bool_]


def liver_patch(
    rng: np.random.Generator,
    spatial_dims: Literal[2, 3] = 2,
    *,
    diameter_mm: float = 0.0,
    contrast_hu: float = 0.0,
    surroundings: bool = True,
    spacing_mm: float | None = None,
    noise_hu: float = 12.0,
    blur: float = 1.0,
) -> Patch:
    """Simulate the liver of a patient of its own in a field of 96 mm.

    The same random numbers give the same liver, vessels, surroundings and noise, whatever is planted: a healthy patch
    and one with a lesion differ in the lesion alone.

    Args:
        diameter_mm: of the ball that is planted within 12 mm of the field's centre; 0 = a healthy patch.
        contrast_hu: the lesion's HU less those of the patient's liver.
        surroundings: whether about half of the patches show the liver's edge and what lies beyond.
        spacing_mm: pixel size; None = 1.0 in 2D, 1.5 in 3D.
        noise_hu, blur: of the scanner; see `lesion_image` and `Patient`.

    Raises:
        DataError: the lesion does not fit.
    """
    if not 0 <= diameter_mm <= _WIDEST_MM:
        raise DataError(f"phantoms: diameter_mm must lie in [0, {_WIDEST_MM:g}]; it is {diameter_mm:g}")
    patient = Patient.draw(rng, blur)
    spacing = spacing_mm or SPACING_MM[spatial_dims]
    grid = Grid.of_field(spatial_dims, spacing)
    centre = world.unit_vector(rng) * np.float32(rng.uniform(0, 12))
    if spatial_dims == 2:
        centre[2] = 0
    image = world.liver(rng, grid, patient.liver_hu, patient.texture_hu)
    image = world.add_vessels(rng, grid, image, patient.vessel_hu)
    if surroundings:
        image = world.add_surroundings(rng, grid, image, centre, _WIDEST_MM / 2)
    mask = np.zeros(grid.shape, dtype=bool)
    if diameter_mm:
        radii = np.full(3, diameter_mm / 2, np.float32)
        depth = world.ellipsoid_depth(grid, centre, radii, np.eye(3, dtype=np.float32))
        image = world.blend(image, patient.liver_hu + contrast_hu, depth, _MARGIN_MM)
        mask = depth > 0
    if spatial_dims == 2:
        image, mask = image.mean(axis=2).T, (mask.mean(axis=2) > 0.5).T
    white = rng.standard_normal(image.shape, np.float32)
    noise = noise_hu * patient.noise_factor
    return Patch(world.reconstruct(image, white, spacing, "soft", noise, patient.blur), mask)
