"""Synthetic images as DICOM: their marks, their geometry, and what programs of other people say to them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from pipeline.core.errors import DataError
from pipeline.data.batches.scaling import Scaling
from pipeline.data.images import read_image
from pipeline.data.synthetic_dicom import DicomOrigin, write_synthetic_dicom

CT = Scaling(1.0, 0.0, "HU", (-1000.0, 1000.0), "int16")
GREY = Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8")
SHARE = Scaling(1.0, 0.0, "none", (0.0, 1.0), "float16")
ORIGIN = DicomOrigin("synthetic-normal-00003", "normal", "81", "0.7", "ab" * 32, "sngan")
RANDOM = np.random.default_rng(4)
IMAGES = {
    "ct-slice": (RANDOM.integers(-1000, 1000, (9, 7)).astype(float), CT, (0.7, 0.8)),
    "ct-volume": (RANDOM.integers(-1000, 1000, (5, 6, 7)).astype(float), CT, (0.7, 0.8, 2.5)),
    "x-ray-8": (RANDOM.integers(0, 256, (9, 7)).astype(float), GREY, (0.2, 0.2)),
    "capture": (RANDOM.integers(0, 256, (9, 7)).astype(float), GREY, (0.2, 0.2)),
    "x-ray-16": (RANDOM.integers(0, 65536, (8, 7)) / 65535, SHARE, (1.0, 1.0)),
}
KNOWN_LINE = "Attribute with an even group number is not a recognized standard attribute - (0x0008,0x001c)"
"""Debian's dciodvfy has a dictionary from before Synthetic Data."""


def written(tmp_path: Path, name: str, origin: DicomOrigin = ORIGIN) -> list[Path]:
    image, scaling, spacing = IMAGES[name]
    origin = replace(origin, x_ray=name != "capture")
    return write_synthetic_dicom(tmp_path / name, image, scaling, spacing, origin)


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: dicom3tools and dcm2niix)")
    return found


@pytest.mark.parametrize("name", list(IMAGES))
def test_every_file_says_that_it_is_synthetic(tmp_path: Path, name: str) -> None:
    for path in written(tmp_path, name):
        dataset = pydicom.dcmread(path)
        assert dataset[0x0008, 0x001C].value == "YES"
        assert list(dataset.ImageType)[:2] == ["DERIVED", "SECONDARY"]
        assert (dataset.BurnedInAnnotation, dataset.PatientIdentityRemoved) == ("NO", "YES")
        assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert dataset.PatientID.startswith("SYN-") and "no such patient exists" in dataset.PatientComments
        (equipment,) = dataset.ContributingEquipmentSequence
        assert equipment.ManufacturerModelName == "radaug sngan" and "ab" * 32 in equipment.ContributionDescription
        assert not [one for one in dataset.iterall() if one.VR in ("DA", "TM", "DT") and one.value]


def test_the_class_follows_from_the_unit(tmp_path: Path) -> None:
    # the UIDs of PS3.4 B.5: CT Image Storage; Digital X-Ray Image Storage - For Presentation; Secondary Capture
    classes = {name: pydicom.dcmread(written(tmp_path, name)[0]).SOPClassUID for name in IMAGES}
    assert classes["ct-slice"] == classes["ct-volume"] == "1.2.840.10008.5.1.4.1.1.2"
    assert classes["x-ray-8"] == classes["x-ray-16"] == "1.2.840.10008.5.1.4.1.1.1.1"
    assert classes["capture"] == "1.2.840.10008.5.1.4.1.1.7"
    with pytest.raises(DataError, match="no class in DICOM"):
        write_synthetic_dicom(tmp_path / "v", np.zeros((2, 2, 2)), GREY, (1, 1, 1), ORIGIN)


def test_uids_are_new_follow_from_the_image_and_keep_to_their_root(tmp_path: Path) -> None:
    first, again = (written(tmp_path / name, "ct-slice")[0] for name in ("a", "b"))
    assert first.read_bytes() == again.read_bytes()
    other = pydicom.dcmread(written(tmp_path / "c", "ct-slice", replace(ORIGIN, sample_seed="82"))[0])
    one = pydicom.dcmread(first)
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert one[keyword].value != other[keyword].value
    assert one.SOPInstanceUID.startswith("2.25.") and one.SOPInstanceUID.is_valid
    rooted = pydicom.dcmread(written(tmp_path / "d", "x-ray-8", replace(ORIGIN, uid_root="1.3.6.1.4.1.99999"))[0])
    for uid in (rooted.SOPInstanceUID, rooted.SeriesInstanceUID, rooted.StudyInstanceUID):
        assert uid.startswith("1.3.6.1.4.1.99999.") and uid.is_valid and len(uid) <= 64
    slices = [pydicom.dcmread(path) for path in written(tmp_path / "e", "ct-volume")]
    assert len({one.SOPInstanceUID for one in slices}) == 7 and len({one.SeriesInstanceUID for one in slices}) == 1


def test_values_come_back_through_the_rescale(tmp_path: Path) -> None:
    slice_ = pydicom.dcmread(written(tmp_path, "ct-slice")[0])
    hu = slice_.pixel_array.astype(int) * int(slice_.RescaleSlope) + int(slice_.RescaleIntercept)
    np.testing.assert_array_equal(hu, IMAGES["ct-slice"][0])
    assert (slice_.WindowCenter, slice_.WindowWidth) == (0, 2000)
    np.testing.assert_array_equal(pydicom.dcmread(written(tmp_path, "x-ray-8")[0]).pixel_array, IMAGES["x-ray-8"][0])
    wide = pydicom.dcmread(written(tmp_path, "x-ray-16")[0])
    np.testing.assert_allclose(wide.pixel_array / 65535, IMAGES["x-ray-16"][0], atol=0.5 / 65535)


def test_a_volume_lies_where_its_nifti_twin_lies(tmp_path: Path) -> None:
    """PS3.3 C.7.6.2.1.1: position + column * spacing * row cosine + row * spacing * column cosine, in LPS."""
    volume, _, spacing = IMAGES["ct-volume"]
    slices = [pydicom.dcmread(path) for path in written(tmp_path, "ct-volume")]
    x, y, z = 1, 4, 6
    right_to_left = -np.array([x * spacing[0], y * spacing[1], -z * spacing[2]])  # voxel (x, y, z) of RAS, in LPS
    dataset = slices[z]
    assert list(dataset.ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
    column, row = (
        round((right_to_left[axis] - float(dataset.ImagePositionPatient[axis])) / spacing[axis]) for axis in (0, 1)
    )
    assert float(dataset.ImagePositionPatient[2]) == right_to_left[2]
    assert dataset.pixel_array[row, column] - 1024 == volume[x, y, z]
    assert [float(mm) for mm in dataset.PixelSpacing] == [0.8, 0.7]  # between rows first


@pytest.mark.parametrize("name", list(IMAGES))
def test_dciodvfy_finds_no_error_but_the_one_that_its_dictionary_makes(tmp_path: Path, name: str) -> None:
    command = tool("dciodvfy")
    for path in written(tmp_path, name):
        said = subprocess.run([command, str(path)], capture_output=True, text=True, check=False).stderr
        assert any(name in said for name in ("CTImage", "DXImageForPresentation", "SCImage"))
        errors = [line for line in said.splitlines() if line.startswith("Error")]
        assert [line for line in errors if KNOWN_LINE not in line] == [] and len(errors) == 1


@pytest.mark.parametrize("name", list(IMAGES))
def test_dcm2niix_gives_equal_voxels(tmp_path: Path, name: str) -> None:
    command = tool("dcm2niix")
    paths, out = written(tmp_path, name), tmp_path / "out"
    out.mkdir()
    given = paths[0].parent if name == "ct-volume" else paths[0]
    chosen = [] if name == "ct-volume" else ["-s", "y"]
    subprocess.run([command, "-f", "made", *chosen, "-o", str(out), str(given)], capture_output=True, check=True)
    image = nib.load(out / "made.nii")
    lps = image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt("LPS")))
    values = np.asarray(lps.dataobj, dtype=float)
    if name == "ct-volume":
        volume = np.asarray(
            image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt("RAS"))).dataobj
        )
        np.testing.assert_array_equal(volume, IMAGES[name][0])
    elif name == "ct-slice":
        np.testing.assert_array_equal(values[:, :, 0].T, IMAGES[name][0])
        np.testing.assert_allclose(nib.affines.voxel_sizes(lps.affine)[:2], [0.8, 0.7], atol=1e-6)
    else:
        stored = pydicom.dcmread(paths[0]).pixel_array
        raw = np.asarray(image.dataobj)[:, ::-1, 0].T  # NIfTI counts rows from below
        np.testing.assert_array_equal(raw, stored)
        np.testing.assert_allclose(image.header.get_zooms()[:2], IMAGES[name][2], atol=1e-6)


def test_the_readers_give_back_what_was_written(tmp_path: Path) -> None:
    for name in ("ct-slice", "x-ray-8"):
        read = read_image(written(tmp_path, name)[0], spatial_dims=2)
        np.testing.assert_array_equal(read.array[0], IMAGES[name][0])
        assert read.spacing == pytest.approx(IMAGES[name][2])
    volume = read_image(written(tmp_path, "ct-volume")[0].parent, spatial_dims=3)
    assert sorted(volume.array.ravel()) == sorted(IMAGES["ct-volume"][0].ravel())
