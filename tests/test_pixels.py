"""What stored DICOM numbers mean: bits, signs, look-up tables, missing tags. Expected values are worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_making import write_slice
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless
from refusals import refusal

from pipeline.data.images import read_image

XRAY = {"Modality": "CR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1", "RescaleSlope": None, "RescaleIntercept": None}


def first_row(path: Path) -> np.ndarray:
    return read_image(path, spatial_dims=2).array[0, 0]


def packed(pixels: np.ndarray, syntax: pydicom.uid.UID) -> bytes:
    """The pixels compressed with all 16 bits, so that what lies above BitsStored survives."""
    encoder = get_encoder(syntax)
    tags = {"rows": pixels.shape[0], "columns": pixels.shape[1], "samples_per_pixel": 1, "number_of_frames": 1}
    tags |= {"bits_allocated": 16, "bits_stored": 16, "pixel_keyword": "PixelData"}
    tags |= {"pixel_representation": int(pixels.dtype.kind == "i"), "photometric_interpretation": "MONOCHROME2"}
    return encapsulate([encoder.encode(pixels, **tags)])


# ---- bits


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize(
    ("words", "signed", "expected"),
    [
        ([0x1064, 0x0064, 0x8FFF, 0x0018], 0, [100 - 1024, 100 - 1024, 4095 - 1024, 24 - 1024]),
        ([0x1C18, 0xFC18, 0x0064, 0x8064], 1, [-1000, -1000, 100, 100]),  # 0xC18 = 4096 - 1000
    ],
)
def test_bits_above_the_stored_ones_are_no_part_of_the_value(
    tmp_path: Path, syntax: pydicom.uid.UID | None, words: list[int], signed: int, expected: list[int]
) -> None:
    pixels = np.tile(np.array(words, np.uint16), (64, 16))
    tags: dict[str, Any] = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": signed}
    tags["RescaleIntercept"] = 0 if signed else -1024
    if syntax is not None:
        tags |= {"TransferSyntaxUID": syntax, "PixelData": packed(pixels, syntax)}
    np.testing.assert_array_equal(first_row(write_slice(tmp_path / "a", pixels, **tags))[:4], expected)


def test_compressed_signed_numbers_equal_the_plain_ones(tmp_path: Path) -> None:
    pixels = np.tile(np.array([-1000, 0, 40, 1900], np.int16), (64, 16))
    for syntax in (RLELossless, JPEG2000Lossless, JPEGLSLossless):
        if not get_encoder(syntax).is_available:
            continue
        path = write_slice(tmp_path / "a", pixels, TransferSyntaxUID=syntax, PixelData=packed(pixels, syntax))
        np.testing.assert_array_equal(first_row(path), pixels[0])


def test_number_at_the_top_of_its_word_is_moved_down(tmp_path: Path) -> None:
    pixels = np.array([[24, 1064, 4095]], np.uint16) << 4  # HighBit 15, BitsStored 12, as old files have it
    path = write_slice(tmp_path / "a", pixels, BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(first_row(path), [-1000, 40, 3071])
    overlay = pixels | 1  # an old overlay in bit 0, declared
    tags = {"BitsStored": 12, "HighBit": 15}
    dataset = pydicom.dcmread(write_slice(tmp_path / "b", overlay, **tags))
    dataset.add_new((0x6000, 0x0100), "US", 16)
    dataset.add_new((0x6000, 0x0102), "US", 0)
    dataset.save_as(tmp_path / "b")
    np.testing.assert_array_equal(first_row(tmp_path / "b"), [-1000, 40, 3071])


def test_slip_in_high_bit_is_harmless_where_the_numbers_tell_and_refused_where_not(tmp_path: Path) -> None:
    pixels = np.array([[25, 1065, 4095]], np.uint16)
    for high in (15, 10, None):
        path = write_slice(tmp_path / "a", pixels, BitsStored=12, HighBit=high)
        expected = [-999, 41, 3071]
        if high == 10:
            assert "HighBit (10) contradicts BitsStored (12)" in refusal(path)  # 4095 needs bit 11
        else:
            np.testing.assert_array_equal(first_row(path), expected)
    wide = np.array([[25, 40000]], np.uint16)
    assert "HighBit (15) contradicts" in refusal(write_slice(tmp_path / "b", wide, BitsStored=12, HighBit=15))
    assert "does not fit BitsAllocated" in refusal(write_slice(tmp_path / "c", wide, BitsStored=17, HighBit=16))


def test_padding_that_needs_more_bits_than_the_numbers_is_still_padding(tmp_path: Path) -> None:
    pixels = np.array([[-3024, -3024, -3024], [-3024, 40, 50], [-3024, 60, 70]], np.int16)
    path = write_slice(tmp_path / "a", pixels, BitsStored=12, HighBit=11, PixelPaddingValue=-3024)
    np.testing.assert_array_equal(read_image(path, spatial_dims=2).array[0, 1], [-1024, 40, 50])  # else 1072 HU


@pytest.mark.parametrize("name", ["MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_dcmtk.dcm", "MR_small_RLE.dcm"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_compressed_frame_that_is_cut_is_refused_and_not_filled_up(tmp_path: Path, name: str, share: float) -> None:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip("pydicom's test file is not here")
    dataset = pydicom.dcmread(path)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([frame[: int(share * len(frame))]])
    dataset.save_as(tmp_path / "cut")
    assert "cut short" in refusal(tmp_path / "cut")


@pytest.mark.parametrize(("start", "runs"), [(64, 32), (60, 32), (64, 33), (64, 30)])
def test_damaged_run_lengths_are_refused_and_not_guessed(tmp_path: Path, start: int, runs: int) -> None:
    """A first segment that begins in the header, or holds 33 or 30 runs of 128 bytes where 32 make 64 x 64 pixels."""
    first, second = b"\x81\x03" * runs, b"\x81\xe8" * 32
    offsets = (2, start, 64 + len(first), *[0] * 13)
    frame = b"".join(offset.to_bytes(4, "little") for offset in offsets) + first + second
    pixels = np.full((64, 64), 0x03E8, np.int16)
    tags = {"TransferSyntaxUID": RLELossless, "PixelData": encapsulate([frame])}
    path = write_slice(tmp_path / "a", pixels, **tags)
    if (start, runs) == (64, 32):
        np.testing.assert_array_equal(read_image(path, spatial_dims=2).array[0], pixels)
    else:
        assert "damaged" in refusal(path)


# ---- signs and ranges of CT


def body(size: int = 16) -> np.ndarray:
    """HU of air with fat, soft tissue and a dense bone in it."""
    hu = np.full((size, size), -1000)
    hu[3:13, 3:13] = -100
    hu[4:12, 4:12] = 40 + np.arange(8)
    hu[6:9, 6:9] = 1200 + 10 * np.arange(9).reshape(3, 3)
    return hu


@pytest.mark.parametrize("bits", [16, 12])
@pytest.mark.parametrize("crop", [slice(None), slice(3, 13)])
def test_signed_numbers_marked_unsigned_are_refused(tmp_path: Path, bits: int, crop: slice) -> None:
    stored = (body()[crop, crop] % 2**bits).astype(np.uint16)
    path = write_slice(tmp_path / "a", stored, RescaleIntercept=0, BitsStored=bits, HighBit=bits - 1)
    assert "PixelRepresentation" in refusal(path)


def test_unsigned_numbers_marked_signed_are_refused(tmp_path: Path) -> None:
    hu = body()
    twelve = (hu + 1024).astype(np.int16)
    tags = {"RescaleIntercept": -1024, "BitsStored": 12, "HighBit": 11}
    assert "PixelRepresentation (1)" in refusal(write_slice(tmp_path / "a", twelve, **tags))  # bone is beyond 1023 HU
    full = np.where(twelve > 2047, twelve - 4096, twelve)  # as a program wrote that kept the sign in all 16 bits
    assert "marked signed" in refusal(write_slice(tmp_path / "e", full, **tags))
    sixteen = (hu + 32768).astype(np.uint16).view(np.int16)
    assert "marked signed" in refusal(write_slice(tmp_path / "b", sixteen, RescaleIntercept=-32768))
    one_level = (np.where(hu > 1000, 1500, hu) + 1024).astype(np.int16)
    one_level = np.where(one_level > 2047, one_level - 4096, one_level)
    assert "9 values lie below" in refusal(write_slice(tmp_path / "d", one_level, **tags))
    soft = np.where(hu > 1000, 60, hu)  # no number is beyond the sign: the mark makes no difference
    path = write_slice(tmp_path / "c", (soft + 1024).astype(np.int16), **tags)
    np.testing.assert_array_equal(read_image(path, spatial_dims=2).array[0], soft)


@pytest.mark.parametrize(
    ("where", "stored", "expected"),
    [
        ((5, 5), 3071, 3071),
        ((5, slice(5, 7)), [30710, 20000], [30710, 20000]),  # metal in an extended scale
        ((0, slice(None)), -2000, -1024),  # padding that the file does not declare
        ((slice(0, 3), slice(None)), -3024, -1024),
        ((5, slice(5, 7)), [-1400, -1501], [-1024, -1024]),  # undershoot beside metal
    ],
)
def test_legitimate_extremes_are_read(tmp_path: Path, where: Any, stored: Any, expected: Any) -> None:
    hu = body()
    hu[where] = stored
    path = write_slice(tmp_path / "a", hu.astype(np.int16))
    hu[where] = expected
    np.testing.assert_array_equal(read_image(path, spatial_dims=2).array[0], hu)


def test_padding_blurred_by_lossy_compression_is_passed_over() -> None:
    """A real CT: 19 % of its pixels are padding of -2000 that JPEG 2000 made about -2016."""
    path = get_testdata_file("693_J2KI.dcm", download=False)
    if path is None:
        pytest.skip("pydicom's larger test files are not here")
    dataset = pydicom.dcmread(path)
    expected = np.maximum(dataset.pixel_array.astype(float) + float(dataset.RescaleIntercept), -1024)
    np.testing.assert_array_equal(read_image(Path(str(path)), spatial_dims=2).array[0], expected)


def test_padding_of_signed_numbers_marked_unsigned_is_padding(tmp_path: Path) -> None:
    stored = body() + 1024
    stored[0, :], stored[:, 0] = -2000, -2000
    path = write_slice(tmp_path / "a", (stored % 2**16).astype(np.uint16), PixelPaddingValue=None)
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", "SS", -2000)
    dataset.save_as(path)
    expected = body()
    expected[0, :], expected[:, 0] = -1024, -1024
    np.testing.assert_array_equal(read_image(path, spatial_dims=2).array[0], expected)


def test_ct_without_room_for_air_is_refused(tmp_path: Path) -> None:
    window = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert "a window was burnt in" in refusal(write_slice(tmp_path / "a", window, RescaleIntercept=0))
    lost = (body() + 1024).astype(np.uint16)
    assert "rescale was lost" in refusal(write_slice(tmp_path / "b", lost, RescaleIntercept=0))
    low = write_slice(tmp_path / "d", window)  # 8 bits under the usual intercept of -1024
    assert "-1024 to -769 HU only, so for no tissue" in refusal(low)
    colour = {
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 0,
        "PixelData": bytes(768),
    }
    assert "in colour" in refusal(write_slice(tmp_path / "e", window, **colour))
    dense = np.full((4, 4), 5000, np.int16)
    assert "which only metal reaches" in refusal(write_slice(tmp_path / "c", dense + np.eye(4, dtype=np.int16)))


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"RescaleIntercept": 1024}, "is its sign wrong"),
        ({"RescaleSlope": 0.001}, "spreads 16 bits over 65.5 HU"),
        ({"RescaleSlope": 1000}, "lost rescale"),
        ({"PhotometricInterpretation": "FOO"}, "PhotometricInterpretation has no value"),
        ({"PixelSpacing": [0.7, 70]}, "one side 100 times another"),
        ({"Rows": 8}, "longer than the header says (512 for 256 bytes)"),
    ],
)
def test_header_that_gives_what_no_ct_has_is_refused(tmp_path: Path, tags: dict[str, Any], words: str) -> None:
    assert words in refusal(write_slice(tmp_path / "a", body().astype(np.int16), **tags))


def test_bits_stored_that_cut_through_the_numbers_are_refused_and_overlays_are_masked(tmp_path: Path) -> None:
    ramp = (np.arange(64)[:, None] * 20 + np.arange(64) * 40).astype(np.uint16)  # 0 to 3780: 12 bits
    assert "BitsStored (10) cuts through" in refusal(
        write_slice(tmp_path / "a", ramp, BitsStored=10, HighBit=9, **XRAY)
    )
    overlay = ramp.copy()
    overlay[20:30, 20:30] |= 0x8000
    path = write_slice(tmp_path / "b", overlay, BitsStored=12, HighBit=11, **XRAY)
    np.testing.assert_array_equal(read_image(path, spatial_dims=2).array[0], ramp)


# ---- look-up tables and MONOCHROME1


def lut(data: Any, entries: int, first: int, depth: int, kind: str = "US") -> pydicom.Sequence:
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", [entries, first, depth])
    item.add_new("LUTData", "OW" if isinstance(data, bytes) else "US", data)
    item.ModalityLUTType = kind
    return pydicom.Sequence([item])


@pytest.mark.parametrize("data", [[0, 10, 40, 1023], np.array([0, 10, 40, 1023], "<u2").tobytes()])
@pytest.mark.parametrize(("photometric", "turned"), [("MONOCHROME2", False), ("MONOCHROME1", True)])
def test_modality_lut_comes_before_the_inversion(tmp_path: Path, data: Any, photometric: str, turned: bool) -> None:
    """Entries 0, 10, 40, 1023 for numbers from 2; its 10 bits reach 1023, in which range MONOCHROME1 is mirrored."""
    pixels = np.array([[0, 2, 3, 4, 5, 9]], np.uint8)
    tags = {"ModalityLUTSequence": lut(data, 4, 2, 10), "PhotometricInterpretation": photometric}
    expected = np.array([0, 0, 10, 40, 1023, 1023])
    path = write_slice(tmp_path / "a", pixels, **(XRAY | tags))
    np.testing.assert_array_equal(first_row(path), 1023 - expected if turned else expected)


def test_lut_of_signed_numbers_and_short_luts(tmp_path: Path) -> None:
    pixels = np.array([[-3, -2, -1, 0]], np.int16)
    sequence = lut([5, 6, 7], 3, 2**16 - 2, 16)  # first number -2, written unsigned
    path = write_slice(tmp_path / "a", pixels, **(XRAY | {"ModalityLUTSequence": sequence}))
    np.testing.assert_array_equal(first_row(path), [5, 5, 6, 7])
    path = write_slice(tmp_path / "b", pixels, **(XRAY | {"ModalityLUTSequence": lut([5, 6], 3, 0, 16)}))
    assert "2 of 3 entries" in refusal(path)


def test_rescaled_monochrome1_is_mirrored_in_the_rescaled_range(tmp_path: Path) -> None:
    pixels = np.array([[0, 10, 255]], np.uint8)
    tags = XRAY | {"RescaleSlope": 2, "RescaleIntercept": -100, "PhotometricInterpretation": "monochrome1 "}
    # physical -100, -80, 410; the 8 bits reach from -100 to 410, so v becomes 310 - v
    np.testing.assert_array_equal(first_row(write_slice(tmp_path / "a", pixels, **tags)), [410, 390, -100])


def test_ct_through_a_lut_of_hounsfield_units_is_read_and_another_is_refused(tmp_path: Path) -> None:
    pixels = np.array([[0, 1, 2]], np.uint8)
    plain = {"RescaleSlope": None, "RescaleIntercept": None, "PhotometricInterpretation": "MONOCHROME1"}
    path = write_slice(tmp_path / "a", pixels, **plain, ModalityLUTSequence=lut([0, 40, 1000], 3, 0, 16, "HU"))
    np.testing.assert_array_equal(first_row(path), [0, 40, 1000])
    path = write_slice(tmp_path / "b", pixels, **plain, ModalityLUTSequence=lut([0, 40, 1000], 3, 0, 16, "OD"))
    assert "OD, not Hounsfield units" in refusal(path)


# ---- tags that are missing or written otherwise


@pytest.mark.parametrize("modality", ["ct", " CT ", "Ct"])
def test_modality_in_any_case_is_ct(tmp_path: Path, modality: str) -> None:
    image = read_image(write_slice(tmp_path / "a", body().astype(np.int16), Modality=modality), spatial_dims=2)
    assert (image.unit, image.meta["modality"]) == ("HU", "CT")


def test_ct_storage_without_modality_is_ct(tmp_path: Path) -> None:
    image = read_image(write_slice(tmp_path / "a", body().astype(np.int16), Modality=None), spatial_dims=2)
    assert (image.unit, image.meta["modality"]) == ("HU", "CT")


def test_photometric_interpretation_may_lack_in_ct_and_must_not_in_xray(tmp_path: Path) -> None:
    pixels = np.array([[0, 200]], np.uint8)
    ct = write_slice(tmp_path / "a", body().astype(np.int16), PhotometricInterpretation=None, SamplesPerPixel=1)
    np.testing.assert_array_equal(read_image(ct, spatial_dims=2).array[0], body())
    tags = XRAY | {"PhotometricInterpretation": None}
    assert "lacks PhotometricInterpretation" in refusal(write_slice(tmp_path / "b", pixels, **tags))
    path = write_slice(tmp_path / "c", pixels, **tags, PresentationLUTShape="INVERSE")
    np.testing.assert_array_equal(first_row(path), [255, 55])


@pytest.mark.parametrize("tag", ["BitsStored", "BitsAllocated", "PixelRepresentation", "Rows"])
def test_missing_tag_is_named(tmp_path: Path, tag: str) -> None:
    assert tag in refusal(write_slice(tmp_path / "a", body().astype(np.int16), **{tag: None}))


def test_samples_per_pixel_may_lack_in_grey_images(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", body().astype(np.int16), SamplesPerPixel=None)
    np.testing.assert_array_equal(read_image(path, spatial_dims=2).array[0], body())
