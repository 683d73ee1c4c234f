"""Flat image files (PNG, JPEG) and bare numpy arrays."""

from __future__ import annotations

import warnings
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps

from pipeline.core.errors import UnreadableImage
from pipeline.data.readers.image import Image, grey, require_finite

_NUMBERS = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # Pillow modes with one number per pixel, wider than 8 bits
_PNG_COLOUR_TYPES = (2, 4, 6)  # RGB, grey with alpha, RGBA


def read_raster(path: Path) -> Image:
    """Read a PNG or JPEG as grey [1, rows, cols] in its own range: 0..255, or 0..65535 for 16 bits.

    Colour becomes luminance, transparency is laid over black, the EXIF orientation is applied. The file does not say a
    spacing that can be trusted (its dots per inch are for print), so spacing is 1.0.

    Raises:
        UnreadableImage: a damaged or cut file, a size that looks like an attack, 16-bit colour.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Pillow.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning)
            with Pillow.open(path) as opened:
                if opened.format == "PNG":
                    _refuse_deep_colour(path)
                    frames = int(getattr(opened, "n_frames", 1))
                    if frames > 1:
                        raise UnreadableImage(path, f"the PNG holds {frames} frames: save one a file")
                array = _grey(path, ImageOps.exif_transpose(opened))
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning):
        reason = f"the image has more than {Pillow.MAX_IMAGE_PIXELS} pixels: make it smaller, or cut it into parts"
        raise UnreadableImage(path, reason) from None
    except UnreadableImage:
        raise
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = f"the image cannot be decoded ({type(error).__name__}): it is damaged or cut short, export it again"
        raise UnreadableImage(path, reason) from None
    require_finite(path, array)
    return _unplaced(array)


def read_npy(path: Path, *, spatial_dims: int) -> Image:
    """Read a numpy array file without channel axis, [rows, cols] or [X, Y, Z]; pickled objects are never loaded.

    Raises:
        UnreadableImage: a damaged file, another number of axes than `spatial_dims`, no real numbers, NaN.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TokenError) as error:
        reason = (
            f"the array cannot be read ({type(error).__name__}): it is cut short or holds objects, save plain numbers"
        )
        raise UnreadableImage(path, reason) from None
    if mapped.dtype.kind not in "iufb":
        raise UnreadableImage(path, f"the array holds {mapped.dtype}: save it as integers or real numbers")
    if mapped.ndim != spatial_dims:
        reason = f"the array has {mapped.ndim} axes (shape {mapped.shape}), but spatial_dims is {spatial_dims}: "
        raise UnreadableImage(path, reason + "save it without a channel axis, or change spatial_dims")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
        array = mapped.astype(np.float32)
    require_finite(path, array)
    return _unplaced(array)


def _unplaced(array: NDArray[np.float32]) -> Image:
    return Image(array[None], np.eye(4), (1.0,) * array.ndim, "none", {"spacing_known": "false"})


def _grey(path: Path, picture: Pillow.Image) -> NDArray[np.float32]:
    if picture.mode in _NUMBERS:
        return np.asarray(picture).astype(np.float32)
    if picture.mode == "1":
        picture = picture.convert("L")
    if picture.mode in ("L", "RGB") and "transparency" not in picture.info:
        values: NDArray[Any] = np.asarray(picture)
        return values.astype(np.float32) if picture.mode == "L" else grey(path, values)
    if picture.has_transparency_data:
        rgba = np.asarray(picture.convert("RGBA")).astype(np.float64)
        return grey(path, rgba[..., :3] * (rgba[..., 3:] / 255))
    return grey(path, np.asarray(picture.convert("RGB")))


def _refuse_deep_colour(path: Path) -> None:
    """Pillow cuts 16-bit colour to 8 bits without a word; the PNG header tells (bit depth, colour type at byte 24)."""
    with path.open("rb") as file:
        depth, colour_type = file.read(26)[24:26]
    if depth == 16 and colour_type in _PNG_COLOUR_TYPES:
        reason = "16-bit PNG with colour or transparency would lose half its bits: save it as 16-bit grey"
        raise UnreadableImage(path, reason)
