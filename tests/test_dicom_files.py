"""The reader of single DICOM files. Expected values are worked out by hand, or are pydicom's for real files."""

from __future__ import annotations

import csv
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image as Pillow
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG2MPML, ExplicitVRLittleEndian
from refusals import refusal

from pipeline.data.images import read_image
from pipeline.data.readers.dicom import read_dicom_file, read_header
from pipeline.data.readers.kinds import sniff

CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
CXR_STORAGE = "1.2.840.10008.5.1.4.1.1.1"
META_KEYS = {
    *("modality", "body_part", "manufacturer", "model", "kernel", "slice_thickness_mm", "study_id", "series_id"),
    *("sop_instance_id", "patient_id", "sex", "age", "spacing_known", "photometric"),
}


def pack(name: str) -> Path:
    root = Path(os.environ.get("RADAUG_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (root / name).is_dir():
        pytest.skip(f"the data pack {name} is not here: set RADAUG_DATA to the folder that holds it")
    return root / name


def write_dicom(path: Path, pixels: np.ndarray, **tags: Any) -> Path:
    """A CT slice of `pixels`; a tag given as None is left out."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = tags.pop("TransferSyntaxUID", ExplicitVRLittleEndian)
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    facts: dict[str, Any] = {
        "SOPClassUID": CT_STORAGE,
        "SOPInstanceUID": "1.2.3.4",
        "Modality": "CT",
        "PatientName": "Secretname^Anna",
        "PatientID": "P-77",
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1 if pixels.ndim == 2 else pixels.shape[2],
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 8 * pixels.dtype.itemsize,
        "BitsStored": 8 * pixels.dtype.itemsize,
        "HighBit": 8 * pixels.dtype.itemsize - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes() + b"\0" * (pixels.nbytes % 2),
        **tags,
    }
    for keyword, value in facts.items():
        if value is not None:
            setattr(dataset, keyword, value)
    meta.MediaStorageSOPClassUID = facts["SOPClassUID"]
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset.save_as(path, enforce_file_format=True)
    return path


def replace_bytes(path: Path, old: bytes, new: bytes) -> None:
    """Put what pydicom would refuse to write into a file that is already there."""
    content = path.read_bytes()
    assert content.count(old) == 1
    assert len(old) == len(new)
    path.write_bytes(content.replace(old, new))


def test_file_without_preamble_reads_like_the_whole(tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    whole = write_dicom(tmp_path / "whole.dcm", pixels)
    content = whole.read_bytes()
    meta_length = struct.unpack("<I", content[140:144])[0]  # value of (0002,0000)
    bare = tmp_path / "bare"
    bare.write_bytes(content[144 + meta_length :])
    assert sniff(bare) == "dicom"
    np.testing.assert_array_equal(read_image(bare, spatial_dims=2).array[0], pixels - 1024.0)


@pytest.mark.parametrize(
    ("stored", "slope", "intercept", "expected"),
    [
        (np.array([[0, 1024, 4095]], np.uint16), "1", "-1024", [-1024, 0, 3071]),
        (np.array([[-1000, 0, 1200]], np.int16), "001.000000E+00", "000.000000E+00", [-1000, 0, 1200]),
        (np.array([[1024, 2000, 24]], np.uint16), "1.0002441", "-01.024000E+03", [0.249958, 976.4882, -999.994142]),
        (np.array([[-3024, -1025, -1024]], np.int16), "1", "0", [-1024, -1024, -1024]),
        (np.array([[10, 20, 200]], np.uint8), "2", "-100", [-80, -60, 300]),
    ],
)
def test_ct_is_given_in_hounsfield_units(
    tmp_path: Path, stored: np.ndarray, slope: str, intercept: str, expected: list[float]
) -> None:
    image = read_image(
        write_dicom(tmp_path / "a", stored, RescaleSlope=slope, RescaleIntercept=intercept), spatial_dims=2
    )
    assert image.unit == "HU"
    assert image.array.dtype == np.float32
    assert image.array.shape == (1, 1, 3)
    np.testing.assert_allclose(image.array[0, 0], expected, atol=1e-4)


def test_padding_written_unsigned_is_air_even_where_it_lies_above_air(tmp_path: Path) -> None:
    stored = np.array([[-2000, -3500, 6], [7, 8, 9], [10, 11, -2000]], np.int16)
    path = write_dicom(tmp_path / "a", stored, PixelPaddingValue=None, RescaleIntercept=3000)
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", "US", 63536)
    dataset.save_as(path)
    expected = [[-1024, -500, 3006], [3007, 3008, 3009], [3010, 3011, -1024]]  # -2000 + 3000 would be 1000 HU
    np.testing.assert_array_equal(read_image(path, spatial_dims=2).array[0], expected)


def test_padding_number_inside_the_body_is_a_measurement(tmp_path: Path) -> None:
    stored = np.full((5, 5), 40, np.int16)
    stored[0, :] = 0
    stored[2, 2] = 0
    image = read_image(write_dicom(tmp_path / "a", stored, RescaleIntercept=0, PixelPaddingValue=0), spatial_dims=2)
    assert (image.array[0, 0] == -1024).all()
    assert image.array[0, 2, 2] == 0


@pytest.mark.parametrize(
    ("stored", "bits", "expected"),
    [
        (np.array([[0, 100, 4095]], np.uint16), 12, [4095, 3995, 0]),
        (np.array([[0, 1, 255]], np.uint8), 8, [255, 254, 0]),
        (np.array([[-128, 0, 127]], np.int8), 8, [127, -1, -128]),
    ],
)
def test_monochrome1_xray_is_inverted_in_its_range(
    tmp_path: Path, stored: np.ndarray, bits: int, expected: list[int]
) -> None:
    tags = {"Modality": "CR", "SOPClassUID": CXR_STORAGE, "RescaleSlope": None, "RescaleIntercept": None}
    path = write_dicom(
        tmp_path / "a", stored, PhotometricInterpretation="MONOCHROME1", BitsStored=bits, HighBit=bits - 1, **tags
    )
    image = read_image(path, spatial_dims=2)
    assert image.unit == "none"
    np.testing.assert_array_equal(image.array[0, 0], expected)


def test_monochrome1_ct_keeps_its_hounsfield_units(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", np.array([[24, 1064]], np.uint16), PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_image(path, spatial_dims=2).array[0, 0], [-1000, 40])


def test_xray_padding_gets_the_lowest_shown_value(tmp_path: Path) -> None:
    stored = np.array([[9, 50, 60]], np.uint8)
    tags = {"Modality": "DX", "PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 9}
    path = write_dicom(tmp_path / "a", stored, RescaleSlope=None, RescaleIntercept=None, **tags)
    np.testing.assert_array_equal(read_image(path, spatial_dims=2).array[0, 0], [195, 205, 195])


def test_unused_high_bits_are_not_part_of_the_value(tmp_path: Path) -> None:
    stored = np.array([[0x1064, 0x0064, 0x8FFF]], np.uint16)  # an old overlay lies in bits 12 to 15
    path = write_dicom(tmp_path / "a", stored, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_image(path, spatial_dims=2).array[0, 0], [100 - 1024, 100 - 1024, 4095 - 1024])


@pytest.mark.parametrize(
    ("photometric", "white_and_red"),
    [("RGB", [(255, 255, 255), (255, 0, 0)]), ("YBR_FULL", [(255, 128, 128), (76, 85, 255)])],
)
def test_colour_becomes_luminance(tmp_path: Path, photometric: str, white_and_red: list[tuple[int, ...]]) -> None:
    pixels = np.array([white_and_red], np.uint8)
    tags = {"Modality": "OT", "PhotometricInterpretation": photometric, "PlanarConfiguration": 0}
    path = write_dicom(tmp_path / "a", pixels, RescaleSlope=None, RescaleIntercept=None, **tags)
    np.testing.assert_allclose(read_image(path, spatial_dims=2).array[0, 0], [255, 76], atol=1)  # 0.299 * 255 = 76.2


@pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"])
def test_lossless_codecs_give_the_pixels_of_the_plain_file(name: str) -> None:
    plain, packed = get_testdata_file("MR_small.dcm", download=False), get_testdata_file(name, download=False)
    expected = pydicom.dcmread(str(plain)).pixel_array
    np.testing.assert_array_equal(read_image(Path(str(packed)), spatial_dims=2).array[0], expected)


def test_baseline_jpeg_is_decoded(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    Pillow.fromarray(ramp).save(tmp_path / "a.jpg", quality=100)
    data = encapsulate([(tmp_path / "a.jpg").read_bytes()])
    path = write_dicom(tmp_path / "a", ramp, PixelData=data, RescaleSlope=8, TransferSyntaxUID="1.2.840.10008.1.2.4.50")
    np.testing.assert_allclose(read_image(path, spatial_dims=2).array[0], 8.0 * ramp - 1024, atol=16)


def test_palette_colour_becomes_grey(tmp_path: Path) -> None:
    table = np.array([0, 257 * 10, 257 * 200], np.uint16)
    tags = {"Modality": "US", "PhotometricInterpretation": "PALETTE COLOR", "RescaleSlope": None}
    for colour in ("Red", "Green", "Blue"):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [3, 0, 16]
        tags[f"{colour}PaletteColorLookupTableData"] = table.tobytes()
    path = write_dicom(tmp_path / "a", np.array([[2, 0, 1]], np.uint8), RescaleIntercept=None, **tags)
    np.testing.assert_array_equal(read_image(path, spatial_dims=2).array[0, 0], [51400, 0, 2570])


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"RescaleSlope": None}, "no rescale slope and intercept"),
        ({"RescaleIntercept": None}, "no rescale slope and intercept"),
        ({"RescaleSlope": 0}, "not usable"),
        ({"RescaleType": "MGML"}, "not in Hounsfield units"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"NumberOfFrames": 2, "PixelData": bytes(2 * 32)}, "2 frames"),
        ({"PixelData": None, "Modality": "SR"}, "holds no pixels"),
        ({"PixelData": bytes(20)}, "20 of 32 bytes"),
        ({"Rows": 0}, "empty"),
        ({"TransferSyntaxUID": MPEG2MPML, "PixelData": encapsulate([b"1234"])}, "no decoder is installed for MPEG2"),
        ({"TransferSyntaxUID": "1.2.840.10008.1.2.4.90", "PixelData": encapsulate([b"\xff\x4f12"])}, "damaged"),
    ],
)
def test_unusable_dicom_is_refused_with_the_reason(tmp_path: Path, tags: dict[str, Any], words: str) -> None:
    assert words in refusal(write_dicom(tmp_path / "a", np.zeros((4, 4), np.uint16), **tags))


def test_dicom_without_finite_values_is_refused(tmp_path: Path) -> None:
    values = np.array([[1.0, np.nan]], np.float32)
    path = write_dicom(tmp_path / "a", values, PixelData=None, FloatPixelData=values.tobytes(), BitsStored=None)
    assert "1 of 2 values" in refusal(path)


def test_cut_dicom_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    path = Path(str(get_testdata_file("MR_small_RLE.dcm", download=False)))
    content = path.read_bytes()
    for share in (0.05, 0.2, 0.5, 0.9):
        (tmp_path / "cut").write_bytes(content[: int(share * len(content))])
        assert refusal(tmp_path / "cut")


def test_malformed_header_values_are_silent_and_harmless(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    path = write_dicom(
        tmp_path / "a", np.full((2, 2), 1024, np.uint16), SliceThickness="5.25", PatientAge="041Y", StudyDate="20200101"
    )
    replace_bytes(path, b"5.25", b"thin")
    replace_bytes(path, b"041Y", b"old ")
    replace_bytes(path, b"20200101", b"someday ")
    image = read_image(path, spatial_dims=2)
    assert (image.array == 0).all()
    assert "age" not in image.meta
    assert "slice_thickness_mm" not in image.meta
    assert (list(recwarn), *capfd.readouterr()) == ([], "", "")


def test_bytes_after_the_pixels_are_passed_over(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    pixels = np.arange(4, dtype=np.uint16).reshape(2, 2)
    path = write_dicom(tmp_path / "a", pixels, PixelData=pixels.tobytes() + bytes(6))
    np.testing.assert_array_equal(read_image(path, spatial_dims=2).array[0], pixels - 1024.0)
    assert list(recwarn) == []


def test_affine_of_a_sagittal_slice_worked_by_hand(tmp_path: Path) -> None:
    place = {"ImagePositionPatient": [10, -20, 30], "ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}
    path = write_dicom(
        tmp_path / "a", np.zeros((4, 4), np.uint16), **place, PixelSpacing=[0.5, 0.8], SliceThickness="3"
    )
    image = read_image(path, spatial_dims=2)
    # rows go to the feet by 0.5 mm, columns to posterior by 0.8 mm, the normal (0,1,0) x (0,0,-1) = (-1,0,0) to R
    expected = [[0, 0, 3, -10], [0, -0.8, 0, 20], [-0.5, 0, 0, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(image.affine, expected, atol=1e-12)
    assert image.spacing == (0.5, 0.8)
    assert image.meta["spacing_known"] == "true"


def test_spacing_at_the_detector_is_used_and_unknown_spacing_is_said(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2), np.uint16)
    known = read_image(write_dicom(tmp_path / "a", pixels, ImagerPixelSpacing=[0.2, 0.3]), spatial_dims=2)
    unknown = read_image(write_dicom(tmp_path / "b", pixels, PixelSpacing=[0, 0.3]), spatial_dims=2)
    assert (known.spacing, known.meta["spacing_known"]) == ((0.2, 0.3), "true")
    assert (unknown.spacing, unknown.meta["spacing_known"]) == ((1.0, 1.0), "false")
    np.testing.assert_array_equal(known.affine, np.diag([0.2, 0.3, 1, 1]))


def test_facts_are_the_same_with_and_without_pixels_and_hold_no_name(tmp_path: Path) -> None:
    facts = {"PatientSex": "F", "PatientAge": "006M", "SliceThickness": "1.50", "ConvolutionKernel": ["Br38f", "3"]}
    path = write_dicom(tmp_path / "a", np.zeros((2, 2), np.uint16), **facts, BodyPartExamined="CHEST ")
    expected = {
        "modality": "CT",
        "patient_id": "P-77",
        "sex": "F",
        "age": "0.5",
        "slice_thickness_mm": "1.5",
        "kernel": "Br38f/3",
        "body_part": "CHEST",
        "photometric": "MONOCHROME2",
        "sop_instance_id": "1.2.3.4",
        "spacing_known": "false",
    }
    assert read_header(path) == expected
    assert read_dicom_file(path).meta == expected


def test_tcga_pack_agrees_with_its_table_and_with_pydicom() -> None:
    root = pack("tcga-luad-ct-contrast-dicom")
    with (root / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 100
    for row in rows:
        path = next(iter(root.rglob(Path(row["file"]).name)))
        image = read_image(path, spatial_dims=2)
        assert image.array.shape == (1, 512, 512)
        assert image.unit == "HU"
        assert set(image.meta) <= META_KEYS
        stated = {key: image.meta[key] for key in ("patient_id", "sex", "manufacturer", "model", "kernel")}
        assert stated == {key: row[key] for key in stated}
        assert float(image.meta["age"]) == float(row["age"])
        assert float(image.meta["slice_thickness_mm"]) == float(row["slice_thickness_mm"])
        assert image.spacing[0] == pytest.approx(float(row["pixel_spacing_mm"]), rel=1e-3)
        dataset = pydicom.dcmread(path)
        rescaled = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        np.testing.assert_allclose(image.array[0], np.maximum(rescaled, -1024), atol=1e-3)
