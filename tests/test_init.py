"""`radaug init`: folders as people have them become configurations that `radaug validate` takes unedited."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml
from dicom_making import write_slice, write_volume
from PIL import Image

from flows.cli import launch
from pipeline.adversarial import gan_cost
from pipeline.core.cost import CostEstimate
from pipeline.data.starting.patients import patient_pattern
from pipeline.data.starting.words import disease_side
from pipeline.supervised import classifier_cost

Build = Callable[[Path], None]


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADAUG_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("RADAUG_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for costs in (gan_cost, classifier_cost):  # what they say is tested elsewhere, and takes seconds
        monkeypatch.setattr(costs, "estimate", lambda experiment: CostEstimate(1e12, 1.0, 500.0))


def png(path: Path, seed: int, size: int = 24) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)).save(path)


def nifti(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).normal(-200, 300, (16, 16, 16)).clip(-1000, 1000).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.diag([2.0, 2.0, 2.0, 1.0])), path)


def each(make: Callable[[str, int, int, int], None], classes: tuple[str, str], patients: int, images: int = 1) -> None:
    """Call `make` with class, patient and image, and a number that is the image's alone."""
    numbers = iter(range(100_000))
    for place, name in enumerate(classes):
        for patient in range(patients):
            for image in range(images):
                make(name, place * patients + patient, image, next(numbers))


def class_folders(root: Path) -> None:
    each(lambda c, p, i, n: png(root / c / f"p{p:03d}_{i}.png", n), ("normal", "pneumonia"), 8, 2)
    (root / ".DS_Store").write_bytes(b"x")
    (root / "normal" / ".hidden.png").write_bytes(b"x")


def _place(root: Path, seed: int, label: str, patient: int, image: int, number: int) -> None:
    png(root / label / f"{seed + number}.png", seed + number)


def splits_by_classes(root: Path) -> None:
    for side, count in (("train", 8), ("val", 3), ("test", 4)):
        each(partial(_place, root / side, 1000 * count), ("benign", "malignant"), count)


def sites_by_classes(root: Path) -> None:
    for site in ("hospital_a", "hospital_b"):
        each(partial(_place, root / site, 1000 * ord(site[-1])), ("covid", "normal"), 5)


def masks_beside(root: Path) -> None:
    def one(label: str, patient: int, image: int, number: int) -> None:
        png(root / label / f"{label} ({number}).png", number)
        png(root / label / f"{label} ({number})_mask.png", 1000 + number)

    each(one, ("benign", "malignant"), 8)
    (root / "benign" / "notes.txt").write_text("by hand")


def odd_columns(root: Path) -> None:
    rows = ["Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"]
    findings = ["No Finding", "Effusion", "Effusion|Mass", "No Finding"]
    for number in range(40):
        name = f"{number // 2:08d}_{number % 2:03d}.png"
        png(root / "images" / name, number)
        rows.append(f"{name},{findings[number // 2 % 4]},{number % 2},{number // 2},{30 + number},F,PA")
    (root / "Data_Entry.csv").write_text("\n".join(rows) + "\n")


def plain_table(root: Path) -> None:
    rows = ["file;class;patient_id;suggested_split"]
    for number in range(60):
        png(root / "img" / f"{number}.png", number)
        side = ("train", "train", "train", "val", "test")[number // 2 % 5]
        rows.append(f"img/{number}.png;{('healthy', 'sick')[number // 2 // 5 % 2]};s{number // 2};{side}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")


def leaking_table(root: Path) -> None:
    plain_table(root)
    text = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join([*text[:-1], text[-1].replace(";test", ";train")]) + "\n")


def dicom_and_table(root: Path) -> None:
    rows = ["PatientID,diagnosis"]
    for patient in range(16):
        for image in range(2):
            values = np.random.default_rng(10 * patient + image).integers(-900, 900, (24, 24)).astype("<i2")
            write_slice(
                root / "study" / f"P{patient}" / f"{image}.dcm", values, PatientID=f"P{patient}",
                SeriesInstanceUID=f"1.2.{patient}.{image + 1}", StudyInstanceUID=f"1.2.{patient}",
            )  # fmt: skip
        rows.append(f"P{patient},{('control', 'nodule')[patient % 2]}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")


def dicom_series(root: Path) -> None:
    def one(label: str, patient: int, image: int, number: int) -> None:
        volume = np.random.default_rng(number).integers(-900, 900, (10, 16, 16)).astype("<i2")
        tags = {"PatientID": f"P{patient}", "SeriesInstanceUID": f"1.2.3.{number + 1}"}
        write_volume(root / label / f"P{patient}" / "ct" / "axial", volume, **tags)

    each(one, ("normal", "nodule"), 5)


def nifti_and_table(root: Path) -> None:
    rows = ["participant_id\tgroup\tage"]
    for patient in range(12):
        nifti(root / f"sub-{patient:02d}" / f"sub-{patient:02d}_ct.nii.gz", patient)
        rows.append(f"sub-{patient:02d}\t{('control', 'tumour')[patient % 2]}\t{40 + patient}")
    (root / "participants.tsv").write_text("\n".join(rows) + "\n")


def patients_by_classes(root: Path) -> None:
    for patient in range(24):
        for name in ("0", "1"):
            png(root / f"{8000 + patient}" / name / "a.png", 2 * patient + int(name))


def numbered_studies(root: Path) -> None:
    for patient in range(16):
        for study in range(1 + patient % 2):
            name = f"study{study + 1}_{('negative', 'positive')[patient // 2 % 2]}"
            png(root / f"patient{patient:05d}" / name / "image1.png", 10 * patient + study)


def classes_in_names(root: Path) -> None:
    for number in range(24):
        png(root / "images" / f"{('COVID', 'Normal')[number % 2]}-{number}.png", number)


def paths_of_another_computer(root: Path) -> None:
    rows = ["Path,Sex,diagnosis"]
    for patient in range(20):
        tail = f"train/patient{patient:05d}/study1/view1_frontal.png"
        png(root / "cxr" / tail, patient)
        rows.append(f"/mnt/data/CheX-v1/{tail},F,{('No Finding', 'Edema')[patient % 2]}")
    (root / "train.csv").write_text("\n".join(rows) + "\n")


def german_table(root: Path) -> None:
    """Semicolons, decimal commas and Latin-1, as a clinic's spreadsheet leaves them."""
    rows = ["Datei;Diagnose;Patienten-Nr;Alter;Gerät"]
    for number in range(40):
        png(root / "Röntgen bilder" / f"b{number:03d}.png", number)
        found = ("unauffällig", "Lungenentzündung")[number % 2]
        rows.append(f"b{number:03d}.png;{found};N{number // 2 * 2 + number % 2};{50 + number % 9},5;A")
    (root / "Tabelle.csv").write_bytes("\r\n".join([*rows, ""]).encode("latin-1"))


def archive(root: Path) -> None:
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for split, count in (("train", 20), ("val", 6), ("test", 10)):
        arrays[f"{split}_images"] = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    root.mkdir(parents=True, exist_ok=True)
    np.savez(root / "nodulemnist3d_flat.npz", **arrays)  # type: ignore[arg-type]


SHAPES: list[tuple[Build, dict[str, Any], str]] = [
    (class_folders, {"kind": "folders", "classes": ["normal", "pneumonia"], "split": "kfold"}, "16 patients for 32"),
    (splits_by_classes, {"kind": "csv", "classes": ["benign", "malignant"], "split": "column"}, "EACH FILE COUNTS"),
    (sites_by_classes, {"kind": "csv", "classes": ["normal", "covid"], "split": "holdout"}, "EACH FILE COUNTS"),
    (masks_beside, {"kind": "csv", "classes": ["benign", "malignant"], "split": "kfold"}, "16 images have one"),
    (odd_columns, {"kind": "csv", "classes": ["No Finding", "finding"], "split": "holdout"}, "two classes are made"),
    (plain_table, {"kind": "csv", "classes": ["healthy", "sick"], "split": "column"}, ""),
    (leaking_table, {"kind": "csv", "classes": ["healthy", "sick"], "split": "holdout"}, "IT LEAKS"),
    (dicom_and_table, {"kind": "dicom", "classes": ["control", "nodule"], "split": "kfold"}, ""),
    (dicom_series, {"kind": "csv", "classes": ["normal", "nodule"], "split": "kfold", "dims": 3}, ""),
    (nifti_and_table, {"kind": "csv", "classes": ["control", "tumour"], "split": "kfold", "dims": 3}, ""),
    (patients_by_classes, {"kind": "csv", "classes": ["0", "1"], "split": "holdout"}, "24 patients for 48"),
    (numbered_studies, {"kind": "csv", "classes": ["negative", "positive"], "split": "kfold"}, "16 patients for 24"),
    (classes_in_names, {"kind": "csv", "classes": ["Normal", "COVID"], "split": "holdout"}, "from the file's name"),
    (paths_of_another_computer, {"kind": "csv", "classes": ["No Finding", "Edema"], "split": "holdout"}, "20 patients"),
    (german_table, {"kind": "csv", "classes": ["unauffällig", "Lungenentzündung"], "split": "holdout"}, ""),
    (archive, {"kind": "npz", "classes": ["benign", "malignant"], "split": "column"}, "EACH IMAGE COUNTS"),
]


@pytest.mark.parametrize(("build", "expected", "doubt"), SHAPES, ids=[build.__name__ for build, _, _ in SHAPES])
def test_what_is_written_is_valid_unedited(
    tmp_path: Path, build: Build, expected: dict[str, Any], doubt: str, capsys: pytest.CaptureFixture[str]
) -> None:
    build(tmp_path / "given")
    assert launch(["init", "given"]) == 0
    said = capsys.readouterr().out
    data = yaml.safe_load((tmp_path / "study.yaml").read_text())["data"]
    assert (data["source"]["kind"], data["classes"], data["split"]["kind"], data["spatial_dims"]) == (
        expected["kind"], expected["classes"], expected["split"], expected.get("dims", 2),
    )  # fmt: skip
    assert data["positive"] == expected["classes"][1:]
    assert doubt in said and ("CHECK" in said or not doubt)
    assert launch(["validate", "study.yaml"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("pack", "classes", "split"),
    [
        ("nih-cxr-normal-vs-pneumonia-256", ["no_finding", "pneumonia"], "column"),
        ("pneumoniamnist-28", ["normal", "pneumonia"], "column"),
        ("adrenalmnist3d", ["normal", "hyperplasia"], "column"),
        ("tcga-luad-ct-contrast-dicom", ["no_contrast", "contrast"], "holdout"),
    ],
)
def test_packs_of_real_data(data_packs: Path, tmp_path: Path, pack: str, classes: list[str], split: str) -> None:
    assert launch(["init", str(data_packs / pack), "--out", "study.yaml"]) == 0
    data = yaml.safe_load((tmp_path / "study.yaml").read_text())["data"]
    assert (data["classes"], data["positive"], data["split"]["kind"]) == (classes, classes[1:], split)
    assert not (tmp_path / "study.csv").exists()


def one_class(root: Path) -> None:
    for number in range(6):
        png(root / "normal" / f"{number}.png", number)


def no_classes(root: Path) -> None:
    one_class(root)
    (root / "slices.csv").write_text("file,slice\n" + "".join(f"images/{n}.png,{n}\n" for n in range(6)))
    shutil.move(root / "normal", root / "images")


def one_patient(root: Path) -> None:
    def one(label: str, patient: int, image: int, number: int) -> None:
        values = np.random.default_rng(number).integers(-900, 900, (16, 16)).astype("<i2")
        write_slice(root / label / f"{number}.dcm", values, PatientID="ANON", SeriesInstanceUID=f"1.{number}")

    each(one, ("a", "b"), 6)


def spreadsheet_beside(root: Path) -> None:
    one_class(root)
    shutil.move(root / "normal", root / "images")
    (root / "Befunde.xlsx").write_bytes(b"PK\x03\x04")


def one_patient_by_names(root: Path) -> None:
    each(lambda label, patient, image, number: png(root / label / f"p001_{number:02d}.png", number), ("a", "b"), 6)


def slices_without_classes(root: Path) -> None:
    dicom_series(root)
    for folder in ("normal", "nodule"):
        for patient in (root / folder).iterdir():
            shutil.move(patient, root / f"{patient.name}-{folder[:2]}")
        (root / folder).rmdir()


def text_only(root: Path) -> None:
    root.mkdir()
    (root / "scan.png").write_text("version https://git-lfs.github.com/spec/v1\n" + "x" * 400)


def one_hot(root: Path) -> None:
    for number in range(12):
        png(root / "images" / f"{number}.png", number)
    rows = "".join(f"images/{n}.png,{n % 2},{1 - n % 2}\n" for n in range(12))
    (root / "slices.csv").write_text("file,melanoma,naevus\n" + rows)


def several_archives(root: Path) -> None:
    archive(root)
    shutil.copy(root / "nodulemnist3d_flat.npz", root / "b.npz")


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (one_class, "nothing says which class"),
        (no_classes, "slices.csv has the columns file, slice"),
        (one_patient, "all 12 images are of one patient"),
        (spreadsheet_beside, "If Befunde.xlsx says it, save its sheet as 'CSV UTF-8' beside the images."),
        (one_patient_by_names, "all 12 images are of one patient"),
        (slices_without_classes, "nothing says which class each is of. Put the images of each class into a folder"),
        (text_only, "this is a Git LFS pointer"),
        (one_hot, "It could be melanoma or naevus"),
        (several_archives, "Give one of them: b.npz, nodulemnist3d_flat.npz"),
        (lambda root: root.mkdir(), "it is empty"),
        (lambda root: None, "there is no such folder or file"),
    ],
)
def test_what_cannot_be_a_study_is_refused_and_nothing_written(
    tmp_path: Path, build: Build, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    build(tmp_path / "given")
    assert launch(["init", "given"]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "study.yaml").exists() and not (tmp_path / "study.csv").exists()


@pytest.mark.parametrize("taken", ["study.yaml", "study.csv"])
def test_nothing_is_overwritten(tmp_path: Path, taken: str, capsys: pytest.CaptureFixture[str]) -> None:
    class_folders(tmp_path / "given")
    (tmp_path / taken).write_text("mine")
    assert launch(["init", "given"]) == 2
    assert f"{taken}: is there already" in capsys.readouterr().err
    assert (tmp_path / taken).read_text() == "mine"
    assert launch(["init", "given", "--out", "other.yaml"]) == 0


def test_a_folder_beside_is_named_as_seen_from_the_configuration(tmp_path: Path) -> None:
    class_folders(tmp_path / "given")
    assert launch(["init", str(tmp_path / "given")]) == 0
    source = yaml.safe_load((tmp_path / "study.yaml").read_text())["data"]["source"]
    assert source["path"] == "given"
    (tmp_path / "else").mkdir()
    assert launch(["init", "given", "--out", "else/study.yaml"]) == 0
    source = yaml.safe_load((tmp_path / "else" / "study.yaml").read_text())["data"]["source"]
    assert source["path"] == str(tmp_path / "given")


@pytest.mark.parametrize(
    ("names", "patients"),
    [
        (["00000001_000.png", "00000001_001.png", "00000002_000.png", "00000003_000.png"], ["1", "1", "2", "3"]),
        (["sub-01_ses-1_ct.nii.gz", "sub-02_ses-1_ct.nii.gz", "sub-03_ses-1_ct.nii.gz"], ["1", "2", "3"]),
        (
            ["TCGA-17-Z011-1.dcm", "TCGA-17-Z011-2.dcm", "TCGA-17-Z012-1.dcm", "TCGA-38-7271-1.dcm"],
            ["1", "1", "2", "3"],
        ),
        (["person1_bacteria_1.jpeg", "person1_virus_2.jpeg", "person2_virus_3.jpeg", "person30_1.jpeg"], list("1123")),
        (["Fall 12 a.png", "Fall 12 b.png", "Fall 13.png"], list("112")),
        (["p001_01.png", "p001_02.png"], list("11")),
        (["scan_001.png", "scan_002.png", "scan_003.png"], None),
        (["normal (1).png", "normal (2).png", "normal (3).png"], None),
        (["2020_001.png", "2020_002.png", "2021_003.png"], None),
        (["0.png", "1.png", "2.png"], None),
    ],
)
def test_patients_in_file_names(names: list[str], patients: list[str] | None) -> None:
    """NIH ChestX-ray14's, BIDS', TCGA's and Kermany's names say the patient; a running number says none."""
    found = patient_pattern(names)
    if patients is None or found is None:
        assert found is None and patients is None
    else:
        groups = dict(zip(found.patients, patients, strict=True))
        assert [groups[one] for one in found.patients] == patients and len(set(groups.values())) == len(groups)


@pytest.mark.parametrize(
    ("names", "positive"),
    [
        (["malignant", "benign"], ["malignant"]),
        (["benign", "normal", "malignant"], ["malignant"]),
        (["COVID", "non-COVID"], ["COVID"]),
        (["No Finding", "Mass", "Nodule"], ["Mass", "Nodule"]),
        (["0", "1"], ["1"]),
        (["abnormal", "normal"], ["abnormal"]),
        (["cyst", "metastasis", "haemangioma"], ["metastasis"]),
        (["grade 0", "grade 10"], ["grade 10"]),
        (["gesund", "Lungenentzündung"], ["Lungenentzündung"]),
        (["Tumor", "kein_Tumor"], ["Tumor"]),
        (["sano", "neumonía"], ["neumonía"]),
        (["sain", "malade"], ["malade"]),
    ],
)
def test_the_disease_side(names: list[str], positive: list[str]) -> None:
    negative, found, why = disease_side(names)
    assert (found, bool(why)) == (positive, True)
    assert sorted([*negative, *found]) == sorted(names)
