"""Nothing is dropped in silence: links are followed, and rows and files that do not meet are named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from ingesting import config, ingested, png

from pipeline.core.errors import DataError, UnreadableImage
from pipeline.data import ingest
from pipeline.data.batches.dataset import read_table
from pipeline.data.readers.folders import files_below
from pipeline.data.readers.series import index_series, read_series
from pipeline.data.writers import DicomIds, write_dicom, write_dicom_series


def dicom(path: Path, patient: str, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(number).integers(-1000, 300, (12, 12))
    ids = DicomIds(patient, series=f"{number}", image=f"{number}")
    write_dicom(path, values, unit="HU", spacing=(1, 1), description="x", synthetic=False, ids=ids)


def series(folder: Path, patient: str, number: int) -> str:
    ids = DicomIds(patient, series=str(number))
    volume = np.random.default_rng(number).integers(-1000, 300, (9, 8, 7))
    write_dicom_series(folder, volume, unit="HU", description="x", synthetic=False, ids=ids)
    return ids.series_uid()


def test_files_below_follows_links_and_leaves_loops_and_what_systems_leave_behind(tmp_path: Path) -> None:
    (tmp_path / "set/a/deep").mkdir(parents=True)
    (tmp_path / "disk/b").mkdir(parents=True)
    for name in ("set/a/1", "set/a/deep/2", "disk/b/3", "set/Thumbs.db", "set/.hidden", "set/a/desktop.ini"):
        (tmp_path / name).write_text("x")
    (tmp_path / "set/b").symlink_to(tmp_path / "disk/b")
    (tmp_path / "set/c").symlink_to("a")  # the same folder once more: its images are copies, which the audit finds
    (tmp_path / "set/a/up").symlink_to(tmp_path / "set")
    (tmp_path / "disk/b/back").symlink_to(tmp_path / "set")
    (tmp_path / "set/itself").symlink_to("itself")
    (tmp_path / "set/lost").symlink_to("nowhere")
    found = [path.relative_to(tmp_path / "set").as_posix() for path in files_below(tmp_path / "set")]
    assert found == ["a/1", "a/deep/2", "b/3", "c/1", "c/deep/2", "itself", "lost"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(UnreadableImage, match="closed: the folder cannot be read"):
        files_below(tmp_path)


def test_a_class_folder_that_is_a_link_counts_and_a_lost_link_is_listed(root: Path) -> None:
    for number in range(6):
        png(root / ("set/a" if number % 2 else "disk/b") / f"p{number}.png", number)
    (root / "set/b").symlink_to(root / "disk/b")
    (root / "set/a/annexed.png").symlink_to("../.git/annex/objects/x")
    (root / "set/a/Thumbs.db").write_bytes(b"x" * 99)
    png(root / "set/stray.png", 9)
    (root / "set/README.txt").write_text("about this set")
    out = ingested(root, {"kind": "folders", "path": "set"}, max_rejected=0.5)
    assert list(read_table(out / "manifest.csv")["label"]) == ["a"] * 3 + ["b"] * 3
    rejected = read_table(out / "rejected.csv").set_index("path")["reason"]
    assert sorted(rejected.index) == ["a/annexed.png", "stray.png"]
    assert "a link to something that is not there" in rejected["a/annexed.png"]
    assert "beside the class folders" in rejected["stray.png"]


def test_a_table_that_is_a_link_has_its_paths_beside_the_link(root: Path) -> None:
    for number in range(4):
        png(root / f"set/i{number}.png", number)
    for table, place in (("t.csv", "annex/t1"), ("l.csv", "annex/l1")):
        (root / "annex").mkdir(exist_ok=True)
        rows = [f"i{n}.png,{'ab'[n % 2]},{n}" for n in range(4)]
        (root / place).write_text("\n".join(["path,label,patient_id", *rows]))
        (root / "set" / table).symlink_to(root / place)
    out = ingested(root, {"kind": "csv", "path": "set/t.csv"})
    assert list(read_table(out / "manifest.csv")["path"]) == [f"i{number}.png" for number in range(4)]
    for number in range(4):
        dicom(root / f"set/i{number}.png", f"{number}", number)
    ingest.run(config({"kind": "dicom", "path": "set", "labels": "set/l.csv"}), {}, out)
    assert list(read_table(out / "manifest.csv")["label"]) == ["a", "b"] * 2


def test_linked_patients_of_a_dicom_tree_are_all_there(root: Path) -> None:
    for number in range(6):
        dicom(root / ("dcm" if number < 4 else "disk2") / f"pat{number}" / "im.dcm", f"P{number}", number)
    for number in (4, 5):
        (root / f"dcm/pat{number}").symlink_to(root / f"disk2/pat{number}")
    (root / "dcm/pat0/loop").symlink_to(root / "dcm")
    (root / "t.csv").write_text("patient_id,label\n" + "".join(f"P{n},{'ab'[n % 2]}\n" for n in range(6)))
    source = {"kind": "dicom", "path": "dcm", "labels": "t.csv", "key": "patient"}
    table = read_table(ingested(root, source) / "manifest.csv")
    assert list(table["path"]) == [f"pat{number}/im.dcm" for number in range(6)]
    assert list(table["label"]) == ["a", "b"] * 3


def test_linked_series_and_slices_are_read_and_a_lost_slice_is_named(tmp_path: Path) -> None:
    uid = series(tmp_path / "real", "P", 1)
    whole = read_series(tmp_path / "real").array
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/series").symlink_to(tmp_path / "real")
    (tmp_path / "slices").mkdir()
    for path in (tmp_path / "real").iterdir():
        (tmp_path / "slices" / path.name).symlink_to(path)
    for name in ("folder", "slices"):
        assert list(index_series(tmp_path / name)) == [uid]
        assert np.array_equal(read_series(tmp_path / name).array, whole)
    (tmp_path / "slices/slice-0003.dcm").unlink()
    (tmp_path / "slices/slice-0003.dcm").symlink_to("not/fetched")
    with pytest.raises(UnreadableImage, match=r"slice-0003\.dcm: the file is a link to something that is not there"):
        read_series(tmp_path / "slices")


@pytest.mark.parametrize("key", ["patient", "series"])
def test_rows_without_an_image_are_rejected_by_their_lines(root: Path, key: str) -> None:
    uids = [series(root / f"dcm/s{number}", f"SECRET{number}", number) for number in range(4)]
    ids = {"patient": [f"SECRET{number}" for number in range(4)], "series": uids}[key]
    column = {"patient": "patient_id", "series": "series_id"}[key]
    rows = [f"{name},{'ab'[number % 2]}" for number, name in enumerate([*ids[:3], "SECRET77", "SECRET78", ""])]
    (root / "t.csv").write_text("\n".join([f"{column},label", *rows, "SECRET99,a"]))
    source = {"kind": "dicom", "path": "dcm", "labels": "t.csv", "unit": "series", "key": key}
    with pytest.raises(DataError) as error:
        ingest.run(config(source, spatial_dims=3), {}, root / "x")
    assert "4 of 8 images cannot be used" in str(error.value)
    assert f"3 x no image of this {key} is in the tree" in str(error.value)
    assert f"1 x the row names no {key}" in str(error.value)
    assert "t.csv line 5, t.csv line 6, t.csv line 7" in str(error.value)
    assert "SECRET" not in str(error.value)
    out = ingested(root, source, spatial_dims=3, max_rejected=0.5)
    assert list(read_table(out / "manifest.csv")["label"]) == ["a", "b", "a", ""]
    assert list(read_table(out / "rejected.csv")["path"]) == [f"t.csv line {line}" for line in (5, 6, 7, 8)]
    audit = read_table(out / "audit.csv").set_index("check")
    assert audit["severity"]["images without a row in the label table"] == "warning"
    assert (
        "1 of 4 images have no row in t.csv, so they have no label: s3"
        in (audit["detail"]["images without a row in the label table"])
    )


@pytest.mark.parametrize("key", ["patient", "file"])
def test_ids_that_a_spreadsheet_has_shortened_are_named_and_not_passed_over(root: Path, key: str) -> None:
    for number in range(4):
        dicom(root / f"dcm/f{number}.dcm", f"{number:03d}" if number < 2 else f"P{number}", number)
    patients = ["0", "1", "P2", "P3"]
    rows = [f"f{n}.dcm,{patients[n]},{'ab'[n % 2]}" for n in range(4)]
    (root / "dcm/t.csv").write_text("\n".join(["path,patient_id,label", *rows]))
    source = {"kind": "dicom", "path": "dcm", "labels": "dcm/t.csv", "key": key}
    with pytest.raises(DataError, match="leading zeros") as error:
        ingested(root, source, max_rejected=1)
    said = {"patient": "2 row(s) have a patient_id that fits no image", "file": "2 file(s) carry another patient id"}
    assert said[key] in str(error.value)
    assert {"patient": "lines 2 and 3", "file": "f0.dcm"}[key] in str(error.value)


def test_what_is_called_dicom_and_is_none_is_listed(root: Path) -> None:
    for number in range(4):
        dicom(root / f"dcm/f{number}.dcm", f"P{number}", number)
    (root / "dcm/pointer.dcm").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n")
    (root / "dcm/page.DCM").write_bytes(b"<html>Log in</html>")
    (root / "dcm/notes.txt").write_text("n")
    (root / "dcm/lost.dcm").symlink_to("nowhere")
    (root / "t.csv").write_text("patient_id,label\nP0,a\nP1,b\nP2,a\nP3,b\n")
    source = {"kind": "dicom", "path": "dcm", "labels": "t.csv", "key": "patient"}
    rejected = read_table(ingested(root, source, max_rejected=0.5) / "rejected.csv").set_index("path")["reason"]
    assert sorted(rejected.index) == ["lost.dcm", "page.DCM", "pointer.dcm"]
    assert "Git LFS pointer" in rejected["pointer.dcm"]
    assert "HTML page" in rejected["page.DCM"]


def test_a_patient_in_an_archive_a_shortcut_or_a_pointer_is_not_passed_over(root: Path) -> None:
    for number in range(4):
        series(root / f"dcm/s{number}", f"P{number}", number)
    for name, content in {
        "s4.zip": b"PK\x03\x04" + b"x" * 400,
        "s5.lnk": b"L\0\0\0" + b"x" * 400,
        "s6/slice.dcm": b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n",
        "s7/notes.txt": b"n",
    }.items():
        (root / "dcm" / name).parent.mkdir(exist_ok=True)
        (root / "dcm" / name).write_bytes(content)
    (root / "t.csv").write_text("patient_id,label\nP0,a\nP1,b\nP2,a\nP3,b\n")
    source = {"kind": "dicom", "path": "dcm", "labels": "t.csv", "unit": "series", "key": "patient"}
    out = ingested(root, source, spatial_dims=3, max_rejected=0.5)
    assert len(read_table(out / "manifest.csv")) == 4
    rejected = read_table(out / "rejected.csv").set_index("path")["reason"]
    assert sorted(rejected.index) == ["s4.zip", "s5.lnk", "s6/slice.dcm"]
    assert "zip archive" in rejected["s4.zip"]
    assert "shortcut" in rejected["s5.lnk"]
    assert "Git LFS pointer" in rejected["s6/slice.dcm"]


def test_class_names_in_other_unicode_forms_are_the_same(root: Path) -> None:
    for number in range(4):
        png(root / ("set/ja\u0308" if number % 2 else "set/nein") / f"p{number}.png", number)
    for name in ("j\u00e4", "ja\u0308"):
        (root / "ingested").mkdir(exist_ok=True)
        data = config({"kind": "folders", "path": "set"}, classes=["nein", name], positive=[name])
        ingest.run(data, {}, root / "ingested")
        assert set(read_table(root / "ingested/manifest.csv")["label"]) == {"nein", "j\u00e4"}


def test_file_names_in_other_unicode_forms_are_found_and_other_letter_case_is_named(root: Path) -> None:
    png(root / "set/a\u0308.png", 1)  # as a Mac's disk has it
    png(root / "set/IMG.PNG", 2)
    png(root / "set/B/i.png", 3)
    (root / "set/t.csv").write_text("path,label,patient_id\n\u00e4.png,a,1\nimg.png,a,2\nb/i.png,b,3\nB\\i.png,b,4\n")
    out = ingested(root, {"kind": "csv", "path": "set/t.csv"}, max_rejected=0.5)
    assert list(read_table(out / "manifest.csv")["path"]) == ["a\u0308.png", "B/i.png"]
    assert list(read_table(out / "rejected.csv")["reason"]) == [
        "the path file is not there, but IMG.PNG is: mend upper and lower case in the table",
        "the path file is not there, but B/i.png is: mend upper and lower case in the table",
    ]


def test_file_names_of_a_label_table_in_other_letter_case_are_named(root: Path) -> None:
    for number in range(2):
        dicom(root / f"dcm/f{number}.dcm", f"P{number}", number)
    (root / "dcm/t.csv").write_text("path,label\nf0.DCM,a\nf1.DCM,b\n")
    with pytest.raises(DataError, match=r"The first row names f0\.DCM, and there is f0\.dcm\."):
        ingested(root, {"kind": "dicom", "path": "dcm", "labels": "dcm/t.csv"})


def test_repeated_rows_of_a_label_table_are_named_by_their_lines(root: Path) -> None:
    for number in range(2):
        dicom(root / f"dcm/f{number}.dcm", f"P{number}", number)
    (root / "t.csv").write_text("patient_id,label\nP0,a\nP1,b\n\nP0,b\n")
    with pytest.raises(DataError, match=r"1 rows repeat the patient_id of an earlier row, the first: lines 2 and 5"):
        ingested(root, {"kind": "dicom", "path": "dcm", "labels": "t.csv", "key": "patient"})


def test_a_folder_that_is_not_there_is_named_with_the_place_looked_in(root: Path) -> None:
    for source in (
        {"kind": "folders", "path": "absent"},
        {"kind": "dicom", "path": "absent", "labels": "t.csv"},
        {"kind": "csv", "path": "absent/t.csv"},
        {"kind": "npz", "path": "absent/m.npz"},
    ):
        with pytest.raises(DataError) as error:
            ingest.run(config(source), {}, root / "x")
        assert str(root / "absent") in str(error.value), source
