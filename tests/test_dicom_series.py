"""DICOM volumes: geometry, gantry tilt, uneven steps, missing and doubled slices, enhanced multi-frame files."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_making import AXIAL, write_slice
from nibabel.affines import apply_affine
from pydicom.dataset import Dataset
from refusals import refusal as read_refusal
from scipy import ndimage

from pipeline.core.errors import UnreadableImage
from pipeline.data.images import read_image
from pipeline.data.readers.image import Image
from pipeline.data.readers.series import index_series, read_series


def pack(name: str) -> Path:
    root = Path(os.environ.get("RADAUG_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (root / name).is_dir():
        pytest.skip(f"the data pack {name} is not here: set RADAUG_DATA to the folder that holds it")
    return root / name / "dicom"


def write_dicom(path: Path, pixels: np.ndarray, **tags: Any) -> Path:
    """A CT file whose stored numbers are HU + 1024; a tag given as None is left out."""
    facts: dict[str, Any] = {"PixelSpacing": [0.5, 0.25], "ImagePositionPatient": None} | tags
    return write_slice(path, pixels.astype(np.uint16), **facts)


def write_series(folder: Path, depths: list[float], *, shape: tuple[int, int] = (3, 4), **tags: Any) -> Path:
    """Axial slices whose HU is ten times their z in mm; names do not follow the order of the slices."""
    for number, depth in enumerate(depths):
        pixels = np.full(shape, round(1024 + 10 * depth))
        write_dicom(folder / f"{number * 7 % 100:02d}", pixels, ImagePositionPatient=[-10, -20, depth], **tags)
    return folder


refusal = partial(read_refusal, spatial_dims=3)


def column_through_first_pixel(image: Image) -> np.ndarray:
    return image.array[0, 0, 0]


# ---- geometry


def test_axial_series_worked_by_hand(tmp_path: Path) -> None:
    for number, depth in enumerate([34.0, 30.0, 32.0]):
        pixels = 1000 * number + np.arange(12).reshape(3, 4)
        write_dicom(tmp_path / f"{number}", pixels, ImagePositionPatient=[-10, -20, depth])
    image = read_series(tmp_path)
    assert image.array.shape == (1, 4, 3, 3)
    assert (image.spacing, image.unit) == ((0.25, 0.5, 2.0), "HU")
    # LPS to RAS: x = 10 - 0.25 column, y = 20 - 0.5 row, z = 30 + 2 slice
    np.testing.assert_allclose(
        image.affine, [[-0.25, 0, 0, 10], [0, -0.5, 0, 20], [0, 0, 2, 30], [0, 0, 0, 1]], atol=1e-12
    )
    stored = image.array[0] + 1024
    assert [stored[0, 0, k] for k in range(3)] == [1000, 2000, 0]
    assert stored[3, 1, 0] == 1000 + 1 * 4 + 3
    assert "tilt_degrees" not in image.meta
    assert "resampled" not in image.meta
    assert image.meta["series_id"] == "1.2.3"
    assert "sop_instance_id" not in image.meta


def test_oblique_series_puts_every_voxel_where_its_slice_says(tmp_path: Path) -> None:
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    along_columns, along_rows = turn[0], turn[1]
    normal = np.cross(along_columns, along_rows)
    start = np.array([5.0, -7.0, 11.0])
    for number in range(4):
        position = start + 1.5 * number * normal
        pixels = 100 * number + np.arange(12).reshape(3, 4)
        write_dicom(
            tmp_path / f"{9 - number}",
            pixels,
            ImagePositionPatient=[f"{v:.9f}" for v in position],
            ImageOrientationPatient=[f"{v:.10f}" for v in (*along_columns, *along_rows)],
        )
    image = read_series(tmp_path)
    for number, row, column in [(0, 0, 0), (1, 2, 1), (3, 1, 3)]:
        lps = start + 1.5 * number * normal + 0.25 * column * along_columns + 0.5 * row * along_rows
        index = np.linalg.inv(image.affine) @ [-lps[0], -lps[1], lps[2], 1]
        nearest = tuple(np.rint(index[:3]).astype(int))
        np.testing.assert_allclose(index[:3], nearest, atol=1e-5)
        assert image.array[(0, *nearest)] + 1024 == 100 * number + 4 * row + column


def test_each_slice_has_its_own_rescale(tmp_path: Path) -> None:
    pixels = np.full((2, 2), 500)
    for number, (slope, intercept) in enumerate([(1, -1000), (2, -1000), (0.5, -250)]):
        place = [0, 0, number]
        write_dicom(
            tmp_path / f"{number}", pixels, ImagePositionPatient=place, RescaleSlope=slope, RescaleIntercept=intercept
        )
    np.testing.assert_array_equal(column_through_first_pixel(read_series(tmp_path)), [-500, 0, 0])


# ---- gantry tilt


@pytest.mark.parametrize("degrees", [18.0, -25.0])
def test_rod_along_the_patient_stays_straight_under_tilt(tmp_path: Path, degrees: float) -> None:
    """A rod at x = 3 mm, y = 4 mm (LPS), parallel to z, scanned with a tilted gantry and a table moving along z."""
    angle = np.deg2rad(degrees)
    along_rows = np.array([0.0, np.cos(angle), -np.sin(angle)])
    for number in range(12):
        position = np.array([-16.0, -16.0, 3.0 * number])
        row = (4.0 - position[1]) / along_rows[1]  # 1 mm pixels: where the slice plane meets the rod
        column = 3.0 - position[0]
        rows, columns = np.mgrid[0:48, 0:40]
        blob = 2000 * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 4.0)
        write_dicom(
            tmp_path / f"{number:02d}",
            np.rint(blob),
            ImagePositionPatient=list(position),
            ImageOrientationPatient=[1, 0, 0, *(f"{value:.8f}" for value in along_rows)],
            PixelSpacing=[1, 1],
        )
    image = read_series(tmp_path)
    assert float(image.meta["tilt_degrees"]) == pytest.approx(abs(degrees), abs=0.01)
    axes = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    assert image.spacing[2] == pytest.approx(3.0 * np.cos(angle))
    for k in range(image.array.shape[3]):
        weights = image.array[0, :, :, k].astype(np.float64) + 1024
        index = [(weights * axis).sum() / weights.sum() for axis in np.indices(weights.shape)]
        x, y, _ = apply_affine(image.affine, [*index, k])
        assert (x, y) == (pytest.approx(-3, abs=0.02), pytest.approx(-4, abs=0.02))  # RAS
        assert weights.sum() == pytest.approx(2000 * 4 * np.pi, rel=0.01)  # nothing of the rod is lost


def test_head_pack_is_straightened_and_evened() -> None:
    folder = pack("ct-head-gantry-tilt-dicom")
    image = read_image(folder, spatial_dims=3)
    assert float(image.meta["tilt_degrees"]) == pytest.approx(18.5, abs=0.01)
    assert "resampled" in image.meta
    # the table moves 4.22 mm a slice; across the tilted slices that is 4.22 * cos(18.5 degrees) = 4.002 mm
    assert image.spacing == (
        pytest.approx(0.48828, abs=1e-4),
        pytest.approx(0.48828, abs=1e-4),
        pytest.approx(4.002, abs=1e-3),
    )
    assert image.array.shape == (1, 512, 611, 37)  # 48.2 mm sideways are 98.7 rows; 144.1 mm deep
    assert image.array.min() == -1024
    files = sorted(folder.rglob("*.dcm"), key=lambda path: float(pydicom.dcmread(path).ImagePositionPatient[2]))
    for k in (0, 6, 13):  # the thin part lies on the grid: each slice is only moved along its rows
        dataset = pydicom.dcmread(files[k])
        hu = np.maximum(dataset.pixel_array.astype(np.float64), -1024)  # slope 1, intercept 0
        first_ras = np.array([-1, -1, 1]) * [float(v) for v in dataset.ImagePositionPatient]
        column, row, depth = (np.linalg.inv(image.affine) @ [*first_ras, 1])[:3]
        assert (column, depth) == (pytest.approx(0, abs=1e-3), pytest.approx(k, abs=1e-3))
        canvas = np.full((611, 512), -1024.0)
        canvas[: hu.shape[0]] = hu
        moved = ndimage.shift(canvas, (row, 0), order=1, mode="grid-constant", cval=-1024)
        np.testing.assert_allclose(image.array[0, :, :, k].T, moved, atol=0.1)


def test_siemens_pack_is_read_in_order() -> None:
    folder = pack("ct-siemens-j2k-dicom")
    image = read_image(folder, spatial_dims=3)
    assert image.array.shape == (1, 512, 512, 20)
    assert image.spacing == (0.9765625, 0.9765625, 2.0)
    headers = [pydicom.dcmread(path) for path in folder.rglob("*") if path.is_file()]
    headers.sort(key=lambda header: float(header.ImagePositionPatient[2]))
    for k in (0, 11, 19):
        hu = np.maximum(headers[k].pixel_array.astype(np.float64) - 1024, -1024)
        np.testing.assert_array_equal(image.array[0, :, :, k], hu.T)
        position = [float(v) for v in headers[k].ImagePositionPatient]
        np.testing.assert_allclose(apply_affine(image.affine, [0, 0, k]), [-position[0], -position[1], position[2]])
    assert "series_id" not in image.meta  # this export has empty ids


# ---- steps


def test_steps_within_one_percent_are_even(tmp_path: Path) -> None:
    image = read_series(write_series(tmp_path, [0, 2.01, 4.0, 6.01, 8.0]))
    assert "resampled" not in image.meta
    assert image.spacing[2] == pytest.approx(2.0)


def test_two_part_series_is_resampled_to_the_smaller_step(tmp_path: Path) -> None:
    depths = [0, 4, 8, 12, 16, 17.2, 24.2, 31.2, 38.2]  # 4 mm, one odd step, then 7 mm
    image = read_series(write_series(tmp_path, depths))
    assert image.spacing[2] == 4
    assert "4.000 mm" in image.meta["resampled"]
    # HU is ten times z, a straight line, which linear interpolation keeps
    np.testing.assert_allclose(column_through_first_pixel(image), 40.0 * np.arange(10), atol=1e-3)


def test_irregular_series_is_resampled_to_the_median_step(tmp_path: Path) -> None:
    image = read_series(write_series(tmp_path, [0, 2, 4.5, 7.1, 8.9, 12.1]))  # steps 2, 2.5, 2.6, 1.8, 3.2
    assert image.spacing[2] == pytest.approx(2.5)
    np.testing.assert_allclose(column_through_first_pixel(image), [0, 25, 50, 75, 100], atol=1e-3)


def test_part_with_double_steps_is_not_a_loss(tmp_path: Path) -> None:
    depths = [*np.arange(0, 40, 5.0), 45.0, 55.0, 65.0, 75.0]  # 5 mm, then four steps of 10 mm
    image = read_series(write_series(tmp_path, depths))
    np.testing.assert_allclose(column_through_first_pixel(image), 50.0 * np.arange(16), atol=1e-3)


@pytest.mark.parametrize(
    ("lost", "words"),
    [({4}, "1 of 10"), ({3, 7}, "2 of 10"), ({4, 5}, "2 of 10"), ({1}, "1 of 10")],
)
def test_lost_slices_are_counted_and_refused(tmp_path: Path, lost: set[int], words: str) -> None:
    folder = write_series(tmp_path, [2.5 * k for k in range(10) if k not in lost])
    reason = refusal(folder)
    assert reason.startswith("incomplete")
    assert words in reason


def test_lost_slice_among_three_is_seen(tmp_path: Path) -> None:
    assert "1 of 4" in refusal(write_series(tmp_path, [0, 2, 6]))


def test_gap_wider_than_two_steps_is_refused(tmp_path: Path) -> None:
    assert "gap of 5.50 mm" in refusal(write_series(tmp_path, [0, 2, 4, 9.5, 11.5, 13.5]))


# ---- slices that do not fit


def test_identical_copies_are_dropped(tmp_path: Path) -> None:
    write_series(tmp_path, [0, 2, 4])
    shutil.copy(tmp_path / "07", tmp_path / "copy")
    np.testing.assert_array_equal(column_through_first_pixel(read_series(tmp_path)), [0, 20, 40])


def test_different_images_at_one_position_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path, [0, 2, 4])
    write_dicom(tmp_path / "late", np.full((3, 4), 9), ImagePositionPatient=[-10, -20, 2])
    assert "several phases" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "not parallel"),
        ({"PixelSpacing": [0.5, 0.5]}, "pixel spacing"),
        ({"Modality": "PT"}, "2 different modalities"),
        ({"Rows": 2, "PixelData": bytes(16)}, "2 different image sizes"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"ImagePositionPatient": None}, "where it lies"),
        ({"PixelSpacing": None}, "where it lies"),
        ({"ImagePositionPatient": [-10, -17, 6]}, "off a straight line"),
        ({"RescaleSlope": None}, "rescale"),
        ({"PixelData": bytes(10)}, "10 of 24 bytes"),
        ({"NumberOfFrames": 2, "PixelData": bytes(48)}, "multi-frame"),
        ({"SOPInstanceUID": "1.2.3.9"}, "5 slices share 4 SOP instance ids"),
    ],
)
def test_odd_slice_is_refused_with_the_reason(tmp_path: Path, tags: dict[str, Any], words: str) -> None:
    write_series(tmp_path, [0, 2, 4])
    pixels = np.zeros((3, 4))
    write_dicom(tmp_path / "a", pixels, ImagePositionPatient=[-10, -20, 8], SOPInstanceUID="1.2.3.9")
    write_dicom(tmp_path / "b", pixels, **{"ImagePositionPatient": [-10, -20, 6], **tags})
    assert words in refusal(tmp_path)


def test_one_slice_or_none_is_no_volume(tmp_path: Path) -> None:
    assert "no DICOM images" in refusal(tmp_path)
    write_series(tmp_path, [3])
    assert "one flat DICOM slice" in refusal(tmp_path)
    shutil.copy(tmp_path / "00", tmp_path / "copy")
    assert "one slice" in refusal(tmp_path)


# ---- trees of series


def test_tree_is_indexed_by_series_and_mixed_folders_need_a_choice(tmp_path: Path) -> None:
    write_series(tmp_path / "one", [0, 2, 4])
    write_series(tmp_path / "two" / "deep", [0, 3], SeriesInstanceUID="1.2.4")
    write_series(tmp_path / "nameless", [0, 5], SeriesInstanceUID=None)
    write_dicom(tmp_path / "report", np.zeros((1, 1)), SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", Modality="SR")
    (tmp_path / "notes.txt").write_text("not DICOM")
    index = index_series(tmp_path)
    assert {key: len(paths) for key, paths in index.items()} == {"1.2.3": 3, "1.2.4": 2, "folder:nameless": 2}
    assert index["1.2.4"] == [tmp_path / "two" / "deep" / "00", tmp_path / "two" / "deep" / "07"]
    assert "mixed: the folder holds 3 series" in refusal(tmp_path)
    assert "series_id" in refusal(tmp_path, series_id="9.9.9")
    assert read_image(tmp_path, spatial_dims=3, series_id="1.2.4").spacing[2] == 3
    assert read_series(tmp_path, "folder:nameless").spacing[2] == 5
    assert read_series(tmp_path / "nameless", "folder:nameless").spacing[2] == 5
    with pytest.raises(UnreadableImage, match="not a folder"):
        index_series(tmp_path / "notes.txt")


# ---- enhanced multi-frame


def group(keyword: str, **values: Any) -> Dataset:
    item, holder = Dataset(), Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    setattr(holder, keyword, [item])
    return holder


def write_enhanced(path: Path, depths: list[float], *, per_frame_rescale: bool) -> Path:
    shared = group("PlaneOrientationSequence", ImageOrientationPatient=AXIAL)
    shared.update(group("PixelMeasuresSequence", PixelSpacing=[0.5, 0.25], SliceThickness=2))
    frames = []
    for number, depth in enumerate(depths):
        frame = group("PlanePositionSequence", ImagePositionPatient=[-10, -20, depth])
        if per_frame_rescale:
            rescale = {"RescaleSlope": number + 1, "RescaleIntercept": -1000}
            frame.update(group("PixelValueTransformationSequence", **rescale))
        frames.append(frame)
    if not per_frame_rescale:
        shared.update(group("PixelValueTransformationSequence", RescaleSlope=1, RescaleIntercept=-1024))
    pixels = np.stack([np.full((3, 4), 1024 + 10 * depth) for depth in depths])
    return write_dicom(
        path,
        pixels,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1",
        NumberOfFrames=len(depths),
        **dict.fromkeys(("RescaleSlope", "RescaleIntercept", "PixelSpacing", "ImageOrientationPatient")),
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=frames,
    )


def test_enhanced_file_is_a_volume_whatever_the_order_of_its_frames(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "a", [4, 0, 2], per_frame_rescale=False)
    for image in (read_image(path, spatial_dims=3), read_image(tmp_path, spatial_dims=3)):
        assert image.array.shape == (1, 4, 3, 3)
        np.testing.assert_array_equal(column_through_first_pixel(image), [0, 20, 40])
        np.testing.assert_allclose(image.affine[:3, 3], [10, 20, 0])
        assert (image.spacing, image.unit) == ((0.25, 0.5, 2.0), "HU")
        assert image.meta["slice_thickness_mm"] == "2"
    with pytest.raises(UnreadableImage, match="3 frames"):
        read_image(path, spatial_dims=2)


def test_rescale_of_each_frame_is_its_own(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "a", [4, 0, 2], per_frame_rescale=True)
    # stored 1064, 1024, 1044 with slopes 1, 2, 3; then sorted by z
    expected = [1024 * 2 - 1000, 1044 * 3 - 1000, 1064 - 1000]
    np.testing.assert_array_equal(column_through_first_pixel(read_image(path, spatial_dims=3)), expected)


def test_frames_that_make_no_volume_are_refused(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "film", np.zeros((2, 3, 4)), NumberOfFrames=2)
    assert "2 of 2 frames do not say where they lie" in refusal(path)
    assert "1 of 5 slices" in refusal(write_enhanced(tmp_path / "gap", [0, 2, 4, 8], per_frame_rescale=False))
    assert "one position" in refusal(write_enhanced(tmp_path / "phases", [0, 2, 2], per_frame_rescale=True))
