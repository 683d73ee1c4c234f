"""YAML that would be passed over or misread is named with its lines, and numbers are what they look like."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.loading import load_experiment, require_data
from pipeline.config.yaml_text import parse_yaml
from pipeline.core.errors import ConfigError

STUDY = """
name: study
data:
  source: {kind: phantom}
  classes: [a, b]
  positive: [b]
"""


def write(folder: Path, text: str | bytes, name: str = "study.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 2e-4", {"a": 0.0002}),
        ("a: 1E5", {"a": 100000.0}),
        ("a: .5e1", {"a": 5.0}),
        ("a: -3", {"a": -3}),
        ("a: 1_000", {"a": 1000}),
        ("a: 010", {"a": 10}),
        ("a: 12:30", {"a": "12:30"}),
        ("a: 2024-01-02", {"a": "2024-01-02"}),
        ("a: 1.5", {"a": 1.5}),
        ("a: [yes, 'no', e5, 1.2.3]", {"a": [True, "no", "e5", "1.2.3"]}),
        ("a: &x {b: 1}\nc: {<<: *x, d: 2}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
        ("a: &x {b: 1}\nc: *x\nd: *x", {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1}}),
        ("", None),
    ],
)
def test_values(text: str, expected: Any) -> None:
    assert parse_yaml(text, "t") == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "a is given twice, in lines 1 and 3"),
        ("a:\n  b: 1\n  c: 2\n  b: 1", "a.b is given twice, in lines 2 and 4"),
        ("a: {b: 1, b: 2}", "a.b is given twice, in lines 1 and 1"),
        ("a:\n- {b: 1}\n- c: 1\n  'c': 2", "a.1.c is given twice, in lines 3 and 4"),
        ("a:\n\tb: 1", "line 2 has a tab"),
        ("a:\n  b: 1\n  \tc: 2", "line 3 has a tab"),
        ("a:\n  b: 1\n\u00a0\u00a0c: 2", "line 3 has the space U+00A0"),
        ("a: [1", "line 1, column 6"),
        ("a: b: c", "line 1, column 5"),
        ("a: *nowhere", "undefined alias"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: \x07", "special characters are not allowed"),
        ("a: 1\n---\nb: 2", "line 2"),
        ("a: " + "[" * 3000, "nested too deeply"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_yaml(text, "t.yaml")
    assert said in str(error.value)
    assert str(error.value).startswith("t.yaml: ") and str(error.value).count("t.yaml") == 1
    assert "\n" not in str(error.value)


def test_a_key_given_twice_in_the_base_is_refused_too(tmp_path: Path) -> None:
    write(tmp_path, STUDY + "  spatial_size: 16\n  spatial_size: 64\n", "base.yaml")
    with pytest.raises(ConfigError, match=r"base\.yaml: data\.spatial_size is given twice, in lines 7 and 8"):
        load_experiment(write(tmp_path, "extends: base.yaml"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    text = STUDY.replace("[a, b]", "[ä, b]").replace("\n", "\r\n")
    assert load_experiment(write(tmp_path, text.encode(encoding))).data.classes == ("ä", "b")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"PK\x03\x04[Content_Types].xml", "an Excel workbook"),
        (b"<!doctype html><html></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
        (b"a: \x81\x8d\n", "it is no UTF-8 text"),
    ],
)
def test_what_is_no_configuration_is_called_what_it_is(tmp_path: Path, raw: bytes, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_experiment(write(tmp_path, raw))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"classes": "[no, yes]", "positive": "[yes]"},
            "data.classes.0: put the name in quotes: YAML takes an",
        ),
        (
            {"classes": "[0, 1]", "positive": "[1]"},
            "data.classes.0: put the name in quotes, such as '0'",
        ),
        ({"classes": "[1e3, b]"}, "data.classes.0: put the name in quotes"),
        ({"classes": "[null, b]"}, "data.classes.0: put the name in quotes: YAML takes an unquoted null"),
        ({"train_per_class": "{no: 20, yes: 30}"}, "put the name in quotes: YAML takes an unquoted yes, no"),
        ({"external": "{source: {kind: phantom}, labels: {0: a, 1: b}}"}, "data.external.labels.0: put the name"),
    ],
)
def test_names_that_yaml_takes_for_something_else_want_quotes(
    tmp_path: Path, change: dict[str, str], said: str
) -> None:
    lines = {"classes": "[a, b]", "positive": "[b]"} | change
    text = "data:\n  source: {kind: phantom}\n" + "".join(f"  {key}: {value}\n" for key, value in lines.items())
    with pytest.raises(ConfigError) as error:
        load_experiment(write(tmp_path, text))
    assert said in str(error.value)
    quoted = text.replace("[no, yes]", "['no', 'yes']").replace("[yes]", "['yes']")
    quoted = quoted.replace("[0, 1]", "['0', '1']").replace("[1]", "['1']")
    if "classes" in change and "positive" in change:
        assert load_experiment(write(tmp_path, quoted)).data.classes in (("no", "yes"), ("0", "1"))


def test_numbers_of_any_form_reach_the_experiment(tmp_path: Path) -> None:
    path = write(tmp_path, STUDY + "verdict: {margin: 2e-2}\ngan: {num_images: 1e5}\nclassifier: {lr: 3E-4}\n")
    experiment = load_experiment(path, ["classifier.weight_decay=1e-3"])
    assert experiment.verdict.margin == 0.02
    assert experiment.gan.num_images == 100_000
    assert (experiment.classifier.lr, experiment.classifier.weight_decay) == (0.0003, 0.001)


@pytest.mark.parametrize("name", ["../../../tmp/evil name", "a/b", "..", ".hidden", "", "a\\b", "CON\n", "x" * 200])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, yaml.safe_dump({"name": name}) + STUDY.replace("name: study", ""))
    with pytest.raises(ConfigError, match="letters, digits") as error:
        load_experiment(path)
    assert "name" in str(error.value)


def test_the_files_own_name_becomes_one_that_is(tmp_path: Path) -> None:
    path = write(tmp_path, STUDY.replace("name: study", ""), "my study (läuft).yaml")
    assert load_experiment(path).name == "my-study-lauft"


def data_study(source: str) -> str:
    return f"data:\n  source: {source}\n  classes: [a, b]\n  positive: [b]\n"


def test_paths_start_at_the_data_folder_and_then_beside_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data, beside = tmp_path / "data", tmp_path / "project"
    for place in (data / "both.csv", data / "there.csv", beside / "both.csv", beside / "here.csv", beside / "tree/x"):
        write(place.parent, "x", place.name)
    monkeypatch.setenv("RADAUG_DATA", str(data))

    def source_of(text: str, **overrides: str) -> Any:
        sets = [f"{key.replace('__', '.')}={value}" for key, value in overrides.items()]
        return load_experiment(write(beside, data_study(text)), sets).data.source

    with caplog.at_level(logging.WARNING):
        assert source_of("{kind: csv, path: there.csv}").path == "there.csv"
        assert source_of("{kind: csv, path: here.csv}").path == str(beside / "here.csv")
        assert source_of("{kind: csv, path: nowhere.csv}").path == "nowhere.csv"
        assert caplog.text == ""
        assert source_of("{kind: csv, path: both.csv}").path == "both.csv"
    assert str(data / "both.csv") in caplog.text and str(beside / "both.csv") in caplog.text
    mixed = source_of("{kind: dicom, path: tree, labels: there.csv}")
    assert (mixed.path, mixed.labels) == (str(beside / "tree"), "there.csv")
    assert source_of("{kind: csv, path: x}", data__source__path="here.csv").path == str(beside / "here.csv")
    monkeypatch.setenv("HOME", str(beside))
    assert source_of("{kind: csv, path: ~/here.csv}").path == str(beside / "here.csv")


def test_a_path_in_the_base_starts_at_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADAUG_DATA", str(tmp_path / "data"))
    write(tmp_path / "shared", "x", "t.csv")
    write(tmp_path / "shared", data_study("{kind: csv, path: t.csv}"), "base.yaml")
    experiment = load_experiment(write(tmp_path / "mine", "extends: ../shared/base.yaml\nseed: 3"))
    assert getattr(experiment.data.source, "path") == str(tmp_path / "shared" / "t.csv")  # noqa: B009


@pytest.mark.parametrize("data_set", [True, False])
def test_data_that_are_nowhere_are_named_with_both_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_set: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RADAUG_DATA", raising=False)
    if data_set:
        monkeypatch.setenv("RADAUG_DATA", str(tmp_path / "absent"))
    path = write(tmp_path / "project", data_study("{kind: csv, path: nope/t.csv}"))
    with pytest.raises(ConfigError) as error:
        require_data(load_experiment(path), path)
    assert "data.source.path: nope/t.csv is neither in" in str(error.value)
    assert str(tmp_path / ("absent" if data_set else "data")) in str(error.value)
    assert str(tmp_path / "project") in str(error.value)
    assert ("RADAUG_DATA is not set" in str(error.value)) is not data_set
    absolute = write(tmp_path, data_study("{kind: npz, path: /nope/m.npz}"))
    with pytest.raises(ConfigError, match=r"data\.source\.path: /nope/m\.npz is not there"):
        require_data(load_experiment(absolute), absolute)
    require_data(load_experiment(write(tmp_path, STUDY)), path)


def test_paths_of_an_external_site_and_of_an_extractor_are_found_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RADAUG_DATA", str(tmp_path / "data"))
    for name in ("site/x.png", "net.pt"):
        write((tmp_path / name).parent, "x", Path(name).name)
    text = STUDY + "  external: {source: {kind: folders, path: site}}\nquality: {extractor: net.pt}\n"
    experiment = load_experiment(write(tmp_path, text))
    assert experiment.data.external is not None
    assert getattr(experiment.data.external.source, "path", "") == str(tmp_path / "site")
    assert experiment.quality.extractor == str(tmp_path / "net.pt")
    missing = write(tmp_path, text.replace("path: site", "path: nowhere"))
    with pytest.raises(ConfigError, match=r"data\.external\.source\.path: nowhere is neither in"):
        require_data(load_experiment(missing), missing)
