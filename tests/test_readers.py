"""Telling kinds of files apart, and the readers of PNG, JPEG, npy and NIfTI. Expected values are worked out by hand."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from PIL import Image as Pillow
from pydicom.data import get_testdata_file
from refusals import refusal

from pipeline.core.errors import UnreadableImage
from pipeline.data.images import read_image
from pipeline.data.readers.kinds import sniff


def pack(name: str) -> Path:
    root = Path(os.environ.get("RADAUG_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (root / name).is_dir():
        pytest.skip(f"the data pack {name} is not here: set RADAUG_DATA to the folder that holds it")
    return root / name


# ---- telling kinds apart


def test_kind_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    grey = Pillow.fromarray(np.zeros((4, 4), np.uint8))
    grey.save(tmp_path / "a.dcm", format="PNG")
    grey.save(tmp_path / "b", format="JPEG")
    slice_bytes = Path(str(get_testdata_file("CT_small.dcm", download=False))).read_bytes()
    (tmp_path / "c.png").write_bytes(slice_bytes)
    (tmp_path / "d").write_bytes(slice_bytes[144:])  # no preamble, no group length
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.int16), np.eye(4)), tmp_path / "e.nii.gz")
    (tmp_path / "e.nii.gz").rename(tmp_path / "e")
    nib.save(nib.Nifti2Image(np.zeros((3, 3, 3), np.int16), np.eye(4)), tmp_path / "f.nii")
    np.save(tmp_path / "g.npy", np.zeros((3, 3)))
    (tmp_path / "h.dcm").write_text("not an image at all")
    kinds = [sniff(tmp_path / name) for name in ("a.dcm", "b", "c.png", "d", "e", "f.nii", "g.npy", "h.dcm")]
    assert kinds == ["png", "jpeg", "dicom", "dicom", "nifti", "nifti", "npy", "unknown"]


def test_wrong_dimensions_kinds_and_paths_are_refused_by_name(tmp_path: Path) -> None:
    Pillow.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "c.tif").write_bytes(b"II*\0 and so on")
    assert "spatial_dims is 3" in refusal(tmp_path / "a.png", 3)
    assert "one flat DICOM slice" in refusal(Path(str(get_testdata_file("CT_small.dcm", download=False))), 3)
    assert "folder" in refusal(tmp_path, 2)
    assert "convert" in refusal(tmp_path / "c.tif")
    assert "check the path" in refusal(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match="2 or 3"):
        read_image(tmp_path / "a.png", spatial_dims=4)


# ---- PNG, JPEG, npy


def test_grey_levels_keep_their_range(tmp_path: Path) -> None:
    eight = np.array([[0, 7, 255]], np.uint8)
    sixteen = np.array([[0, 300, 65535]], np.uint16)
    Pillow.fromarray(eight).save(tmp_path / "a.png")
    Pillow.fromarray(sixteen).save(tmp_path / "b.png")
    for name, expected in (("a.png", eight), ("b.png", sixteen)):
        image = read_image(tmp_path / name, spatial_dims=2)
        np.testing.assert_array_equal(image.array[0], expected)
        assert (image.array.dtype, image.unit, image.spacing) == (np.float32, "none", (1.0, 1.0))
        assert image.meta == {"spacing_known": "false"}


@pytest.mark.parametrize(
    ("mode", "pixel", "expected"),
    [
        ("1", 1, 255),
        ("LA", (200, 51), 40),  # 200 * 51 / 255 over black
        ("RGB", (100, 100, 100), 100),
        ("RGB", (10, 20, 30), 18),  # 2.99 + 11.74 + 3.42 = 18.15
        ("RGBA", (255, 255, 255, 0), 0),
        ("RGBA", (250, 250, 250, 102), 100),
        ("P", 0, 0),
    ],
)
def test_every_png_mode_becomes_grey(tmp_path: Path, mode: str, pixel: Any, expected: int) -> None:
    Pillow.new(mode, (3, 2), pixel).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", spatial_dims=2)
    np.testing.assert_array_equal(image.array, np.full((1, 2, 3), expected))


def test_palette_png_is_read_through_its_palette_and_transparency(tmp_path: Path) -> None:
    picture = Pillow.fromarray(np.array([[0, 1, 2]], np.uint8), mode=None).convert("L")
    picture = Pillow.frombytes("P", (3, 1), picture.tobytes())
    picture.putpalette([255, 255, 255, 80, 80, 80, 9, 9, 9])
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "b.png", transparency=0)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", spatial_dims=2).array[0, 0], [255, 80, 9])
    np.testing.assert_array_equal(read_image(tmp_path / "b.png", spatial_dims=2).array[0, 0], [0, 80, 9])
    Pillow.fromarray(np.array([[200, 90]], np.uint8)).save(tmp_path / "c.png", transparency=200)
    np.testing.assert_array_equal(read_image(tmp_path / "c.png", spatial_dims=2).array[0, 0], [0, 90])


def test_cmyk_jpeg_becomes_grey(tmp_path: Path) -> None:
    Pillow.new("CMYK", (8, 8), (0, 0, 0, 55)).save(tmp_path / "a.jpg", quality=100)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg", spatial_dims=2).array, 200, atol=2)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    pixels = np.zeros((16, 32), np.uint8)
    pixels[:8, :8] = 255  # top left as stored; orientation 6 says: turn by 90 degrees clockwise to show
    exif = Pillow.Exif()
    exif[0x0112] = 6
    Pillow.fromarray(pixels).save(tmp_path / "a.jpg", quality=100, exif=exif)
    array = read_image(tmp_path / "a.jpg", spatial_dims=2).array[0]
    assert array.shape == (32, 16)
    assert array[:8, 8:].min() > 250
    assert array[:8, :8].max() < 5


def test_damaged_huge_and_deep_colour_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Pillow.fromarray(noise).save(tmp_path / "whole.png")
    Pillow.fromarray(noise).save(tmp_path / "whole.jpg")
    for name in ("whole.png", "whole.jpg"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / "cut").write_bytes(content[: len(content) // 2])
        assert "damaged or cut short" in refusal(tmp_path / "cut")

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + b"\1\2" * 3)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert "16-bit" in refusal(tmp_path / "deep.png")
    for limit in (3000, 1000):  # Pillow warns above its limit, and raises above twice its limit
        monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", limit)
        assert f"more than {limit} pixels" in refusal(tmp_path / "whole.png")


def test_npy_arrays_in_both_dimensions(tmp_path: Path) -> None:
    flat, solid = np.arange(6).reshape(2, 3), np.arange(24.0).reshape(2, 3, 4)
    np.save(tmp_path / "a.npy", flat)
    np.save(tmp_path / "b.npy", solid)
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy", spatial_dims=2).array, flat[None])
    np.testing.assert_array_equal(read_image(tmp_path / "b.npy", spatial_dims=3).array, solid[None])
    assert read_image(tmp_path / "b.npy", spatial_dims=3).spacing == (1.0, 1.0, 1.0)
    assert "3 axes" in refusal(tmp_path / "b.npy", 2)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "b.npy").read_bytes()[:200])
    assert "cut short" in refusal(tmp_path / "cut.npy", 3)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([[{}]], object), "objects"),
        (np.array([[1j]]), "complex"),
        (np.array([[1.0, np.inf]]), "1 of 2 values"),
        (np.array([[1.0, 1e300]]), "1 of 2 values"),
        (np.zeros((0, 3)), "empty"),
    ],
)
def test_unusable_arrays_are_refused(tmp_path: Path, array: np.ndarray, words: str) -> None:
    np.save(tmp_path / "a.npy", array)
    assert words in refusal(tmp_path / "a.npy")


# ---- NIfTI


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def test_volume_comes_as_stored_with_its_affine(tmp_path: Path) -> None:
    affine = np.array([[-2.0, 0, 0, 90], [0, 0, 3.0, -126], [0, 4.0, 0, -72], [0, 0, 0, 1]])
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = read_image(save_nifti(tmp_path / "a.nii.gz", array, affine), spatial_dims=3)
    np.testing.assert_array_equal(image.array[0], array)
    np.testing.assert_allclose(image.affine, affine)
    assert image.spacing == (2.0, 4.0, 3.0)
    assert (image.unit, image.meta) == ("none", {"spacing_known": "true"})


def test_stored_slope_is_applied_and_metres_become_mm(tmp_path: Path) -> None:
    array = np.array([0, 500, 1000], np.int16).reshape(3, 1, 1).repeat(2, 1).repeat(2, 2)
    image = nib.Nifti1Image(array, np.diag([0.002, 0.002, 0.003, 1]))
    image.header.set_slope_inter(2, -1000)
    image.header.set_xyzt_units("meter")
    (tmp_path / "no_ending").write_bytes(image.to_bytes())
    read = read_image(tmp_path / "no_ending", spatial_dims=3)
    np.testing.assert_array_equal(read.array[0, :, 0, 0], [-1000, 0, 1000])
    assert read.spacing == pytest.approx((2.0, 2.0, 3.0))
    assert read.unit == "HU"


@pytest.mark.parametrize(("lowest", "unit"), [(-200, "HU"), (-199, "none"), (0, "none")])
def test_unit_goes_by_the_lowest_value(tmp_path: Path, lowest: int, unit: str) -> None:
    array = np.full((2, 2, 2), 50, np.int16)
    array[0, 0, 0] = lowest
    assert read_image(save_nifti(tmp_path / "a.nii", array), spatial_dims=3).unit == unit


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (-1, 1, -1)])
@pytest.mark.parametrize("across", [0, 1, 2])
def test_slice_is_turned_as_a_radiologist_sees_it(tmp_path: Path, across: int, signs: tuple[int, ...]) -> None:
    """The brightest voxel lies furthest right, anterior and superior: it must come to the top left corner."""
    shape = [3, 4, 5]
    shape[across] = 1
    affine = np.diag([2.0 * signs[0], 3.0 * signs[1], 4.0 * signs[2], 1])
    affine[:3, 3] = [7, 8, 9]
    corner = tuple(size - 1 if sign > 0 else 0 for size, sign in zip(shape, signs, strict=True))
    array = np.zeros(shape, np.float32)
    array[corner] = 1
    image = read_image(save_nifti(tmp_path / "a.nii", array, affine), spatial_dims=2)
    rows, columns = {2: (4, 3), 1: (5, 3), 0: (5, 4)}[across]  # axial: y by x; coronal: z by x; sagittal: z by y
    assert image.array.shape == (1, rows, columns)
    assert image.array[0, 0, 0] == 1
    np.testing.assert_allclose(image.affine[:3, 3], apply_affine(affine, corner))
    step_mm = {2: (3.0, 2.0), 1: (4.0, 2.0), 0: (4.0, 3.0)}[across]
    assert image.spacing == step_mm
    towards_feet_or_back, towards_left_or_back = {2: (1, 0), 1: (2, 0), 0: (2, 1)}[across]
    assert image.affine[towards_feet_or_back, 0] == -step_mm[0]
    assert image.affine[towards_left_or_back, 1] == -step_mm[1]


def test_two_axes_and_idle_time_axis_are_slices_and_volumes(tmp_path: Path) -> None:
    flat = save_nifti(tmp_path / "a.nii", np.arange(6, dtype=np.int16).reshape(2, 3))
    # RAS: x grows to the right, so the left column of the picture is the last x; y grows to anterior, so the top row
    # is the last y
    np.testing.assert_array_equal(read_image(flat, spatial_dims=2).array[0], [[5, 2], [4, 1], [3, 0]])
    solid = save_nifti(tmp_path / "b.nii", np.zeros((2, 3, 4, 1), np.int16))
    assert read_image(solid, spatial_dims=3).array.shape == (1, 2, 3, 4)


def test_unusable_nifti_is_refused(tmp_path: Path) -> None:
    volume = np.zeros((3, 3, 3), np.float32)
    assert "spatial_dims is 2" in refusal(save_nifti(tmp_path / "a.nii", volume), 2)
    assert "one slice" in refusal(save_nifti(tmp_path / "b.nii", volume[:, :, :1]), 3)
    assert "time points" in refusal(save_nifti(tmp_path / "c.nii", np.zeros((3, 3, 3, 2), np.int16)), 3)
    volume[0, 0, :2] = np.nan
    assert "2 of 27 values" in refusal(save_nifti(tmp_path / "d.nii", volume), 3)
    colour = np.zeros((3, 3, 3), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    assert "colours" in refusal(save_nifti(tmp_path / "e.nii", colour), 3)
    flattened = nib.Nifti1Image(np.zeros((3, 3, 3), np.int16), np.eye(4))
    flattened.header.set_sform(np.diag([1.0, 1.0, 0.0, 1.0]), 1)
    (tmp_path / "f.nii").write_bytes(flattened.to_bytes())
    content = bytearray((tmp_path / "f.nii").read_bytes())
    content[280:328] = struct.pack("<12f", 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
    (tmp_path / "f.nii").write_bytes(bytes(content))
    assert "affine" in refusal(tmp_path / "f.nii", 3)


def test_cut_nifti_is_refused_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (9, 9, 9)).astype(np.int16)
    for name in ("a.nii", "a.nii.gz"):
        content = save_nifti(tmp_path / name, noise).read_bytes()
        (tmp_path / "cut").write_bytes(content[: len(content) * 3 // 4])
        assert "cut short" in refusal(tmp_path / "cut", 3)
    assert caplog.records == []


def test_gzip_damage_is_seen_as_zlib_sees_it(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    whole = save_nifti(tmp_path / "whole.nii.gz", random.integers(0, 9, (6, 6, 6)).astype(np.int16)).read_bytes()
    sound = gzip.decompress(whole)
    for number in range(400):
        content = bytearray(whole)
        if number % 2:
            content[random.integers(12, len(content))] ^= 1 << random.integers(8)
        else:
            content = content[: random.integers(12, len(content))]
        try:
            harmless = gzip.decompress(bytes(content)) == sound
        except (OSError, EOFError, zlib.error):
            harmless = False
        (tmp_path / "a.nii.gz").write_bytes(bytes(content))
        if harmless:
            read_image(tmp_path / "a.nii.gz", spatial_dims=3)
        else:
            with pytest.raises(UnreadableImage):
                read_image(tmp_path / "a.nii.gz", spatial_dims=3)


def test_small_header_fault_is_mended_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = bytearray(save_nifti(tmp_path / "a.nii", np.ones((2, 2, 2), np.int16)).read_bytes())
    content[80:84] = struct.pack("<f", -1.0)  # pixdim[1], which must be positive
    (tmp_path / "a.nii").write_bytes(bytes(content))
    assert read_image(tmp_path / "a.nii", spatial_dims=3).spacing == (1.0, 1.0, 1.0)
    assert caplog.records == []


def test_torso_pack_agrees_with_nibabel() -> None:
    path = pack("ct-torso-nifti") / "example_ct_sm.nii.gz"
    image, reference = read_image(path, spatial_dims=3), nib.load(path)
    assert image.array.shape == (1, 122, 101, 30)
    assert (image.unit, image.spacing) == ("HU", pytest.approx((3.0, 3.0, 3.0)))
    np.testing.assert_array_equal(image.array[0], reference.get_fdata().astype(np.float32))
    np.testing.assert_allclose(image.affine, reference.affine)
    assert read_image(path.with_name("example_seg.nii.gz"), spatial_dims=3).unit == "none"
