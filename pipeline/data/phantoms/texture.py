"""What a CT phantom is made of before there is a lesion: grid, liver, vessels, surroundings, kernels and noise.

Everything is in mm and HU on a grid whose axes are DICOM's: x to the left, y to posterior, z to superior. A 2D phantom
is a 4 mm slab of the same world, three planes averaged: small things fade by partial volume, as in a thick slice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.special import expit

Floats = NDArray[np.floating]
Kernel = Literal["soft", "sharp"]
Axes = tuple[Floats, Floats, Floats]

FIELD_MM = 96.0
SLAB_MM = 4.0
SLAB_PLANES = 3
MTF = {"soft": (0.9, 0.0), "sharp": (0.62, 0.35)}
"""A kernel's blur in plane (mm, standard deviation) and edge enhancement (fraction)."""
PROFILE_MM = 0.9
"""A volume's blur between planes (mm, standard deviation)."""


@dataclass(frozen=True)
class Grid:
    """A box of points: `axes` are mm along x, y and z, shaped to broadcast to [X, Y, Z]; the field's centre is 0."""

    axes: Axes
    steps: tuple[float, float, float]

    @classmethod
    def of_field(cls, spatial_dims: int, spacing_mm: float) -> Grid:
        """The whole field of view, `FIELD_MM` wide; in 2D a slab of `SLAB_PLANES` planes."""
        count = max(8, round(FIELD_MM / spacing_mm))
        line = (np.arange(count, dtype=np.float32) - (count - 1) / 2) * np.float32(spacing_mm)
        step = SLAB_MM / SLAB_PLANES
        planes = (np.arange(SLAB_PLANES, dtype=np.float32) - (SLAB_PLANES - 1) / 2) * np.float32(step)
        depth, depth_step = (line, spacing_mm) if spatial_dims == 3 else (planes, step)
        axes = (line[:, None, None], line[None, :, None], depth[None, None, :])
        return cls(axes, (spacing_mm, spacing_mm, depth_step))

    @property
    def shape(self) -> tuple[int, int, int]:
        x, y, z = self.axes
        return x.size, y.size, z.size

    def window(self, low: Floats, high: Floats) -> tuple[tuple[slice, slice, slice], Grid]:
        """The part between two corners, as slices into [X, Y, Z] and as a grid; it may be empty."""
        spans = []
        for axis, step, start, end in zip(self.axes, self.steps, low.tolist(), high.tolist(), strict=True):
            first = axis.item(0)
            last = min(math.ceil((end - first) / step), axis.size)
            spans.append(slice(min(max(math.ceil((start - first) / step), 0), max(last, 0)), max(last, 0)))
        x, y, z = spans
        return (x, y, z), Grid((self.axes[0][x], self.axes[1][:, y], self.axes[2][:, :, z]), self.steps)

    def may_meet(self, lows: Floats, highs: Floats) -> NDArray[np.bool_]:
        """For boxes between corners [N, 3] each, whether `window` may be other than empty [N]."""
        first = np.array([axis.item(0) for axis in self.axes])
        last = np.array([axis.item(axis.size - 1) for axis in self.axes])
        meets: NDArray[np.bool_] = (highs >= first) & (lows <= last + self.steps)
        return np.asarray(meets.all(axis=1))

    def offsets(self, centre: Floats) -> Axes:
        """Mm from `centre` along each axis."""
        x, y, z = self.axes
        return x - centre[0], y - centre[1], z - centre[2]


def unit_vector(rng: np.random.Generator, flatness: float = 1.0) -> Floats:
    """A random direction; `flatness` below 1 turns it towards the axial plane."""
    vector = rng.standard_normal(3).astype(np.float32)
    vector[2] *= np.float32(flatness)
    return vector / length(vector)


def length(vector: Floats) -> np.floating:
    """Of a short vector: the same as numpy's norm, which looks first at what it is given."""
    return np.sqrt(vector.dot(vector))


def _cross(left: Floats, right: Floats) -> Floats:
    """The cross product of two vectors [3]."""
    (a, b, c), (x, y, z) = left, right
    return np.array([b * z - c * y, c * x - a * z, a * y - b * x])


def blend(base: Floats, value: Floats | float, depth_mm: Floats, softness_mm: float) -> Floats:
    """`value` where `depth_mm` is positive, `base` where it is negative, with a border some `softness_mm` wide."""
    weight: Floats = expit(depth_mm / np.float32(softness_mm))
    return base + (value - base) * weight


def smooth_field(rng: np.random.Generator, grid: Grid, *parts: tuple[float, float]) -> Floats:
    """A Gaussian random field, the sum of independent parts (standard deviation, correlation length in mm)."""
    squared = sum(np.square(f) for f in _frequencies(grid.shape, grid.steps))
    power: Floats = np.zeros((), np.float32)
    for deviation, length_mm in parts:
        part = np.exp(np.float32(-2 * np.pi**2 * length_mm**2) * squared)
        power = power + np.square(part) * np.float32(deviation**2 / _mean_square(part, grid.shape))
    return _filtered(rng.standard_normal(grid.shape, np.float32), np.sqrt(power))


def liver(rng: np.random.Generator, grid: Grid, mean_hu: float, texture_hu: float) -> Floats:
    """Parenchyma: a mean with a fine and a coarse mottle."""
    return mean_hu + smooth_field(rng, grid, (0.8 * texture_hu, 1.8), (0.6 * texture_hu, 9.0))


class _Segment(NamedTuple):
    start: Floats
    end: Floats
    radius: float


def add_vessels(rng: np.random.Generator, grid: Grid, image: Floats, vessel_hu: float) -> Floats:
    """Hepatic and portal veins: branching tubes that enter from the field's border and taper to below a voxel."""
    depth = np.full(grid.shape, -9, np.float32)
    for _ in range(int(rng.integers(3, 7))):
        segments = _vessel_tree(rng)
        starts, ends = (np.stack(places) for places in zip(*((one.start, one.end) for one in segments), strict=True))
        margins = np.array([one.radius + 2.5 for one in segments], np.float32)[:, None]
        lows, highs = np.minimum(starts, ends) - margins, np.maximum(starts, ends) + margins
        for number in np.flatnonzero(grid.may_meet(lows, highs)):  # most vessels run outside the field
            segment = segments[number]
            box, part = grid.window(lows[number], highs[number])
            if min(part.shape) > 0:
                depth[box] = np.maximum(depth[box], segment.radius - _distance(part, segment))
    return blend(image, vessel_hu, depth, 0.45)


def _vessel_tree(rng: np.random.Generator) -> list[_Segment]:
    inward = unit_vector(rng)
    start = (-FIELD_MM * 0.6 * inward + rng.normal(0, 14, 3)).astype(np.float32)
    tips = [(start, inward, float(rng.uniform(1.8, 5.5)))]
    segments = []
    while tips:
        place, heading, radius = tips.pop()
        for _ in range(int(rng.integers(2, 5))):
            heading = heading + rng.normal(0, 0.16, 3).astype(np.float32)
            heading /= length(heading)
            end = place + heading * np.float32(2.0 * radius + rng.uniform(2, 6))
            segments.append(_Segment(place, end, radius))
            place, radius = end, radius * 0.96
        if radius > 0.75:
            side = _cross(heading, unit_vector(rng)).astype(np.float32)
            spread = rng.uniform(0.35, 0.9, 2)
            shrink = rng.uniform([0.75, 0.5], [0.92, 0.8])
            tips += [(place, heading + side * np.float32(spread[0]), radius * float(shrink[0]))]
            tips += [(place, heading - side * np.float32(spread[1]), radius * float(shrink[1]))]
    return segments


def _distance(grid: Grid, segment: _Segment) -> Floats:
    """Mm from each grid point to a line segment."""
    axis = segment.end - segment.start
    x, y, z = grid.offsets(segment.start)
    along = np.clip((x * axis[0] + y * axis[1] + z * axis[2]) / np.dot(axis, axis), 0, 1)
    squared: Floats = (x - along * axis[0]) ** 2 + (y - along * axis[1]) ** 2 + (z - along * axis[2]) ** 2
    return np.sqrt(squared)


def ellipsoid_depth(grid: Grid, centre: Floats, radii: Floats, turn: Floats) -> Floats:
    """Mm inside an ellipsoid's surface (negative outside; exact for a sphere). Rows of `turn` [3, 3] are its axes."""
    offsets = grid.offsets(centre)
    scaled = [sum(offsets[i] * axis[i] for i in range(3)) / radius for axis, radius in zip(turn, radii, strict=True)]
    squared: Floats = scaled[0] ** 2 + scaled[1] ** 2 + scaled[2] ** 2
    return np.float32(np.cbrt(np.prod(radii))) * (1 - np.sqrt(squared))


def rotation(rng: np.random.Generator) -> Floats:
    """A random orthogonal matrix [3, 3]."""
    return np.linalg.qr(rng.standard_normal((3, 3)))[0].astype(np.float32)


def add_surroundings(rng: np.random.Generator, grid: Grid, image: Floats, clear_of: Floats, reach: float) -> Floats:
    """The liver's edge, in about half of the fields, and what lies beyond it, in its order from the capsule outwards.

    Args:
        clear_of: mm, the lesion's centre, which stays inside the liver.
        reach: mm, the lesion's radius; the edge keeps at least this distance from its centre.
    """
    if rng.random() > 0.55:
        return image
    outward = unit_vector(rng, flatness=0.3)
    curvature = float(rng.uniform(55, 220))
    edge = reach * 1.3 + 2 + float(rng.exponential(11))
    middle = clear_of + outward * np.float32(edge - curvature)
    x, y, z = grid.offsets(middle)
    beyond = np.sqrt(x * x + y * y + z * z) - curvature
    beyond = beyond + smooth_field(rng, grid, (float(rng.uniform(1, 4)), 16.0), (0.7, 5.0))
    mottle = smooth_field(rng, grid, (1.0, 2.5))
    kind = rng.choice(["wall", "fat", "lung"], p=[0.5, 0.33, 0.17])
    if kind == "lung":
        image = blend(image, 55.0, beyond, 0.6)
        return blend(image, -860 + 25 * mottle, beyond - 2.5, 1.2)
    fat = -98 + 7 * mottle
    surface = clear_of + outward * np.float32(edge)
    if kind == "fat":
        return _organ(rng, grid, blend(image, fat, beyond, 0.6), surface, outward)
    image = blend(blend(image, fat, beyond, 0.6), 58 + 9 * mottle, beyond - float(rng.uniform(0, 3)), 0.7)
    image = _ribs(rng, grid, image, surface + outward * 9, outward)
    return blend(image, fat, beyond - float(rng.uniform(13, 24)), 0.9)


def _organ(rng: np.random.Generator, grid: Grid, image: Floats, surface: Floats, outward: Floats) -> Floats:
    """A kidney or a loop of bowel in the fat beyond `surface`."""
    radii = rng.uniform([15, 15, 22], [22, 22, 32]).astype(np.float32)
    centre = surface + outward * np.float32(radii.max() * 0.75 + rng.uniform(3, 8)) + rng.normal(0, 5, 3)
    depth = ellipsoid_depth(grid, centre.astype(np.float32), radii, rotation(rng))
    depth = np.minimum(depth + smooth_field(rng, grid, (1.2, 5.0)), _behind(grid, surface + outward * 2, outward))
    wall, content, thickness = (175.0, 120.0, 6.0) if rng.random() < 0.5 else (75.0, 22.0, 3.0)
    return blend(blend(image, wall, depth, 0.6), content, depth - thickness, 1.2)


def _behind(grid: Grid, place: Floats, outward: Floats) -> Floats:
    """Mm from a plane through `place`, positive on the side that `outward` points to."""
    x, y, z = grid.offsets(place)
    depth: Floats = x * outward[0] + y * outward[1] + z * outward[2]
    return depth


def _ribs(rng: np.random.Generator, grid: Grid, image: Floats, place: Floats, outward: Floats) -> Floats:
    """Two ribs that run oblique to the axial plane inside the wall: cortex around marrow."""
    around = np.cross(outward, np.asarray([0, 0, 1], np.float32))
    direction = (around + rng.normal(0, 0.25, 3)).astype(np.float32)
    for shift in (float(rng.uniform(-8, 4)), float(rng.uniform(16, 26))):
        middle = place + np.asarray([0, 0, shift], np.float32) + around * np.float32(rng.uniform(-20, 20))
        half = direction * np.float32(rng.uniform(9, 16))
        depth = np.float32(4.5) - _distance(grid, _Segment(middle - half, middle + half, 4.5))
        image = blend(blend(image, 520.0, depth, 0.5), 190.0, depth - 1.8, 0.7)
    return image


def reconstruct(
    image: Floats, white: Floats, spacing_mm: float, kernel: Kernel, noise_hu: float, blur: float
) -> Floats:
    """The object and its noise as one scanner's kernel shows them.

    The noise power spectrum is that of filtered back projection, frequency x MTF^2 in plane. Its strength is set so
    that `noise_hu` is the standard deviation under the soft kernel; the sharp one passes more of the same noise.

    Args:
        image: HU, [X, Y] or [X, Y, Z].
        white: white noise of unit variance, of the image's shape; the same for both kernels of one scan.
        blur: the scanner's own factor on the kernel's width.
    """
    frequencies = _frequencies(image.shape, (spacing_mm,) * image.ndim)
    noise_filter = _noise_filter(frequencies, kernel, blur)
    strength = noise_hu / np.sqrt(_mean_square(_noise_filter(frequencies, "soft", 1.0), image.shape))
    padding = [(8, 8)] * image.ndim
    padded = np.pad(image, padding, mode="reflect")
    seen = _filtered(padded, _mtf(_frequencies(padded.shape, (spacing_mm,) * image.ndim), kernel, blur))
    inner = tuple(slice(8, -8) for _ in range(image.ndim))
    return seen[inner] + _filtered(white, noise_filter * np.float32(strength))


def _mtf(frequencies: list[Floats], kernel: Kernel, blur: float) -> Floats:
    """The kernel's transfer function in plane, times in 3D the slice profile's, which no kernel changes."""
    sigma, boost = MTF[kernel]
    in_plane = np.square(frequencies[0]) + np.square(frequencies[1])
    narrow = np.exp(-2 * np.pi**2 * (sigma * blur) ** 2 * in_plane)
    transfer = narrow + boost * (narrow - np.exp(-2 * np.pi**2 * (1.3 * blur) ** 2 * in_plane))
    if len(frequencies) == 3:
        transfer = transfer * np.exp(-2 * np.pi**2 * PROFILE_MM**2 * np.square(frequencies[2]))
    return np.asarray(transfer, np.float32)


def _noise_filter(frequencies: list[Floats], kernel: Kernel, blur: float) -> Floats:
    in_plane: Floats = np.sqrt(np.square(frequencies[0]) + np.square(frequencies[1]))
    return np.sqrt(in_plane + np.float32(0.01)) * _mtf(frequencies, kernel, blur)


def _frequencies(shape: tuple[int, ...], steps: tuple[float, ...]) -> list[Floats]:
    """Cycles per mm along each axis, for the real transform, shaped to broadcast."""
    lines = [np.fft.fftfreq(count, step) for count, step in zip(shape[:-1], steps[:-1], strict=True)]
    lines.append(np.fft.rfftfreq(shape[-1], steps[-1]))
    return [
        line.astype(np.float32).reshape([-1 if axis == i else 1 for axis in range(len(shape))])
        for i, line in enumerate(lines)
    ]


def _mean_square(half: Floats, shape: tuple[int, ...]) -> float:
    """Mean of `half`^2 over the whole spectrum: the variance that it gives to white noise."""
    twice = np.full(half.shape[-1], 2.0)
    twice[0] = 1.0
    if shape[-1] % 2 == 0:
        twice[-1] = 1.0
    return float((np.square(half) * twice).sum() / np.prod(shape))


def _filtered(values: Floats, half: Floats) -> Floats:
    return np.asarray(fft.irfftn(fft.rfftn(values) * half, s=values.shape), np.float32)
