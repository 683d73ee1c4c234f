"""Series that hold more than one kind of image are refused by the tag that differs; good series that vary are read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_making import AXIAL, smooth_volume, write_slice, write_volume
from pydicom.dataset import Dataset
from refusals import refusal as read_refusal

from pipeline.data.images import read_image
from pipeline.data.readers.mixture import doubled, interleaved
from pipeline.data.readers.series import read_series

refusal = partial(read_refusal, spatial_dims=3)


def assert_read(folder: Path, volume: np.ndarray) -> None:
    np.testing.assert_array_equal(read_series(folder).array[0], volume.transpose(2, 1, 0))


Maker = Callable[[int], Any]


# ---- what a good series may do


@pytest.mark.parametrize(
    "tags",
    [
        {"AcquisitionNumber": lambda n: n + 1},  # each slice a scan of its own (sequential)
        {"AcquisitionNumber": lambda n: n // 4 + 1},  # four slices a turn
        {"AcquisitionNumber": lambda n: [1, 1, 1, 1, 2, 1, 2, 2, 2, 2, 2, 2, 2, 2][n]},  # slabs that overlap a little
        {"AcquisitionTime": lambda n: f"1200{n:02d}.5", "ContentTime": lambda n: f"1210{59 - n:02d}"},
        {"ContentTime": lambda n: f"1210{[0, 0, 1, 0, 1, 2, 1, 2, 3, 3, 4, 3, 4, 5][n]:02d}"},  # rebuilt in parallel
        {"SliceThickness": lambda n: 4.0 if n < 7 else 7.0, "KVP": lambda n: 140 if n < 7 else 120},
        {"SliceThickness": lambda n: "2" if n % 2 else "2.0"},  # one number, written in two ways
        {"ImageType": lambda n: ["ORIGINAL", "PRIMARY", "AXIAL", *(["ADD"] if n < 7 else [])]},
        {"XRayTubeCurrent": lambda n: 200 + n % 2, "ExposureTime": lambda n: 500 + n % 3},
        {"InstanceNumber": lambda n: n % 7 + 1},  # counted anew in the second half
        {"InstanceNumber": lambda n: [9, 3, 14, 1, 7, 12, 2, 10, 5, 13, 4, 8, 11, 6][n]},  # an exporter's own order
        {"InstanceNumber": 1},
        {"StudyInstanceUID": lambda n: f"1.2.{n}", "FrameOfReferenceUID": lambda n: f"1.3.{n}"},  # anonymised by file
        {"WindowCenter": lambda n: 40 + n % 2},
    ],
)
def test_series_whose_tags_vary_in_step_with_the_position_is_read(tmp_path: Path, tags: dict[str, Any]) -> None:
    volume = smooth_volume(14)
    assert_read(write_volume(tmp_path, volume, **tags), volume)


def test_noise_has_no_two_sets(tmp_path: Path) -> None:
    volume = np.random.default_rng(1).integers(-900, 900, (20, 8, 9)).astype("<i2")
    assert_read(write_volume(tmp_path, volume), volume)


# ---- two sets that lie between each other


def write_two_sets(folder: Path, tag: str, first: Any, second: Any, count: int = 6) -> Path:
    """Two image sets of one series, the second half a step above the first; only `tag` tells them apart."""
    volume = smooth_volume(count)
    for number in range(count):
        for half, value in ((0, first), (1, second)):
            tags = {tag: value} if value is not None else {}
            place = [0, 0, 2 * number + half]
            write_slice(folder / f"{'ab'[half]}{number}.dcm", volume[number], ImagePositionPatient=place, **tags)
    return folder


@pytest.mark.parametrize(
    ("tag", "first", "second"),
    [
        ("ConvolutionKernel", "B30f", "B70f"),
        ("ConvolutionKernel", ["Br38f", "3"], ["Br64f", "3"]),
        ("AcquisitionNumber", 1, 2),
        ("AcquisitionTime", "120000", "120500"),
        ("ContentTime", "120000", "120500"),
        ("EchoTime", 4.6, 20),
        ("KVP", 80, 140),
        ("ImageType", ["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "SECONDARY", "AXIAL", "MIP"]),
        ("ContrastBolusAgent", "APPLIED", None),
        ("SliceThickness", 1, 5),
        ("SeriesNumber", 3, 4),
        ("StudyInstanceUID", "1.2.8", "1.2.9"),
        ("FrameOfReferenceUID", "1.2.8", "1.2.9"),
        ("TemporalPositionIdentifier", 1, 2),
        ("SeriesDescription", "early", "late"),
    ],
)
def test_two_sets_are_refused_by_the_tag_that_tells_them_apart(
    tmp_path: Path, tag: str, first: Any, second: Any
) -> None:
    reason = refusal(write_two_sets(tmp_path, tag, first, second))
    assert tag in reason
    assert "a0.dcm and b0.dcm" in reason
    assert "series of its own" in reason


def test_two_kinds_at_one_place_are_refused_by_the_tag_and_both_files(tmp_path: Path) -> None:
    write_volume(tmp_path, smooth_volume(4), ConvolutionKernel="B30f")
    write_slice(tmp_path / "odd.dcm", smooth_volume(1, 7)[0], ImagePositionPatient=[0, 0, 4], ConvolutionKernel="B70f")
    reason = refusal(tmp_path)
    assert "odd.dcm and s002.dcm are different images at one position (they differ in ConvolutionKernel" in reason


def test_one_slice_of_another_kernel_is_named(tmp_path: Path) -> None:
    write_volume(tmp_path, smooth_volume(7), ConvolutionKernel=lambda n: "B70f" if n == 3 else "B30f")
    reason = refusal(tmp_path)
    assert "B30f in 6; B70f in 1" in reason
    assert "s003.dcm" in reason


@pytest.mark.parametrize(
    "numbers",
    [
        lambda n, half: n + 1,  # each number given twice
        lambda n, half: n + 1 + 6 * half,  # the second set counted on
        lambda n, half: [n + 1, 12 - n][half],  # and backwards
    ],
)
def test_two_sets_that_differ_in_their_numbers_alone_are_refused(
    tmp_path: Path, numbers: Callable[[int, int], int]
) -> None:
    volume = smooth_volume(6)
    for number in range(6):
        for half in (0, 1):
            place = {"ImagePositionPatient": [0, 0, 2 * number + half], "InstanceNumber": numbers(number, half)}
            write_slice(tmp_path / f"{number}-{half}", volume[number], **place)
    assert "told apart by InstanceNumber" in refusal(tmp_path)


def test_two_contrasts_that_no_tag_tells_apart_are_seen_in_the_pixels(tmp_path: Path) -> None:
    volume = smooth_volume(12)
    volume[1::2, 2:6, 2:6] += 200
    assert "slices two apart look more alike" in refusal(write_volume(tmp_path, volume))


@pytest.mark.parametrize("offset", [0.5, 0.6, 1.3])
def test_two_sets_off_the_middle_are_seen_in_their_steps(tmp_path: Path, offset: float) -> None:
    depths = [*(2.0 * n for n in range(3)), *(6.0 + 2 * (n // 2) + offset * (n % 2) for n in range(8))]
    write_volume(tmp_path, smooth_volume(11), ImagePositionPatient=lambda n: [0, 0, depths[n]])
    assert "mm in turn" in refusal(tmp_path)


def test_slightly_uneven_pairs_of_a_two_row_scanner_are_read(tmp_path: Path) -> None:
    depths = [5.0 * n + 0.4 * (n // 2) for n in range(10)]
    write_volume(tmp_path, smooth_volume(10), ImagePositionPatient=lambda n: [0, 0, depths[n]])
    assert "resampled" in read_series(tmp_path).meta


def test_three_sets_are_refused(tmp_path: Path) -> None:
    write_volume(tmp_path, smooth_volume(12), AcquisitionTime=lambda n: f"12{n % 3}0{n // 3:02d}")
    assert "AcquisitionTime" in refusal(tmp_path)


def test_slice_with_another_offset_than_its_neighbours_is_refused(tmp_path: Path) -> None:
    volume = smooth_volume(5)
    write_volume(tmp_path, volume, RescaleIntercept=lambda n: 600 if n == 2 else 0)
    reason = refusal(tmp_path)
    assert "s001.dcm and s002.dcm" in reason
    assert "RescaleIntercept" in reason
    same = tmp_path / "same"  # another intercept with other stored numbers gives the same HU, and is fine
    shifted = volume.copy()
    shifted[2] += 1024
    write_volume(same, shifted, RescaleIntercept=lambda n: -1024 if n == 2 else 0)
    assert_read(same, volume)


def test_numbers_alternate_only_where_sets_keep_to_ranges_of_their_own() -> None:
    sets = np.arange(8.0)
    assert interleaved(np.column_stack([sets, sets + 100]).ravel())
    assert interleaved(np.column_stack([sets, 200 - sets, sets + 300]).ravel())
    assert interleaved(np.r_[np.arange(10.0), np.column_stack([sets + 10, sets + 100]).ravel()])  # in a part
    assert not interleaved(np.arange(16.0))
    assert not interleaved(np.arange(16.0)[::-1])
    assert not interleaved(np.column_stack([sets * 2, sets * 2 + 3]).ravel())  # two engines at work on one stack
    assert not any(interleaved(np.random.default_rng(seed).permutation(40).astype(float)) for seed in range(200))
    assert doubled(np.repeat(sets, 2))
    assert not doubled(np.r_[sets, sets])
    assert not doubled(sets)


# ---- culprits


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"ImagePositionPatient": None}, ("slice s003.dcm", "ImagePositionPatient missing")),
        ({"ImageOrientationPatient": None}, ("slice s003.dcm", "ImageOrientationPatient missing")),
        ({"PixelSpacing": None}, ("slice s003.dcm", "PixelSpacing missing")),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, ("not parallel", "s003.dcm")),
        ({"PixelSpacing": [2, 2]}, ("differ in pixel spacing", "s003.dcm")),
        ({"Rows": 4}, ("different image sizes", "s003.dcm")),
        ({"RescaleSlope": None}, ("slice s003.dcm", "RescaleSlope missing")),
        ({"PixelData": bytes(10)}, ("slice s003.dcm", "10 of 144 bytes")),
        ({"ImagePositionPatient": [0, 9, 6]}, ("off a straight line", "s003.dcm")),
        ({"BitsStored": None}, ("slice s003.dcm", "BitsStored")),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, ("slice s003.dcm", "localizer")),
        ({"Modality": "PT"}, ("different modalities", "s003.dcm")),
    ],
)
def test_odd_slice_is_named(tmp_path: Path, tags: dict[str, Any], words: tuple[str, ...]) -> None:
    volume = smooth_volume(6)
    write_volume(tmp_path, volume)
    place = {"ImagePositionPatient": [0, 0, 6], "InstanceNumber": 4}
    write_slice(tmp_path / "s003.dcm", volume[3], **(place | tags))
    reason = refusal(tmp_path)
    for word in words:
        assert word in reason
    others = {f"s{number:03d}.dcm" for number in range(6) if number != 3}
    assert not any(name in reason for name in others)


def test_gap_is_told_by_the_slices_on_both_sides(tmp_path: Path) -> None:
    write_volume(tmp_path, smooth_volume(8))
    (tmp_path / "s004.dcm").unlink()
    assert "between s003.dcm and s005.dcm" in refusal(tmp_path)


def test_lost_positions_are_told_as_such(tmp_path: Path) -> None:
    reason = refusal(write_volume(tmp_path, smooth_volume(4), ImagePositionPatient=[0, 0, 0]))
    assert "all 4 slices state the same ImagePositionPatient" in reason


def test_slice_of_another_series_is_named(tmp_path: Path) -> None:
    write_volume(tmp_path, smooth_volume(4), SeriesInstanceUID=lambda n: "1.2.4" if n == 2 else "1.2.3")
    assert "2 series (of files 3 such as s000.dcm, 1 such as s002.dcm)" in refusal(tmp_path)


def test_shared_instance_ids_name_the_slices(tmp_path: Path) -> None:
    uid = pydicom.uid.generate_uid()
    write_volume(tmp_path, smooth_volume(4), SOPInstanceUID=lambda n: uid if n in (1, 3) else f"1.2.{n}")
    assert "s001.dcm and s003.dcm" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html><title>Sign in</title>", "HTML"),
    ],
)
@pytest.mark.parametrize("which", ["s000.dcm", "s003.dcm", "s005.dcm"])
def test_file_that_stands_in_for_a_slice_is_named(tmp_path: Path, content: bytes, words: str, which: str) -> None:
    write_volume(tmp_path, smooth_volume(6))
    (tmp_path / which).write_bytes(content)
    reason = refusal(tmp_path)
    assert which in reason
    assert words in reason


def test_slice_cut_in_its_header_is_named_wherever_it_lies(tmp_path: Path) -> None:
    for which in ("s000.dcm", "s005.dcm"):
        folder = write_volume(tmp_path / which[:4], smooth_volume(6))
        content = (folder / which).read_bytes()
        for kept in (100, 200, 400, 700, len(content) - 150):
            (folder / which).write_bytes(content[:kept])
            assert which in refusal(folder), kept


def test_other_files_beside_the_slices_are_passed_over(tmp_path: Path) -> None:
    volume = smooth_volume(5)
    write_volume(tmp_path, volume)
    for name in ("Thumbs.db", "notes.txt", "README"):
        (tmp_path / name).write_text("not an image")
    report = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "Modality": "SR", "SeriesInstanceUID": "1.2.9"}
    write_slice(tmp_path / "report.dcm", volume[0], **report)
    assert_read(tmp_path, volume)


# ---- multi-frame


def write_frames(path: Path, depths: list[float], **groups: Callable[[int], tuple[str, Any]]) -> Path:
    """An enhanced CT; `groups` gives a frame's functional groups: keyword -> (sequence, value) of frame n."""
    shared, frames = Dataset(), []
    for sequence, values in (
        ("PlaneOrientationSequence", {"ImageOrientationPatient": AXIAL}),
        ("PixelMeasuresSequence", {"PixelSpacing": [1, 1]}),
        ("PixelValueTransformationSequence", {"RescaleSlope": 1, "RescaleIntercept": 0}),
    ):
        item = Dataset()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        setattr(shared, sequence, [item])
    for number, depth in enumerate(depths):
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, depth]
        frame.PlanePositionSequence = [place]
        for keyword, give in groups.items():
            sequence, value = give(number)
            item = Dataset()
            setattr(item, keyword, value)
            setattr(frame, sequence, [item])
        frames.append(frame)
    tops = ("RescaleSlope", "RescaleIntercept", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient")
    tags = {"SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": frames}
    tags |= {"NumberOfFrames": len(depths), "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1"}
    return write_slice(path, smooth_volume(len(depths)), **dict.fromkeys(tops), **tags)


@pytest.mark.parametrize(
    ("keyword", "sequence", "values"),
    [
        ("ConvolutionKernel", "CTReconstructionSequence", ["B30f", "B70f"]),
        ("FrameAcquisitionNumber", "FrameContentSequence", [1, 2]),
        ("FrameType", "CTImageFrameTypeSequence", [["ORIGINAL", "PRIMARY"], ["DERIVED", "PRIMARY"]]),
        ("KVP", "CTXRayDetailsSequence", [80, 140]),
    ],
)
def test_frames_of_two_kinds_are_refused_by_the_tag(
    tmp_path: Path, keyword: str, sequence: str, values: list[Any]
) -> None:
    depths = [float(depth) for depth in range(8)]
    mixed = write_frames(tmp_path / "a", depths, **{keyword: lambda n: (sequence, values[n % 2])})
    assert f"different {keyword}" in refusal(mixed)
    blocks = write_frames(tmp_path / "b", depths, **{keyword: lambda n: (sequence, values[n // 4])})
    np.testing.assert_array_equal(read_image(blocks, spatial_dims=3).array[0].transpose(2, 1, 0), smooth_volume(8))


def test_frames_without_place_are_named(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "a", [0.0, 2.0, 4.0])
    dataset = pydicom.dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence
    dataset.save_as(path)
    assert "the first is frame 2 (ImagePositionPatient missing" in refusal(path)


def test_reference_volume_agrees_with_dcm2niix(tmp_path: Path) -> None:
    """Geometry and rescale of an oblique series as dcm2niix has them, in a voxel-by-voxel comparison in space."""
    nib = pytest.importorskip("nibabel")
    program = shutil.which("dcm2niix")
    if program is None:
        pytest.skip("dcm2niix is not installed")
    import subprocess

    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
    turn[2] = np.cross(turn[0], turn[1])
    directions = [float(f"{value:.9f}") for value in turn[:2].ravel()]
    volume = smooth_volume(9)
    folder = write_volume(
        tmp_path / "in",
        volume,
        ImagePositionPatient=lambda n: [float(f"{value:.7f}") for value in [5.0, -7.0, 11.0] + 2.5 * n * turn[2]],
        ImageOrientationPatient=directions,
        PixelSpacing=[0.7, 0.4],
        SliceThickness=2.5,
        StudyInstanceUID="1.2.8",
        SeriesNumber=1,
    )
    (tmp_path / "out").mkdir()
    command = [program, "-b", "n", "-z", "n", "-o", str(tmp_path / "out"), str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    reference = nib.load(next((tmp_path / "out").glob("*.nii")))
    image = read_series(folder)
    theirs = np.asarray(reference.dataobj)
    for index in np.ndindex(*image.array.shape[1:]):
        place = image.affine @ [*index, 1]
        there = np.rint((np.linalg.inv(reference.affine) @ place)[:3]).astype(int)
        assert theirs[tuple(there)] == image.array[(0, *index)]
    np.testing.assert_allclose(sorted(image.spacing), sorted(reference.header.get_zooms()[:3]), rtol=1e-4)
