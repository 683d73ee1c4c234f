"""Headers that contradict themselves, sizes and values that no patient has, and files that only stand in for images."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_making import smooth_volume, write_slice, write_volume
from PIL import Image as Pillow
from refusals import refusal as read_refusal

from pipeline.data.images import read_image
from pipeline.data.readers.plausible import guessed_unit, hu_fault

refusal = partial(read_refusal, spatial_dims=3)


def nifti(path: Path, sform: np.ndarray, qform: np.ndarray | None = None, unit: str = "mm", shape=(6, 5, 4)) -> Path:
    """A volume with an sform and, if given, a qform of its own."""
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    image = nib.Nifti1Image(array, sform)
    image.set_sform(sform, 1)
    if qform is None:
        image.header["qform_code"] = 0
    else:
        image.set_qform(qform, 1)
    image.header.set_xyzt_units(unit)
    path.write_bytes(image.to_bytes())
    return path


# ---- NIfTI forms


@pytest.mark.parametrize(
    ("sform", "qform", "words"),
    [
        ([1, 1, 2, 1], [3, 3, 3, 1], "voxel of 1 x 1 x 2"),
        ([1, 1, 2, 1], [-1, 1, 2, 1], "left and right are not known"),
        ([1, 1, 2, 1], [1, 1, -2, 1], "contradict each other"),
        ([1, 1, 2, 1], [1, 1, 2.1, 1], "voxel of 1 x 1 x 2"),
    ],
)
def test_forms_that_contradict_each_other_are_refused(
    tmp_path: Path, sform: list[float], qform: list[float], words: str
) -> None:
    assert words in refusal(nifti(tmp_path / "a", np.diag(sform), np.diag(qform)))


def test_pixdim_that_contradicts_the_sform_is_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.diag([3, 3, 3, 1.0]))
    image.set_sform(np.diag([1, 1, 2, 1.0]), 1)  # nibabel leaves pixdim as it is
    image.header["qform_code"] = 0
    (tmp_path / "a").write_bytes(image.to_bytes())
    assert "qform and pixdim one of 3 x 3 x 3" in refusal(tmp_path / "a")


def test_forms_that_agree_but_for_a_turn_or_a_shift_are_read_by_the_sform(tmp_path: Path) -> None:
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    qform = turn @ np.diag([1, 1, 2, 1.0])
    qform[:3, 3] = 5
    path = nifti(tmp_path / "a", np.diag([1, 1, 2, 1.0]), qform)
    np.testing.assert_allclose(read_image(path, spatial_dims=3).affine, np.diag([1, 1, 2, 1.0]))
    np.testing.assert_allclose(read_image(nifti(tmp_path / "b", qform, qform), spatial_dims=3).affine, qform, atol=1e-6)


@pytest.mark.parametrize("place", [(0, 1), (1, 2), (0, 2)])
def test_sheared_affine_is_refused_and_rounding_is_not(tmp_path: Path, place: tuple[int, int]) -> None:
    sheared, rounded = np.diag([1, 1, 2, 1.0]), np.diag([1, 1, 2, 1.0])
    sheared[place], rounded[place] = 0.3, 0.001
    assert "sheared" in refusal(nifti(tmp_path / "a", sheared))
    assert read_image(nifti(tmp_path / "b", rounded), spatial_dims=3).array.shape == (1, 6, 5, 4)


def test_shear_across_a_single_slice_does_not_matter(tmp_path: Path) -> None:
    sheared = np.diag([1, 1, 2, 1.0])
    sheared[1, 2] = 0.6  # as of a tilted gantry
    path = nifti(tmp_path / "a", sheared, shape=(6, 5, 1))
    assert read_image(path, spatial_dims=2).spacing == (1.0, 1.0)


def test_header_that_states_no_size_says_so(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), None)
    (tmp_path / "a").write_bytes(image.to_bytes())
    assert read_image(tmp_path / "a", spatial_dims=3).meta["spacing_known"] == "false"
    image.header["pixdim"][1:4] = [2, 2, 3]
    (tmp_path / "b").write_bytes(image.to_bytes())
    known = read_image(tmp_path / "b", spatial_dims=3)
    assert (known.spacing, known.meta["spacing_known"]) == ((2.0, 2.0, 3.0), "true")


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (108, struct.pack("<f", 0), "vox_offset (0) lies inside the header"),
        (123, b"\xff", "xyzt_units (255)"),
        (256, struct.pack("<3f", 0.9, 0.9, 0.9), "quaternion is no rotation"),
        (280, struct.pack("<f", np.nan), "singular or not finite"),
    ],
)
def test_header_field_that_cannot_be_is_named(tmp_path: Path, offset: int, value: bytes, words: str) -> None:
    affine = np.diag([1, 1, 2, 1.0])
    content = bytearray(nifti(tmp_path / "a", affine, affine).read_bytes())
    content[offset : offset + len(value)] = value
    (tmp_path / "a").write_bytes(bytes(content))
    assert words in refusal(tmp_path / "a")


def test_animated_png_is_refused(tmp_path: Path) -> None:
    frames = [Pillow.fromarray(np.full((9, 9), level, np.uint8)) for level in (1, 200)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    assert "2 frames" in refusal(tmp_path / "a.png", spatial_dims=2)


# ---- sizes


@pytest.mark.parametrize(
    ("mm", "unit", "size"),
    [
        ([1, 1, 2], "meter", "1000 x 1000 x 2000"),
        ([0.001, 0.001, 0.002], "mm", "0.001"),
        ([700, 700, 1000], "mm", "700"),
        ([0.7, 0.7, 1], "micron", "0.0007"),
    ],
)
def test_lengths_in_another_unit_than_marked_are_refused(tmp_path: Path, mm: list[float], unit: str, size: str) -> None:
    affine = np.diag([*mm, 1.0])
    reason = refusal(nifti(tmp_path / "a", affine, affine, unit))
    assert size in reason
    assert "xyzt_units" in reason


@pytest.mark.parametrize(
    ("mm", "unit"), [([0.001, 0.001, 0.002], "meter"), ([700, 700, 1000], "micron"), ([0.05, 0.05, 10], "mm")]
)
def test_lengths_in_the_marked_unit_are_read_in_mm(tmp_path: Path, mm: list[float], unit: str) -> None:
    affine = np.diag([*mm, 1.0])
    factor = {"meter": 1000, "micron": 0.001, "mm": 1}[unit]
    spacing = read_image(nifti(tmp_path / "a", affine, affine, unit), spatial_dims=3).spacing
    np.testing.assert_allclose(spacing, factor * np.array(mm), rtol=1e-5)


def test_dicom_spacing_is_held_to_the_same_bounds(tmp_path: Path) -> None:
    pixels = smooth_volume(1)[0]
    for number, mm in enumerate(([0.0005, 0.0005], [700, 700], [0.5, 900])):
        assert "no image of a patient" in refusal(
            write_slice(tmp_path / f"{number}", pixels, PixelSpacing=mm), spatial_dims=2
        )
    steps = write_volume(tmp_path / "v", smooth_volume(3), ImagePositionPatient=lambda n: [0, 0, 150 * n])
    assert "150 mm a voxel" in refusal(steps)


# ---- Hounsfield units


def test_values_that_cannot_be_hounsfield_units() -> None:
    body = np.full((20, 20), 40.0)
    body[:10] = -1000
    assert hu_fault(body) == ""
    assert hu_fault(np.where(body < 0, -3024, body)) == ""  # padding that is not declared
    assert "64536" in hu_fault(np.where(body < 0, 64536, body))
    assert "only metal reaches" in hu_fault(body + 5000)
    assert "far below air" in hu_fault(body * np.linspace(1, 3, 400).reshape(20, 20) * 2)
    assert hu_fault(np.array([])) == ""


def test_unit_is_guessed_from_air_unless_the_values_cannot_be_hu() -> None:
    random = np.random.default_rng(0)
    assert guessed_unit(random.uniform(-1000, 1000, 999)) == "HU"
    assert guessed_unit(random.uniform(-150, 250, 999)) == "none"
    assert guessed_unit(random.uniform(-2700, 2700, 999)) == "none"  # an MR with large negative numbers


# ---- what stands in for an image


def contents() -> dict[str, tuple[bytes, str]]:
    png = io.BytesIO()
    Pillow.fromarray(np.zeros((9, 9), np.uint8)).save(png, "PNG")
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a.png", png.getvalue())
    with tarfile.open(fileobj=tarred, mode="w") as tape:
        entry = tarfile.TarInfo("a.png")
        entry.size = len(png.getvalue())
        tape.addfile(entry, io.BytesIO(png.getvalue()))
    dicom = b"\0" * 128 + b"DICM" + b"\x02\0\0\0UL\x04\0" + bytes(300)
    volume = nib.Nifti1Image(np.random.default_rng(0).integers(0, 99, (9, 9, 9)).astype(np.int16), np.eye(4)).to_bytes()
    tiff = io.BytesIO()
    Pillow.fromarray(np.zeros((9, 9), np.uint8)).save(tiff, "TIFF")
    return {
        "empty.dcm": (b"", "the file is empty"),
        "zeros.nii": (bytes(4096), "nothing but zeros"),
        "pointer.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 3\n", "git lfs pull"),
        "annex.dcm": (b"/annex/objects/MD5E-s3--0.dcm\n", "git annex get"),
        "login.dcm": (b"<!DOCTYPE html>\n<html><head><title>Log in</title>", "HTML page"),
        "login.png": (b"\xef\xbb\xbf\n <HTML><body>403", "HTML page"),
        "login.nii.gz": (gzip.compress(b"<!doctype html><html>" + b" " * 500), "HTML page"),
        "denied.nii": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML or JSON"),
        "error.dcm": (b'{"message": "not found"}', "XML or JSON"),
        "pack.dcm": (zipped.getvalue(), "zip archive"),
        "pack.nii": (tarred.getvalue(), "tar archive"),
        "pack.nii.gz": (gzip.compress(tarred.getvalue()), "tar archive"),
        "pack.png": (b"Rar!\x1a\x07\0" + bytes(40), "rar archive"),
        "letter.dcm": (b"%PDF-1.4 and so on", "a PDF"),
        "scan.png": (tiff.getvalue(), "TIFF"),
        "slice.dcm.gz": (gzip.compress(dicom), "gunzip"),
        "cut.nii": (volume[:200], "cut short in its header"),
        "cut.nii.gz": (gzip.compress(volume)[:40], "cut short"),
        "half.nii.gz": (gzip.compress(volume)[:900], "cut short"),
        "cut.dcm": (b"\0" * 20 + b"\x01" * 60, "cut short (80 bytes)"),
        "cut.png": (png.getvalue()[:40], "cut short"),
        "note": (b"the images are on the other disk\n", "plain text"),
    }


@pytest.mark.parametrize("name", sorted(contents()))
def test_file_that_stands_in_for_an_image_is_called_by_its_name(tmp_path: Path, name: str) -> None:
    content, words = contents()[name]
    (tmp_path / name).write_bytes(content)
    assert words in refusal(tmp_path / name, spatial_dims=2 if name.endswith((".png", ".dcm")) else 3)


def test_link_that_leads_nowhere_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").symlink_to(".git/annex/objects/xx/yy/MD5E-s3--0.dcm")
    (tmp_path / "b.dcm").symlink_to("elsewhere.dcm")
    assert "git annex get" in refusal(tmp_path / "a.dcm", spatial_dims=2)
    assert "a link to something that is not there" in refusal(tmp_path / "b.dcm", spatial_dims=2)
