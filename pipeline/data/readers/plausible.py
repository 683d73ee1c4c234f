"""What values and sizes an image of a patient can have, so that a wrong mark in a header is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.core.errors import UnreadableImage
from pipeline.data.readers.image import Image

HIGHEST_HU = 32767.0
"""Metal in extended scales ends at 30,710 HU (12 bits at slope 10) or 31,743 HU (16 bits from -1024)."""
LOWEST_HU = -1500.0
"""Air is -1000; noise and overshoot reach -1500 in hardly any pixel, and padding is one number below."""
AIR_AT_MOST = -200.0
"""A CT without a value at or below this shows no air and no padding: a crop inside the body, or not in HU."""

_DENSE_HU = 3071.0  # the end of the ordinary 12-bit scale: metal only
_PADDING_HU = -3100.0  # the lowest of the usual paddings is -3024
_OFFSET = 500.0  # HU: intercepts are -1024, -1000 or 0, or negative by more
_SPAN = 300.0  # HU, less than any window on CT that shows air and tissue
_SIZE_MM = (0.003, 100.0)
_EXTENT_MM = 5000.0
_SIDES = 50.0  # times the shorter side of a pixel


def hu_fault(values: NDArray[Any]) -> str:
    """Why these values cannot be Hounsfield units, with the mend; empty where they can. Leave declared padding out.

    Padding that the file does not declare is one or two numbers far below air (blurred where it was compressed with
    loss), and is passed over.
    """
    if not values.size:
        return ""
    lowest, highest = float(values.min()), float(values.max())
    if highest > HIGHEST_HU:
        high = np.count_nonzero(values > HIGHEST_HU)
        return (
            f"impossible as Hounsfield units: {high} of {values.size} values lie above {HIGHEST_HU:g} HU, up to "
            f"{highest:g}. Signed numbers marked unsigned give this (PixelRepresentation 0 where it should be 1, "
            "often after an anonymiser or converter), or a lost rescale: export the original again"
        )
    if highest > _DENSE_HU and _half_above(values, _DENSE_HU):
        return (
            f"impossible as Hounsfield units: half of the values lie above {_DENSE_HU:g} HU, which only metal reaches: "
            "the rescale or the sign of the numbers is wrong, export the original again"
        )
    low = _no_padding(values[values < LOWEST_HU]) if lowest < LOWEST_HU else 0
    if low > 0.05 * values.size:
        return (
            f"impossible as Hounsfield units: {low} of {values.size} values lie below {LOWEST_HU:g} HU, far below air, "
            "and are no padding: the rescale or the sign of the numbers is wrong, or the unit is not HU"
        )
    return ""


def guessed_unit(values: NDArray[Any]) -> str:
    """The unit of a file that cannot state one: `HU` where the values reach `AIR_AT_MOST` and can be HU, else `none`.

    CT holds air or padding, while masks, X-ray and MR hold hardly anything negative. Ingest says what was guessed.
    """
    return "HU" if float(values.min()) <= AIR_AT_MOST and not hu_fault(values) else "none"


def joined_to_border(marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The marked pixels [rows, cols] of regions that touch the image's border."""
    regions, _ = ndimage.label(marked)
    border = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    return np.isin(regions, border[border > 0])


def sign_fault(
    image: NDArray[Any], inside: NDArray[np.bool_], *, signed: bool, bits: int, slope: float, intercept: float
) -> str:
    """Why a CT's stored numbers must have the other sign than their mark says; empty where the mark can be right.

    `image` [rows, cols] counts where it is `inside`, that is not padding.

    A range that has no room for air (unsigned from 0 HU), or ends below dense bone (signed and up to 1023 HU), is not
    a scanner's; whether numbers are there that wrapped around decides.
    """
    numbers = image if inside.all() else image[inside]
    if not numbers.size or slope < 0:
        return ""
    lowest = float(numbers.min()) * slope + intercept
    if not signed and bits > 8 and intercept > AIR_AT_MOST:  # no CT is signed in 8 bits
        values, wrapped = numbers * slope + intercept, numbers >= 2 ** (bits - 1)
        turned = values[wrapped] - 2.0**bits * slope
        gap = numbers[wrapped].min(initial=2**bits) - numbers[~wrapped].max(initial=0)
        if wrapped.mean() >= 0.01 and ((turned >= _PADDING_HU) & (turned < 0)).mean() > 0.95 and gap > 2**bits / 8:
            return (
                f"signed numbers are marked unsigned: {int(wrapped.sum())} values from {values[wrapped].min():g} HU "
                "up are those of air or fat once PixelRepresentation is 1: set it, or export the original again"
            )
    if intercept >= _OFFSET and lowest > AIR_AT_MOST:
        return (
            f"the rescale is implausible: with RescaleIntercept {intercept:g} the lowest value is {lowest:g} HU, "
            "so air has none: is its sign wrong? Export the original"
        )
    end = (2**bits - 1) * slope + intercept
    if not signed and (intercept >= 0 or end < 0):
        missing = "air" if end > 0 else "tissue"
        return (
            f"this CT's header has room for {intercept:g} to {end:g} HU only, so for no {missing} (unsigned numbers, "
            f"RescaleIntercept {intercept:g}): a window was burnt in or the rescale was lost, export the original"
        )
    if 2**bits * slope < _SPAN:
        return (
            f"the rescale is implausible: RescaleSlope {slope:g} spreads {bits} bits over {2**bits * slope:.3g} HU, "
            "too little for air and tissue: export the original"
        )
    if signed and (2 ** (bits - 1) - 1) * slope + intercept < -LOWEST_HU and lowest < LOWEST_HU:
        values = image * slope + intercept
        deep = inside & (values < LOWEST_HU)
        low = max(_varied(values[deep]), int((deep & ~joined_to_border(deep)).sum()))
        if low:
            return (
                f"unsigned numbers are marked signed: {low} values lie below {LOWEST_HU:g} HU and are dense bone or "
                "metal once PixelRepresentation is 0: set it, or export the original again"
            )
    return ""


def refuse_implausible_size(path: Path, image: Image) -> None:
    """Raise `UnreadableImage` for a stated spacing that no image of a patient has, such as metres taken for mm."""
    if image.meta.get("spacing_known") == "false":
        return
    shape = image.array.shape[1:]
    text = " x ".join(f"{mm:.4g}" for mm in image.spacing)
    if not all(_SIZE_MM[0] <= mm <= _SIZE_MM[1] for mm in image.spacing):
        wrong = f"the spacing is {text} mm a voxel"
    elif len(shape) == 2 and max(image.spacing) > _SIDES * min(image.spacing):
        wrong = f"the spacing is {text} mm, one side {max(image.spacing) / min(image.spacing):.0f} times another"
    elif max(mm * size for mm, size in zip(image.spacing, shape, strict=True)) > _EXTENT_MM:
        wrong = f"at a spacing of {text} mm the image is more than {_EXTENT_MM / 1000:g} m long"
    else:
        return
    reason = f"{wrong}, which no image of a patient has: is its length unit right (mm, metre, micron; in NIfTI "
    raise UnreadableImage(path, reason + "xyzt_units)? Mend the header's unit or spacing")


def _half_above(values: NDArray[Any], bound: float) -> bool:
    """Whether the median lies above `bound`; it is sought only where so many values do that it may."""
    return bool(2 * np.count_nonzero(values > bound) >= values.size) and float(np.median(values)) > bound


def _varied(low: NDArray[Any]) -> int:
    """How many values are not one of the two most frequent numbers among them, which padding may be."""
    counts = np.sort(np.unique(low, return_counts=True)[1])
    return int(counts[:-2].sum())


def _no_padding(low: NDArray[Any]) -> int:
    """How many values lie beyond 150 HU of the two most frequent hundreds among them."""
    hundreds, counts = np.unique(np.floor(low / 100), return_counts=True)
    for hundred in hundreds[np.argsort(counts)[-2:]]:
        low = low[np.abs(low - 100 * (hundred + 0.5)) > 150]
    return int(low.size)
