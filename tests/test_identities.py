"""Patient ids that are none, or one patient's in two spellings: refused by name of the file, with the right mend."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline.core.errors import DataError
from pipeline.data.cohort.identities import (
    largest_patient,
    placeholders,
    refuse_one_patient,
    spelling,
    void_headers,
    with_patients,
)

WORDS = [
    "unknown",
    "ANONYMOUS",
    "nan",
    "N/A",
    "-",
    "0",
    "none",
    "xxx",
    "1.23E+05",
    "#N/A",
    "?",
    "Anon.",
    "NULL",
    "9999",
]


def manifest(patients: list[str], headers: list[str] | None = None) -> pd.DataFrame:
    paths = [f"img/{number:03d}.png" for number in range(len(patients))]
    return pd.DataFrame({"path": paths, "patient_id": patients, "header_patient": headers or [""] * len(patients)})


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("place", ["table", "headers"])
def test_a_placeholder_that_many_images_share_is_named_as_one(word: str, place: str) -> None:
    ids = [word if number < 12 else f"case-{number}" for number in range(30)]
    table = manifest(ids) if place == "table" else manifest([""] * 30, ids)
    with pytest.raises(DataError) as error:
        with_patients(table, "t.csv", from_headers=False)
    said = str(error.value)
    assert "12 of 30 images share patient ids that are placeholders" in said
    assert "img/000.png" in said
    assert "case-" not in said
    assert error.value.exit_code == 2


@pytest.mark.parametrize("word", WORDS)
def test_an_id_of_one_image_is_left_alone(word: str) -> None:
    ids = [word, *(f"case-{number}" for number in range(20))]
    assert list(with_patients(manifest(ids), "t.csv", from_headers=False)["patient_id"]) == ids


@pytest.mark.parametrize("count", [2, 5, 9])
def test_patients_that_are_counted_from_0_are_no_placeholders(count: int) -> None:
    ids = pd.Series([str(patient) for patient in range(100) for _ in range(count)])
    assert placeholders(ids) == set()
    assert placeholders(pd.concat([ids, pd.Series(["999"] * (4 * count))])) == {"999"}


def test_a_placeholder_in_the_headers_gives_way_to_the_table() -> None:
    ids = [f"p{number}" for number in range(12)]
    for from_headers in (True, False):
        filled = with_patients(manifest(ids, ["ANONYMOUS"] * 12), "dcm", from_headers=from_headers)
        assert list(filled["patient_id"]) == ids
        assert "header_patient" not in filled


def test_one_id_in_all_headers_gives_way_to_a_table_that_tells_many_patients_apart() -> None:
    ids = [f"p{number}" for number in range(12)]
    table = manifest(ids, ["S3CRET"] * 12)
    assert list(with_patients(table, "dcm", from_headers=True)["patient_id"]) == ids
    (row,) = void_headers(table)
    assert row[:3] == ("placeholders in headers", "warning", 12)
    assert "img/000.png" in row[3] and "S3CRET" not in row[3]
    assert void_headers(manifest(ids, ids)) == []
    with pytest.raises(DataError, match=r"All headers carry one id\. If an anonymiser wrote it, empty it"):
        with_patients(manifest(ids[:4], ["S3CRET"] * 4), "dcm", from_headers=True)
    with pytest.raises(DataError, match="more than one patient_id"):
        with_patients(manifest([*ids, "q"], ["S3CRET"] * 12 + ["other"]), "t.csv", from_headers=False)


def test_one_id_for_all_images_is_refused() -> None:
    with pytest.raises(DataError, match="all 12 images have one and the same patient id"):
        refuse_one_patient(manifest(["RESEARCH"] * 12), "dcm")
    refuse_one_patient(manifest([""] * 12), "dcm")
    refuse_one_patient(manifest(["a"] * 11 + ["b"]), "dcm")
    refuse_one_patient(manifest([]), "dcm")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("007", "7"),
        ("P-007", "P-7"),
        ("12", "12.0"),
        ("case 3", "Case3"),
        ("\u00e9-1", "e\u0301-1"),  # composed and decomposed
        ("\u0410-12", "A-12"),  # Cyrillic and Latin A
        ("\uff11\uff12", "12"),  # full-width digits
        ("p\u20137", "p-7"),  # a long dash
    ],
)
def test_one_patient_in_two_spellings_is_refused(first: str, second: str) -> None:
    assert spelling(first) == spelling(second)
    with pytest.raises(DataError) as error:
        with_patients(manifest(["x", first, "y", second]), "t.csv", from_headers=False)
    assert "1 patient(s) have ids in more than one spelling" in str(error.value)
    assert "img/001.png and img/003.png" in str(error.value)
    with pytest.raises(DataError, match="more than one spelling"):
        with_patients(manifest(["x", first, "y", ""], ["", "", "", second]), "t.csv", from_headers=False)


@pytest.mark.parametrize(
    "ids",
    [
        ["10", "100", "1"],
        ["1.2.840.10", "1.2.840.100", "1.2.840.1"],
        ["p1", "p10", "q1"],
        ["0", "00x", "x"],
        ["1-01", "1-10", "10-1"],
        ["TCGA-17-Z001", "TCGA-17-Z010", "TCGA-17-Z011"],
    ],
)
def test_ids_that_differ_stay_apart(ids: list[str]) -> None:
    assert len({spelling(name) for name in ids}) == len(ids)
    assert list(with_patients(manifest(ids), "t.csv", from_headers=False)["patient_id"]) == ids


def test_leading_zeros_lost_between_table_and_headers_are_named() -> None:
    table = manifest(["7", "8"], ["007", "008"])
    with pytest.raises(DataError) as error:
        with_patients(table, "dcm", from_headers=True)
    assert "2 file(s) carry another patient id than the label table, the first: img/000.png" in str(error.value)
    assert "leading zeros" in str(error.value)
    assert "007" not in str(error.value).replace("makes 7 of 007", "")
    with pytest.raises(DataError) as other:
        with_patients(manifest(["7", "z"], ["007", "008"]), "dcm", from_headers=True)
    assert "leading zeros" not in str(other.value)


def test_one_patient_with_far_more_images_than_the_others_is_asked_about() -> None:
    ids = ["mr-x"] * 20 + [f"p{number}" for number in range(20)]
    (row,) = largest_patient(manifest(ids))
    assert row[:3] == ("one patient with many images", "warning", 20)
    assert "img/000.png" in row[3] and "mr-x" not in row[3]
    assert largest_patient(manifest([f"p{number % 4}" for number in range(80)])) == []


def test_ids_are_never_in_a_message() -> None:
    for patients, headers in ([["S3CRET", "S3CRET "], ["", ""]], [["one", "two"], ["S3CRET", "S3CRET"]]):
        with pytest.raises(DataError) as error:
            with_patients(manifest(patients, headers), "t.csv", from_headers=False)
        assert "S3CRET" not in str(error.value)


def test_a_number_is_crowded_beside_the_median_of_the_other_ids() -> None:
    """Against the definition: each number's count beside the counts of all ids but itself."""
    random = np.random.default_rng(0)
    for _ in range(60):
        sizes = random.integers(1, 9, random.integers(1, 7))
        names = ["0", "999", "12345", "p4", "p5", "p6"][: len(sizes)]
        ids = pd.Series(np.repeat(names, sizes), dtype=str)
        expected = set()
        for place, (name, size) in enumerate(zip(names, sizes, strict=True)):
            others = np.delete(sizes, place)
            usual = float(np.median(others)) if len(others) else 0.0
            if name[0] != "p" and size >= 3 and size > 3 * usual:
                expected.add(name)
        assert placeholders(ids) == expected
