"""Tables, folders, DICOM trees and npz files become manifests; what is wrong with them is said by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ingesting import config, ingested, png
from PIL import Image

from pipeline.core.errors import ConfigError, DataError
from pipeline.data import ingest
from pipeline.data.batches.dataset import read_table
from pipeline.data.cohort.manifest import image_ids
from pipeline.data.cohort.sources import read_source
from pipeline.data.writers import DicomIds, SlicePlace, write_dicom, write_dicom_series, write_nifti

ORGANS = ["liver", "spleen", "kidney", "vertebra"]


def dicom(path: Path, patient: str, number: int, *, modality: str = "CT", series: str = "1") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(number).integers(-100, 300, (12, 12))
    attributes = {"Modality": modality, "Manufacturer": "Cedar"}
    ids = DicomIds(patient, series=series, image=str(number))
    place = SlicePlace(position=(0.0, 0.0, float(number)))
    write_dicom(
        path, values, unit="HU", spacing=(1, 1, 1), description="x", synthetic=False, ids=ids, place=place,
        attributes=attributes,
    )  # fmt: skip


def table_of_four(root: Path, text: str) -> dict[str, Any]:
    for number in range(4):
        png(root / "set" / f"i{number}.png", number)
    (root / "set" / "t.csv").write_bytes(text.encode("utf-8"))
    return {"kind": "csv", "path": "set/t.csv"}


def test_csv_with_byte_order_mark_semicolons_and_spaces(root: Path) -> None:
    text = "\ufeffpath; label ;patient_id;sex\ni0.png; a ;007;F\ni1.png;b;008;M\n\ni2.png;a;009;F\ni3.png;;010;M\n"
    table = read_table(ingested(root, table_of_four(root, text)) / "manifest.csv")
    assert list(table["image_id"]) == ["i0", "i1", "i2", "i3"]
    assert list(table["label"]) == ["a", "b", "a", ""]
    assert list(table["patient_id"]) == ["007", "008", "009", "010"]
    assert list(table["sex"]) == ["F", "M", "F", "M"]
    assert set(table["values"]) == {"uint8"}
    assert set(table["size"]) == {"12x12"}


def test_a_column_reason_is_the_users(root: Path) -> None:
    source = table_of_four(root, "path,label,patient_id,reason\ni0.png,a,p,cough\ni1.png,b,q,\n")
    assert list(read_table(ingested(root, source) / "manifest.csv")["reason"]) == ["cough", ""]


def test_columns_of_other_names_and_clashing_ones_are_kept(root: Path) -> None:
    source = table_of_four(root, "file,class,label,who\ni0.png,a,0,p\ni1.png,b,1,q\n")
    columns = {"path": "file", "label": "class", "patient_id": "who"}
    table = read_table(ingested(root, source | {"columns": columns}) / "manifest.csv")
    assert list(table["label"]) == ["a", "b"]
    assert list(table["source_label"]) == ["0", "1"]
    assert list(table["patient_id"]) == ["p", "q"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,label\ni0.png,a\n", "no column patient_id. It has: path, label"),
        ("path,label,patient_id\ni0.png,a,1\ni1.png,c,2\ni2.png,c,3\n", "c (2), a (1)"),
        ("path,label,patient_id\ni0.png,a,1\ni1.png,a,2\n", "no image is labelled b"),
        ("path,label,patient_id\ni0.png,a,1\n./i0.png,b,2\n", "more than one row: i0.png (lines 2 and 3)"),
        ("path,label,patient_id\ni0.png,a\n", "line 2: 2 cells under 3 columns"),
        ("path,label,label,patient_id\ni0.png,a,b,1\n", "['label'] occur more than once"),
        ("path,label,patient_id\n", "no rows"),
        ("My table\npath,label,patient_id\ni0.png,a,1\n", "line 2: 3 cells under 1 columns. Line 1 is taken for the"),
        ("path,label,patient_id\ni0.png,a,1\n,b,2\ni2.png,b,3\n", "The first: t.csv line 3."),
        ("path,label,patient_id\n/abs/i0.png,a,1\n", "The first: /abs/i0.png."),
        ("path,label,patient_id\ni0.png,A,1\ni1.png,b,2\n", "Some differ only in letter case"),
        ("path,label,patient_id\ni0.png,a,1\ni1.png,b,2\nno.png,b,3\n", "1 of 3 images cannot be used"),
    ],
)
def test_tables_that_are_wrong_are_refused_with_the_reason(root: Path, text: str, expected: str) -> None:
    with pytest.raises(DataError) as error:
        ingested(root, table_of_four(root, text))
    assert expected in str(error.value)
    assert error.value.exit_code == 2


def test_a_label_column_full_of_ids_is_not_printed(root: Path) -> None:
    rows = "".join(f"i{number}.png,secret-{number},p\n" for number in range(30))
    for number in range(30):
        png(root / "set" / f"i{number}.png", number)
    with pytest.raises(DataError) as error:
        ingested(root, table_of_four(root, "path,label,patient_id\n" + rows))
    assert "30 different ones" in str(error.value)
    assert "secret" not in str(error.value)


def test_unusable_images_are_listed_with_their_reasons(root: Path) -> None:
    rows = "".join(f"i{number}.png,{'ab'[number % 2]},p{number}\n" for number in range(4))
    text = "path,label,patient_id\n" + rows + "absent.png,a,x\nbroken.png,a,y\nflat.png,b,z\n"
    source = table_of_four(root, text)
    (root / "set" / "broken.png").write_bytes(b"not an image")
    Image.new("L", (12, 12), 7).save(root / "set" / "flat.png")
    out = ingested(root, source, max_rejected=0.5)
    rejected = read_table(out / "rejected.csv").set_index("image_id")["reason"]
    assert sorted(rejected.index) == ["absent", "broken", "flat"]
    assert "not there" in rejected["absent"]
    assert "constant" in rejected["flat"]
    assert len(read_table(out / "manifest.csv")) == 4
    with pytest.raises(DataError, match=r"3 of 7 images cannot be used, and data.max_rejected allows 40%"):
        ingest.run(config(source, max_rejected=0.4), {}, out)


def test_image_ids_are_unique_and_safe() -> None:
    assert image_ids(["a/b c.png", "a/b-c.dcm", "1.2.840.4", "x/é.nii.gz", "a/b c.nii.gz"]) == [
        "a-b-c", "a-b-c-2", "1.2.840.4", "x", "a-b-c-3"
    ]  # fmt: skip


def test_folders_give_labels_and_patients(root: Path) -> None:
    for number, name in enumerate(["a/p1_0.png", "a/p2_0.png", "b/p1_1.png", "b/deep/p3_0.png"]):
        png(root / "set" / name, number)
    (root / "set" / ".hidden").write_text("x")
    source = {"kind": "folders", "path": "set", "patient_pattern": r"^(p\d)_"}
    table = read_table(ingested(root, source) / "manifest.csv")
    assert list(zip(table["image_id"], table["label"], table["patient_id"], strict=True)) == [
        ("a-p1_0", "a", "p1"), ("a-p2_0", "a", "p2"), ("b-deep-p3_0", "b", "p3"), ("b-p1_1", "b", "p1")
    ]  # fmt: skip
    with pytest.raises(DataError, match="one group"):
        ingest.run(config(source | {"patient_pattern": "^p"}), {}, root / "ingested")
    with pytest.raises(DataError, match="does not match the file name"):
        ingest.run(config(source | {"patient_pattern": r"^(q\d)_"}), {}, root / "ingested")


def test_dicom_tree_with_a_table_by_file(root: Path) -> None:
    for number in range(5):
        dicom(root / "set" / "d" / f"f{number}", f"P{number // 2}", number)
    (root / "set" / "t.csv").write_text("path,label\nd/f0,a\nd/f1,a\nf2,b\nd/f3,b\nd/gone,b\n")
    source = {"kind": "dicom", "path": "set/d", "labels": "set/t.csv"}
    out = ingested(root, source, max_rejected=0.5)
    table = read_table(out / "manifest.csv")
    assert list(table["path"]) == ["f0", "f1", "f2", "f3", "f4"]
    assert list(table["label"]) == ["a", "a", "b", "b", ""]
    assert list(table["patient_id"]) == ["P0", "P0", "P1", "P1", "P2"]
    assert set(table["manufacturer"]) == {"Cedar"}
    assert set(table["values"]) == {"HU"}
    assert list(read_table(out / "rejected.csv")["reason"]) == ["the path file is not there: check the path"]


def test_dicom_tree_by_patient_and_wrong_modality(root: Path) -> None:
    for number in range(4):
        dicom(root / "set" / f"f{number}.dcm", f"P{number // 2}", number, modality="MR" if number == 3 else "CT")
    (root / "t.csv").write_text("patient_id,label\nP0,a\nP1,b\n")
    source = {"kind": "dicom", "path": "set", "labels": "t.csv", "key": "patient"}
    out = ingested(root, source, max_rejected=0.3)
    assert list(read_table(out / "manifest.csv")["label"]) == ["a", "a", "b"]
    assert "wrong modality (MR)" in read_table(out / "rejected.csv")["reason"][0]


def test_dicom_series_are_volumes(root: Path) -> None:
    rng = np.random.default_rng(0)
    for number, patient in enumerate(["P0", "P1"]):
        volume = rng.integers(-100, 300, (9, 8, 7))
        ids = DicomIds(patient, series=str(number))
        write_dicom_series(root / "set" / patient, volume, unit="HU", description="x", synthetic=False, ids=ids)
    uids = [DicomIds(patient, series=str(number)).series_uid() for number, patient in enumerate(["P0", "P1"])]
    (root / "t.csv").write_text(f"series_id,label,site\n{uids[0]},a,north\n{uids[1]},b,south\n")
    source = {"kind": "dicom", "path": "set", "labels": "t.csv", "unit": "series", "key": "series"}
    with pytest.raises(ConfigError, match="spatial_dims to 3"):
        config(source)
    table = read_table(ingested(root, source, spatial_dims=3) / "manifest.csv")
    assert list(table["path"]) == ["P0", "P1"]
    assert list(table["series_id"]) == uids
    assert list(table["patient_id"]) == ["P0", "P1"]
    assert list(table["site"]) == ["north", "south"]
    assert set(table["size"]) == {"9x8x7"}


def test_a_table_that_contradicts_the_headers_names_the_file_and_no_patient(root: Path) -> None:
    for number in range(2):
        dicom(root / "set" / f"f{number}.dcm", f"SECRET{number}", number)
    (root / "set" / "t.csv").write_text("path,label,patient_id\nf0.dcm,a,SECRET0\nf1.dcm,b,OTHER\n")
    with pytest.raises(DataError) as error:
        ingested(root, {"kind": "dicom", "path": "set", "labels": "set/t.csv"})
    assert "f1.dcm" in str(error.value)
    assert "SECRET" not in str(error.value)
    assert "OTHER" not in str(error.value)


def test_pseudonyms_that_tear_a_patient_apart_are_refused(root: Path) -> None:
    for number in range(2):
        dicom(root / "set" / f"f{number}.dcm", "SECRET", number)
    (root / "set" / "t.csv").write_text("path,label,patient_id\nf0.dcm,a,one\nf1.dcm,b,two\n")
    with pytest.raises(DataError, match=r"1 patient\(s\) of the headers have more than one patient_id"):
        ingested(root, {"kind": "csv", "path": "set/t.csv"})


def test_ct_nifti_without_air_is_known_by_a_modality_column(root: Path) -> None:
    rng = np.random.default_rng(0)
    (root / "set").mkdir()
    for number, low in enumerate([-900, 0]):
        write_nifti(root / "set" / f"v{number}.nii.gz", rng.integers(low, 200, (9, 9, 9)))
    (root / "set" / "t.csv").write_text("path,label,patient_id,modality\nv0.nii.gz,a,1,{m}\nv1.nii.gz,b,2,{m}\n")
    source, text = {"kind": "csv", "path": "set/t.csv"}, (root / "set" / "t.csv").read_text()
    (root / "set" / "t.csv").write_text(text.replace("{m}", ""))
    with pytest.raises(DataError, match="1 images are in HU and 1 are not"):
        ingested(root, source, spatial_dims=3)
    (root / "set" / "t.csv").write_text(text.replace("{m}", "CT"))
    ingest.run(config(source, spatial_dims=3), {}, root / "ingested")
    assert set(read_table(root / "ingested" / "manifest.csv")["values"]) == {"HU"}


def save_npz(path: Path, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        f"{split}_{kind}": rng.integers(0, 256, (4, 9, 9), dtype=np.uint8) if kind == "images" else [[0], [1], [0], [1]]
        for split in ("train", "test")
        for kind in ("images", "labels")
    }
    arrays |= changes
    np.savez_compressed(path, **{name: value for name, value in arrays.items() if value is not None})
    return {"kind": "npz", "path": path.name}


def test_npz_rows_and_pixels(root: Path) -> None:
    source = save_npz(root / "m.npz")
    table = read_table(ingested(root, source) / "manifest.csv")
    assert list(table["path"])[:2] == ["m.npz#train/0", "m.npz#train/1"]
    assert list(table["image_id"]) == [f"{split}-{number:05d}" for split in ("train", "test") for number in range(4)]
    assert list(table["label"]) == ["a", "b"] * 4
    assert list(table["split"]) == ["train"] * 4 + ["test"] * 4
    stored = np.load(root / "m.npz")["test_images"]
    assert list(table["maximum"])[4:] == [str(image.max()) for image in stored]
    notes = ingest.run(config(source), {}, root / "ingested").notes
    assert any("could not be kept apart" in note for note in notes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train_labels": [[0], [1], [2], [1]]}, "holds [2], but data.classes names 2"),
        ({"train_labels": None}, "train_images but no train_labels"),
        ({"train_images": None, "test_images": None}, "needs train_images and train_labels"),
        ({"train_labels": [[0], [1]]}, "whole numbers of shape (4, 1)"),
        ({"train_labels": [[0, 1]] * 4}, "whole numbers of shape (4, 1)"),
        ({"train_images": np.zeros((4, 9, 9, 3), np.uint8)}, "needs 3 axes"),
        ({"train_images": np.array([{"x": 1}] * 4, dtype=object)}, "pickled objects, which are never opened"),
        ({"class_names": np.array(["b", "a"])}, "in the order ['b', 'a']"),
    ],
)
def test_npz_files_that_are_wrong_are_refused(root: Path, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError) as error:
        ingested(root, save_npz(root / "m.npz", **changes))
    assert expected in str(error.value)


def test_source_digest_sees_changes_but_not_a_move(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = table_of_four(root, "path,label,patient_id\ni0.png,a,1\ni1.png,b,2\n")
    before = ingest.source_digest(config(source))
    moved = root / "elsewhere"
    moved.mkdir()
    (root / "set").rename(moved / "set")
    monkeypatch.setenv("RADAUG_DATA", str(moved))
    assert ingest.source_digest(config(source)) == before
    png(moved / "set" / "i2.png", 9)  # not in the table
    assert ingest.source_digest(config(source)) == before
    os.utime(moved / "set" / "i1.png", ns=(1, 1))
    assert ingest.source_digest(config(source)) != before


def test_phantoms_are_written_by_ingest(root: Path) -> None:
    classes = ["cyst", "metastasis", "haemangioma"]
    source = {"kind": "phantom", "cysts": 3, "metastases": 2, "haemangiomas": 2}
    out = ingested(root, source, classes=classes, positive=["metastasis"])
    table = read_table(out / "manifest.csv")
    assert dict(table["label"].value_counts()) == {"cyst": 3, "metastasis": 2, "haemangioma": 2}
    for column in ("path", "mask", "kernel_pair"):
        assert all((out / name).exists() for name in table[column])
    assert set(table["values"]) == {"HU"}


def test_adrenal_and_organ_packs_have_the_counts_of_their_pages(data_packs: Path) -> None:
    def counts(folder: Path, file: str, classes: list[str]) -> dict[tuple[str, str], int]:
        source = config({"kind": "npz", "path": file}, classes=classes, positive=classes[-1:], spatial_dims=3).source
        table = read_source(source, folder, None, classes, 3).table
        return {key: int(number) for key, number in table.groupby(["split", "label"]).size().items()}

    assert counts(data_packs / "adrenalmnist3d", "adrenalmnist3d.npz", ["normal", "hyperplasia"]) == {
        ("train", "normal"): 929, ("train", "hyperplasia"): 259, ("val", "normal"): 76, ("val", "hyperplasia"): 22,
        ("test", "normal"): 229, ("test", "hyperplasia"): 69,
    }  # fmt: skip
    expected = {("train", name): 120 for name in ORGANS} | {("test", name): 60 for name in ORGANS}
    assert counts(data_packs / "ct-organ-patches-3d", "ct_organ_patches_28.npz", ORGANS) == expected


def test_npz_splits_of_one_patient_carry_its_id(root: Path) -> None:
    source = save_npz(root / "m.npz") | {"patients": {"test": "patient-B"}}
    table = read_table(ingested(root, source) / "manifest.csv")
    assert list(table["patient_id"]) == [""] * 4 + ["patient-B"] * 4


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n", "It is a Git LFS pointer"),
        (b"<!doctype html><html>Not found</html>", "It is a web page (HTML)"),
        (b"\x93NUMPY\x01\0", "It is a numpy array"),
        (None, "It is cut short"),
    ],
)
def test_what_is_no_npz_file_is_called_what_it_is(root: Path, raw: bytes | None, said: str) -> None:
    source = save_npz(root / "m.npz")
    (root / "m.npz").write_bytes((root / "m.npz").read_bytes()[:-40] if raw is None else raw)
    with pytest.raises(DataError) as error:
        ingested(root, source)
    assert said in str(error.value)
    assert "m.npz: is not an npz file" in str(error.value)


def test_an_npz_file_whose_ending_is_in_capitals(root: Path) -> None:
    save_npz(root / "m.npz")
    (root / "m.npz").rename(root / "M.NPZ")
    table = read_table(ingested(root, {"kind": "npz", "path": "M.NPZ"}) / "manifest.csv")
    assert list(table["label"]) == ["a", "b"] * 4


def test_a_split_column_is_found_as_path_and_label_are(root: Path) -> None:
    text = (
        "path,label,patient_id,split,mask\ni0.png,a,1,train,x\ni1.png,b,2,train,x\ni2.png,a,3,test,x\ni3.png,b,4,te,x\n"
    )
    source = table_of_four(root, text)
    out = ingested(root, source)
    table = read_table(out / "manifest.csv")
    assert list(table["split"]) == ["train", "train", "test", "te"]
    assert list(table["source_mask"]) == ["x"] * 4  # a mask is taken only where it is named: it may be a mark
    audit = read_table(out / "audit.csv").set_index("check")["detail"]
    assert "data.source.columns.mask" in audit["column mask"]
    ingest.run(config(source | {"columns": {"split": ""}}), {}, out)
    assert "source_split" in read_table(out / "manifest.csv")
    with pytest.raises(DataError, match="has no column cut"):
        ingest.run(config(source | {"columns": {"split": "cut"}}), {}, out)


def test_a_few_rows_without_a_label_are_warned_about_by_their_lines(root: Path) -> None:
    text = "path,label,patient_id\ni0.png,a,1\ni1.png,b,2\ni2.png,,3\ni3.png,b,4\n"
    audit = read_table(ingested(root, table_of_four(root, text)) / "audit.csv").set_index("check")
    row = audit.loc["rows without a label"]
    assert (row["severity"], row["count"]) == ("warning", "1")
    assert "1 of 4 rows of set/t.csv have no label, so their images are unlabelled: line 4." in row["detail"]


def test_a_table_given_as_folders_is_called_a_file(root: Path) -> None:
    table_of_four(root, "path,label,patient_id\n")
    with pytest.raises(DataError, match="is a file, not a folder"):
        ingested(root, {"kind": "folders", "path": "set/t.csv"})
