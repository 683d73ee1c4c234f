"""Tables that people save: every usual encoding and separator is read, and what is no table is called what it is."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from pipeline.core.errors import DataError
from pipeline.core.text import decode, foreign_kind
from pipeline.data.cohort.tables import read_user_table, shown_lines
from pipeline.verdict.decide import read_predictions

PLAIN = "path,label,patient_id\nä.png,a,007\nb.png,b,008\n"
ROWS = [["ä.png", "a", "007"], ["b.png", "b", "008"]]


def read(folder: Path, raw: bytes | str) -> tuple[list[str], list[list[str]], list[int]]:
    path = folder / "t.csv"
    path.write_bytes(raw.encode() if isinstance(raw, str) else raw)
    table = read_user_table(path)
    return list(table.columns), table.to_numpy().tolist(), list(table.index)


@pytest.mark.parametrize(
    "raw",
    [
        PLAIN.encode("utf-8"),
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-16-le"),
        PLAIN.encode("utf-16-be"),
        b"\xfe\xff" + PLAIN.encode("utf-16-be"),
        PLAIN.encode("cp1252"),
        PLAIN.replace("ä", "a\u0308").encode("utf-8"),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
        PLAIN.replace(",", ";").encode(),
        PLAIN.replace(",", "\t").encode("utf-16"),
        PLAIN.replace(",", "|").encode(),
        PLAIN.replace(",", " , ").encode(),
        PLAIN.replace(",a,", ',"a\u00a0",\u200b').encode(),
        PLAIN.replace("\n", ",,\n").encode(),
        PLAIN.rstrip("\n").encode(),
        ("\n" + PLAIN + ",,\n\n").encode(),
    ],
)
def test_one_table_in_many_forms(tmp_path: Path, raw: bytes) -> None:
    columns, rows, _ = read(tmp_path, raw)
    assert columns == ["path", "label", "patient_id"]
    assert rows == ROWS


@pytest.mark.parametrize("first", ["sep=;\n", "sep=;\r\n", '"sep=;"\n', "SEP=;\n"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_excels_first_line_names_the_separator(tmp_path: Path, first: str, encoding: str) -> None:
    columns, rows, lines = read(tmp_path, (first + PLAIN.replace(",", ";")).encode(encoding))
    assert (columns, rows) == (["path", "label", "patient_id"], ROWS)
    assert lines == [3, 4]


def test_a_separator_within_quotes_is_text(tmp_path: Path) -> None:
    columns, rows, _ = read(tmp_path, 'path;"label, of two, readers, by vote";patient_id\na.png;"x;y";1\n')
    assert columns == ["path", "label, of two, readers, by vote", "patient_id"]
    assert rows == [["a.png", "x;y", "1"]]


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    _, rows, lines = read(tmp_path, 'path,label\n\na.png,"two\nlines"\n,\nb.png,b\n')
    assert [row[0] for row in rows] == ["a.png", "b.png"]
    assert lines == [3, 6]


def test_a_column_without_a_name_is_kept_and_an_empty_one_at_the_end_is_not(tmp_path: Path) -> None:
    columns, rows, _ = read(tmp_path, ",path,label,,\n0,a.png,a,,\n1,b.png,b,,\n")
    assert columns == ["unnamed_1", "path", "label"]
    assert rows == [["0", "a.png", "a"], ["1", "b.png", "b"]]


def workbook(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("[Content_Types].xml" if name == "xlsx" else name, "x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (workbook("xlsx"), "an Excel workbook (.xlsx): save the sheet as 'CSV UTF-8'"),
        (workbook("scan.png"), "a zip archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 99, "an old Excel"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n", "a Git LFS pointer"),
        (b"/annex/objects/SHA256E-s12--ab.csv\n", "a git-annex pointer"),
        (b"\n<!DOCTYPE html>\n<html><body>Log in</body></html>", "a web page (HTML)"),
        (b"<?xml version='1.0'?>\n<html xmlns='x'/>", "a web page (HTML)"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"\x1f\x8b\x08\0", "a gzip archive"),
        (b"PAR1\x15\x04", "a Parquet file"),
        (b"path,label\n\x81\x8d,a\n", "neither in UTF-8 nor UTF-16"),
        (b"path,label\na\0b,c\n", "holds zero bytes"),
        (b'path,label\n"a,b\nc,d\n', "line 2: is not a CSV table"),
        (b"path,label\na,b\nc\n", "line 3: 1 cells under 2 columns"),
        (b"path,label\na,b,c\n", "line 2: 3 cells under 2 columns"),
        (b"path,label,label\na,b,c\n", "['label'] occur more than once"),
        (b"path,label\n,\n", "has no rows below its header"),
        (b"", "has no rows below its header"),
        (b"sep=;\n", "has no rows below its header"),
    ],
)
def test_what_is_no_table_is_called_what_it_is(tmp_path: Path, raw: bytes, said: str) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, raw)
    assert said in str(error.value)
    assert "t.csv" in str(error.value)


def test_a_table_that_is_not_there_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read_user_table(tmp_path / "absent.csv")
    assert str(tmp_path) in str(error.value)
    with pytest.raises(DataError, match="is a folder"):
        read_user_table(tmp_path)


def test_anyones_predictions_may_be_saved_in_any_form(tmp_path: Path) -> None:
    header = "arm,fold,seed,gan_seed,split,image_id,patient_id,label,score_a,score_BI-RADS 4/5"
    text = f"{header}\nreal,0,0,,test,i,p,a,0.25,0.75\n"
    (tmp_path / "plain.csv").write_text(text)
    (tmp_path / "excel.csv").write_bytes(("sep=;\r\n" + text.replace(",", ";")).encode("utf-16"))
    plain, excel = read_predictions(tmp_path / "plain.csv"), read_predictions(tmp_path / "excel.csv")
    assert plain.equals(excel)
    assert plain.to_dict("records")[0]["score_BI-RADS 4/5"] == "0.75"
    with pytest.raises(DataError, match="there is no such table"):
        read_predictions(tmp_path / "absent.csv")


def test_text_and_its_encoding() -> None:
    assert decode("naïve €".encode("cp1252")) == ("naïve €", "cp1252")
    assert decode("naïve €".encode()) == ("naïve €", "utf-8")
    assert decode(b"") == ("", "utf-8")
    assert foreign_kind(b"path,label\n") == ""


def test_lines_in_words() -> None:
    assert shown_lines([3]) == "line 3"
    assert shown_lines([3, 7, 12]) == "lines 3, 7 and 12"
    assert shown_lines([1, 2, 3, 4, 5, 6, 7]) == "lines 1, 2, 3, 4, 5 and 2 more"
