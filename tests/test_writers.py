"""The image writers, checked through nibabel, PIL, pydicom and radaug's own readers."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from PIL import Image as PillowImage

from pipeline.core.errors import DataError
from pipeline.data.images import read_image
from pipeline.data.writers import DicomIds, SlicePlace, write_dicom, write_dicom_series, write_nifti, write_png

IDS = DicomIds("phantom-0007", image="1")


def as_lps(path: Path) -> nib.Nifti1Image:
    image = nib.load(path)
    return image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt("LPS")))


def write_slice(path: Path, array: np.ndarray, **changes: object) -> pydicom.Dataset:
    settings: dict[str, object] = {"unit": "HU", "spacing": (0.8, 0.7, 5.0), "description": "x", "synthetic": True}
    write_dicom(path, array, **({**settings, "ids": IDS} | changes))
    return pydicom.dcmread(path)


def test_a_2d_nifti_comes_back_as_displayed_after_reorienting_to_lps(tmp_path: Path) -> None:
    shown = np.array([[1, 2, 3], [4, 5, 6]])
    write_nifti(tmp_path / "a.nii.gz", shown)
    image = as_lps(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj)[:, :, 0].T, shown)
    assert image.shape == (3, 2, 1)


def test_a_2d_affine_maps_row_and_column_to_the_place_that_nibabel_finds(tmp_path: Path) -> None:
    # row 0, column 0 at RAS (10, 20, 30); a row further is 2 mm to posterior, a column further 3 mm to the left
    affine = np.array([[0, -3, 0, 10], [-2, 0, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1]], dtype=float)
    write_nifti(tmp_path / "a.nii", np.array([[1, 2, 3], [4, 5, 6]]), affine)
    image = nib.load(tmp_path / "a.nii")
    column, row = 2, 1
    assert np.asarray(image.dataobj)[column, row, 0] == 6
    np.testing.assert_allclose(image.affine @ [column, row, 0, 1], [10 - 6, 20 - 2, 30, 1])
    assert image.header["qform_code"] == image.header["sform_code"] == 1
    assert image.header.get_xyzt_units()[0] == "mm"


def test_a_volume_keeps_axes_affine_and_values(tmp_path: Path) -> None:
    volume = np.arange(24).reshape(2, 3, 4) - 1000
    affine = np.array([[-1.5, 0, 0, 4], [0, -2, 0, 5], [0, 0, 2.5, 6], [0, 0, 0, 1]])
    write_nifti(tmp_path / "v.nii.gz", volume, affine)
    image = nib.load(tmp_path / "v.nii.gz")
    assert image.get_data_dtype() == np.int16
    np.testing.assert_array_equal(np.asarray(image.dataobj), volume)
    np.testing.assert_allclose(image.affine, affine)
    write_nifti(tmp_path / "default.nii.gz", volume)
    assert nib.aff2axcodes(nib.load(tmp_path / "default.nii.gz").affine) == ("L", "P", "S")


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([-32768.0, 32767.0], np.int16),
        ([0.0, 32768.0], np.float32),
        ([0.0, 0.5], np.float32),
        ([True, False], np.int16),
    ],
)
def test_nifti_is_int16_only_where_no_value_is_lost(tmp_path: Path, values: list[float], dtype: type) -> None:
    write_nifti(tmp_path / "a.nii", np.array([values]))
    image = nib.load(tmp_path / "a.nii")
    assert image.get_data_dtype() == dtype
    np.testing.assert_array_equal(np.asarray(image.dataobj)[:, 0, 0], values)


def test_png_maps_the_window_to_8_bits(tmp_path: Path) -> None:
    # (-20, 180): 80 HU is the middle, 127.5, which rounds to even 128; 20 HU is 40 / 200 * 255 = 51
    write_png(tmp_path / "a.png", np.array([[-500.0, -20.0, 20.0], [80.0, 180.0, 900.0]]), (-20, 180))
    with PillowImage.open(tmp_path / "a.png") as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), [[0, 0, 51], [128, 255, 255]])


def test_a_ct_slice_holds_its_hu_its_size_and_no_vendor_trap(tmp_path: Path) -> None:
    dataset = write_slice(tmp_path / "a.dcm", np.array([[-2000.0, -1024.0, 0.4], [39.6, 3071.0, 32767.0]]))
    assert dataset.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert dataset.SOPClassUID == pydicom.uid.CTImageStorage
    assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID
    stored = dataset.pixel_array
    assert stored.dtype == np.uint16
    hu = stored * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    np.testing.assert_array_equal(hu, [[-1024, -1024, 0], [40, 3071, 32767]])
    assert (dataset.Rows, dataset.Columns) == (2, 3)
    assert list(dataset.PixelSpacing) == [0.8, 0.7]
    assert dataset.SliceThickness == 5


def test_a_synthetic_slice_says_so_and_a_real_one_does_not(tmp_path: Path) -> None:
    array = np.zeros((4, 4))
    dataset = write_slice(tmp_path / "s.dcm", array, description="cyst")
    assert dataset.SeriesDescription == "SYNTHETIC cyst"
    assert list(dataset.ImageType[:2]) == ["DERIVED", "SECONDARY"]
    assert (dataset.PatientIdentityRemoved, dataset.BurnedInAnnotation) == ("YES", "NO")
    assert (dataset.PatientID, str(dataset.PatientName)) == ("phantom-0007", "phantom-0007")
    real = write_slice(tmp_path / "r.dcm", array, description="cyst", synthetic=False)
    assert real.SeriesDescription == "cyst"
    assert "PatientIdentityRemoved" not in real


def test_uids_follow_from_the_ids_alone(tmp_path: Path) -> None:
    array = np.zeros((4, 4))
    first, again = write_slice(tmp_path / "a.dcm", array), write_slice(tmp_path / "b.dcm", array)
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()
    other = write_slice(tmp_path / "c.dcm", array, ids=DicomIds("phantom-0007", image="2"))
    assert first.SOPInstanceUID == again.SOPInstanceUID != other.SOPInstanceUID
    assert first.SeriesInstanceUID == other.SeriesInstanceUID
    stranger = write_slice(tmp_path / "d.dcm", array, ids=DicomIds("phantom-0008", image="1"))
    assert stranger.StudyInstanceUID != first.StudyInstanceUID
    uids = {first.SOPInstanceUID, first.SeriesInstanceUID, first.StudyInstanceUID, first.FrameOfReferenceUID}
    assert len(uids) == 4
    assert all(uid.is_valid for uid in uids)


def test_other_units_become_a_secondary_capture_within_half_a_step(tmp_path: Path) -> None:
    array = np.random.default_rng(0).uniform(-3.0, 7.0, (16, 12))
    dataset = write_slice(tmp_path / "x.dcm", array, unit="none", spacing=(0.2, 0.2))
    assert dataset.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
    assert dataset.ConversionType == "SYN"
    back = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    np.testing.assert_allclose(back, array, atol=0.51 * 10 / 65535)
    whole = write_slice(tmp_path / "w.dcm", np.array([[0, 255], [7, 65535]]), unit="none")
    np.testing.assert_array_equal(whole.pixel_array, [[0, 255], [7, 65535]])
    constant = write_slice(tmp_path / "c.dcm", np.full((2, 2), 0.5), unit="none")
    assert (constant.pixel_array * float(constant.RescaleSlope) + float(constant.RescaleIntercept) == 0.5).all()


def test_a_series_places_every_voxel_where_the_affine_has_it(tmp_path: Path) -> None:
    volume = np.random.default_rng(1).integers(-1000, 1000, (3, 4, 5))
    affine = np.array([[-0.7, 0, 0, 11], [0, -0.8, 0, 22], [0, 0, 2.5, 33], [0, 0, 0, 1]])
    paths = write_dicom_series(tmp_path, volume, affine, unit="HU", description="v", synthetic=True, ids=IDS)
    slices = [pydicom.dcmread(path) for path in paths]
    assert [dataset.InstanceNumber for dataset in slices] == [1, 2, 3, 4, 5]
    assert len({dataset.SOPInstanceUID for dataset in slices}) == 5
    assert len({dataset.SeriesInstanceUID for dataset in slices}) == 1
    x, y, z = 2, 3, 4
    dataset = slices[z]
    assert dataset.pixel_array[y, x] - 1024 == volume[x, y, z]
    # DICOM PS3.3 C.7.6.2.1.1: position + column index * column spacing * row cosine + row index * row spacing * ...
    row_spacing, column_spacing = map(float, dataset.PixelSpacing)
    cosines = np.array(dataset.ImageOrientationPatient, dtype=float)
    lps = np.array(dataset.ImagePositionPatient, dtype=float)
    lps = lps + cosines[:3] * column_spacing * x + cosines[3:] * row_spacing * y
    np.testing.assert_allclose(lps * [-1, -1, 1], (affine @ [x, y, z, 1])[:3], atol=1e-9)


def test_the_readers_give_back_what_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    flat, volume = rng.integers(-1000, 1000, (6, 9)), rng.integers(-1000, 1000, (5, 6, 7))
    write_slice(tmp_path / "a.dcm", flat, place=SlicePlace((1.0, 2.0, 3.0)))
    write_nifti(tmp_path / "a.nii.gz", flat)
    write_nifti(tmp_path / "v.nii.gz", volume, np.diag([-2.0, -3.0, 4.0, 1.0]))
    write_dicom_series(
        tmp_path / "v", volume, np.diag([-2.0, -3.0, 4.0, 1.0]), unit="HU", description="v", synthetic=True, ids=IDS
    )
    placed = read_image(tmp_path / "a.dcm", spatial_dims=2)
    np.testing.assert_array_equal(placed.array[0], flat)
    assert (placed.unit, placed.spacing) == ("HU", (0.8, 0.7))
    np.testing.assert_allclose(placed.affine @ [1, 1, 0, 1], [-1 - 0.7, -2 - 0.8, 3, 1])
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii.gz", spatial_dims=2).array[0], flat)
    whole, stack = (read_image(tmp_path / name, spatial_dims=3) for name in ("v.nii.gz", "v"))
    at = {}
    for name, image in (("nifti", whole), ("dicom", stack)):
        index = np.linalg.solve(image.affine, [-2 * 4, -3 * 1, 4 * 2, 1])[:3].round().astype(int)
        at[name] = image.array[0][tuple(index)]
    assert at == {"nifti": volume[4, 1, 2], "dicom": volume[4, 1, 2]}


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
def test_a_write_that_fails_leaves_nothing_and_a_second_write_replaces(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "deep" / f"a{suffix}"
    with pytest.raises(DataError, match="NaN"):
        write_nifti(path, np.array([[np.nan]]))
    assert list(tmp_path.rglob("*.*")) == []
    write_nifti(path, np.zeros((2, 2)))
    write_nifti(path, np.ones((2, 2)))
    assert np.asarray(nib.load(path).dataobj).sum() == 4
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    flat = np.zeros((4, 4))
    with pytest.raises(DataError, match="2D or 3D"):
        write_nifti(tmp_path / "a.nii", np.zeros((1, 2, 3, 4)))
    with pytest.raises(DataError, match="invertible"):
        write_nifti(tmp_path / "a.nii", flat, np.zeros((4, 4)))
    with pytest.raises(DataError, match="low < high"):
        write_png(tmp_path / "a.png", flat, (5, 5))
    with pytest.raises(DataError, match="are the values HU"):
        write_slice(tmp_path / "a.dcm", flat + 32768)
    with pytest.raises(DataError, match="spacing"):
        write_slice(tmp_path / "a.dcm", flat, spacing=(0.0, 1.0))
    sheared = np.array([[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    with pytest.raises(DataError, match="right angles"):
        write_dicom_series(tmp_path, np.zeros((2, 2, 2)), sheared, unit="HU", description="v", synthetic=True, ids=IDS)
    with pytest.raises(DataError, match="HU only"):
        write_dicom_series(tmp_path, np.zeros((2, 2, 2)), unit="none", description="v", synthetic=True, ids=IDS)
    assert list(tmp_path.iterdir()) == []
