"""What of the source a pack must not hold: found wherever it is planted, and not cried over where it is not."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from packs import secrets
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline.data.batches.scaling import Scaling
from pipeline.data.synthetic_dicom import DicomOrigin, write_synthetic_dicom
from pipeline.data.writers import write_nifti
from pipeline.release.leaks import Secrets, find_leaks

UID = "1.3.6.1.4.1.14519.5.2.1.7777.9001"
PLANTED = secrets(
    patient_id=["P-0042", "0815"],
    image_id=["ward7-IMG0003"],
    path=["ward7/DOE_JANE/IMG0003.dcm"],
    study_id=[UID],
    PatientName=["DOE^JANE"],
    acquired=["2019-03-07"],
    sex=["F"],
)


def columns(root: Path, planted: Secrets = PLANTED) -> set[str]:
    return {leak.column for leak in find_leaks(root, planted)}


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("made from p-0042 alone", "patient_id"),
        (f"a study {UID}.", "study_id"),
        ("for DOE JANE", "PatientName"),
        ("see IMG0003", "path"),
        ("see \\ward7-IMG0003\\", "image_id"),
        ("on 7 March, 20190307", "acquired"),
        ("on 07.03.2019", "acquired"),
        ("on 03/07/2019", "acquired"),
    ],
)
def test_ids_uids_names_dates_and_files_are_found_in_the_card(tmp_path: Path, text: str, column: str) -> None:
    (tmp_path / "card.json").write_text(f'{{"note": "{text}"}}')
    assert column in columns(tmp_path)


@pytest.mark.parametrize("text", ["P-00421", "XP-0042", f"{UID}1", "20190308", "DOER JANE", "IMG00031", "F 0815"])
def test_what_only_looks_like_one_is_not(tmp_path: Path, text: str) -> None:
    (tmp_path / "card.json").write_text(f'{{"note": "{text}"}}')
    assert not columns(tmp_path)


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt"])
def test_text_of_a_png_is_read_though_it_is_packed(tmp_path: Path, kind: str) -> None:
    text = PngInfo()
    if kind == "iTXt":
        text.add_itxt("Comment", "patient P-0042", zip=True)
    else:
        text.add_text("Comment", "patient P-0042", zip=kind == "zTXt")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png", pnginfo=text)
    assert (b"P-0042" in (tmp_path / "a.png").read_bytes()) == (kind == "tEXt")
    assert columns(tmp_path) == {"patient_id"}


def test_what_follows_or_hides_among_the_pixels_of_a_png_is_read(tmp_path: Path) -> None:
    row = b"\0" + b"....P-0042......"
    body = zlib.compress(row)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 16, 1, 8, 0, 0, 0, 0)), (b"IDAT", body), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    (tmp_path / "a.png").write_bytes(png)
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (16, 1) and bytes(image.tobytes()) == b"....P-0042......"
    assert columns(tmp_path) == {"patient_id"}
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    assert not columns(tmp_path)
    with (tmp_path / "a.png").open("ab") as handle:
        handle.write(b"DOE^JANE")
    assert columns(tmp_path) == {"PatientName"}


@pytest.mark.parametrize(
    ("keyword", "value", "column"),
    [
        ("PatientComments", "was P-0042", "patient_id"),
        ("PatientName", "DOE^JANE", "PatientName"),
        ("FrameOfReferenceUID", UID, "study_id"),
        ("AcquisitionDate", "20190307", "acquired"),
        ("PatientID", "0815", "patient_id"),
    ],
)
def test_elements_of_dicom_are_read(tmp_path: Path, keyword: str, value: str, column: str) -> None:
    origin = DicomOrigin("synthetic-normal-00001", "normal", "7", "1.0", "ab" * 32, "sngan")
    scaling = Scaling(1.0, 0.0, "HU", (-1000.0, 1000.0), "int16")
    (path,) = write_synthetic_dicom(tmp_path / "a", np.zeros((4, 4)), scaling, (1, 1), origin)
    assert not columns(tmp_path)
    dataset = pydicom.dcmread(path)
    setattr(dataset, keyword, value)
    dataset.save_as(path)
    assert columns(tmp_path) == {column}


def test_a_packed_nifti_is_read_header_extension_and_voxels(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    write_nifti(path, np.zeros((4, 4, 4)))
    assert not columns(tmp_path)
    image = nib.load(path)
    image.header["descrip"] = b"P-0042"
    nib.save(image, path)
    assert columns(tmp_path) == {"patient_id"}
    image = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"DOE^JANE"))
    nib.save(image, path)
    assert columns(tmp_path) == {"PatientName"}
    path.write_bytes(gzip.compress(bytes(400) + "P-0042".encode("utf-16-le") + bytes(40)))
    assert columns(tmp_path) == {"patient_id"}


def test_names_of_files_and_folders_are_read(tmp_path: Path) -> None:
    (tmp_path / "DOE JANE").mkdir()
    (tmp_path / "DOE JANE" / "a.txt").write_text("")
    assert columns(tmp_path) == {"PatientName"}
    (tmp_path / "DOE JANE" / "a.txt").rename(tmp_path / "0815.txt")
    assert columns(tmp_path) == {"patient_id"}


def test_short_ids_count_only_where_they_are_a_whole_value(tmp_path: Path) -> None:
    """12 stands in any text; as the whole id of a patient, or the name of a file, it is one."""
    short = secrets(patient_id=["12", "AB3", "1"])
    (tmp_path / "card.json").write_text('{"number": 12, "note": "AB3 of 12 and 1"}')
    assert not columns(tmp_path, short)
    (tmp_path / "12.txt").write_text("")
    assert columns(tmp_path, short) == {"patient_id"}


def test_the_packs_own_words_are_left_out_and_counted() -> None:
    found = secrets(patient_id=["normal", "P-00417"], path=["slice-0001.dcm", "ward9/slice-0002.dcm"], sex=["M"])
    own = found.counts()
    assert own["left_out"] == 1 + 2 * 2  # the class's name; names of slices as a pack makes them, and their stems
    assert b"p-00417" in found.by_reach["anywhere"] and b"ward9/slice-0002.dcm" in found.by_reach["anywhere"]
    for generic in ("images", "data", "unknown", "volume.nii.gz"):  # folders and files as everybody calls them
        assert not secrets(generic).by_reach["anywhere"]
    alike = secrets(image_id=["normal-00001", "normal-0001a", "synthetic-disease-00003", "ward-00001"])
    assert set(alike.by_reach["anywhere"]) == {b"normal-0001a", b"ward-00001"}
    dicoms = secrets(SOPClassUID=["1.2.840.10008.5.1.4.1.1.2"])
    assert dicoms.counts() == {"anywhere": 0, "text": 0, "value": 0, "left_out": 1}


def test_columns_that_identify_nobody_are_not_looked_for_but_for_their_uids_and_dates() -> None:
    found = secrets(finding=["pneumonia in the left lobe", f"see {UID}", "seen 2019-03-07"], manufacturer=["Machines"])
    assert set(found.by_reach["anywhere"]) == {
        UID.encode(), b"2019-03-07", b"20190307", b"2019/03/07", b"2019.03.07", b"07/03/2019", b"07.03.2019",
        b"03/07/2019",
    }  # fmt: skip
