"""Places for output that cannot be written are the user's to mend, and user text makes safe file names."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from flows.cli import launch
from flows.faults import faults_kept_in
from pipeline.core.errors import UserError
from pipeline.core.files import clear_disk_errors, make_folder, safe_name
from pipeline.data.batches.dataset import new_array

LABELS = [
    "BI-RADS 4/5",
    "BI-RADS 4-5",
    "..",
    ".",
    "CON",
    "con.png",
    "\U0001fac1 lung",
    "a" * 300,
    "a" * 299,
    "a/../../b",
    "x\n y",
    "Zyste ä",
    "Zyste a\u0308",
    "~",
    "-rf",
    "",
    " ",
]


def test_user_text_becomes_a_safe_part_of_a_file_name(tmp_path: Path) -> None:
    names = [safe_name(label) for label in LABELS]
    assert len({name.casefold() for name in names}) == len(LABELS)
    for name in names:
        assert name.isascii() and 1 <= len(name) <= 80
        assert not set(name) & set('/\\:*?"<>| \n') and name.strip(".-") != ""
        assert name.partition(".")[0].lower() not in ("con", "prn", "aux", "nul")
        (tmp_path / f"synthetic-{name}-00000.png").write_text("x")
    assert len(list(tmp_path.iterdir())) == len(LABELS)
    assert [safe_name(label) for label in ("pneumonia", "grade_2.5", "T1-a")] == ["pneumonia", "grade_2.5", "T1-a"]


def bad_places(folder: Path) -> list[Path]:
    (folder / "file").write_text("x")
    below = [folder / "file", folder / "file" / "run", folder / ("x" * 300)]
    return [*below, Path("/proc/radaug-run"), Path("/dev/null/x")]


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    for place in bad_places(tmp_path):
        with pytest.raises(UserError, match="cannot be made or written") as error:
            make_folder(place)
        assert "Choose another --out" in str(error.value)
        assert len(str(error.value)) < 400
    make_folder(tmp_path / "new" / "deep")
    assert list((tmp_path / "new" / "deep").iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_says_so(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(UserError, match="permission denied"):
            make_folder(tmp_path / "new")
    finally:
        tmp_path.chmod(stat.S_IRWXU)


@pytest.mark.parametrize("command", ["run", "curve", "schedule"])
def test_commands_look_at_the_place_before_they_do_anything(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    config = tmp_path / "t.yaml"
    config.write_text("data: {source: {kind: phantom}, classes: [a, b], positive: [b]}\n")
    extra = ["--cron", "0 2 * * *"] if command == "schedule" else []
    for place in bad_places(tmp_path):
        assert launch([command, str(config), "--out", str(place), *extra]) == 2
        assert "cannot be made or written" in capsys.readouterr().err


def test_validate_in_a_folder_that_cannot_be_written_names_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    monkeypatch.setenv("RADAUG_CACHE", "/proc/radaug-cache")
    config = tmp_path / "t.yaml"
    config.write_text("data: {source: {kind: phantom}, classes: [a, b], positive: [b]}\n")
    assert launch(["validate", str(config)]) == 2
    assert "Set RADAUG_CACHE to a folder that may be written" in capsys.readouterr().err


def test_a_run_that_cannot_be_one_is_no_fault_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch(["report", "x" * 300]) == 2
    assert "is not a run directory" in capsys.readouterr().err


def test_data_that_are_not_there_end_a_command_with_both_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RADAUG_DATA", str(tmp_path / "data"))
    config = tmp_path / "t.yaml"
    config.write_text("data: {source: {kind: csv, path: nope/t.csv}, classes: [a, b], positive: [b]}\n")
    for command in (["validate"], ["run", "--out", str(tmp_path / "out")]):
        assert launch([command[0], str(config), *command[1:]]) == 2
        said = capsys.readouterr().err
        assert str(tmp_path / "data") in said and f"{tmp_path} (the configuration's folder)" in said


def _fill_a_map(path: Path) -> None:
    new_array(path, np.uint8, (400_000,))[:] = 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """64 KiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    try:
        mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("only root may mount a small disk")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: torch.save({"net": torch.zeros(100_000)}, path),
        lambda path: save_file({"net": torch.zeros(100_000)}, path),
        lambda path: np.save(path, np.zeros(100_000)),
        _fill_a_map,
    ],
    ids=["torch", "safetensors", "numpy", "map"],
)
def test_a_full_disk_says_so_whichever_library_was_writing(small_disk: Path, write: Callable[[Path], None]) -> None:
    with pytest.raises(UserError, match=r"the disk is full[.] Free some space"), clear_disk_errors(small_disk):
        write(small_disk / "file.npy")


def test_a_fault_whose_traceback_has_no_room_is_told_as_a_full_disk(small_disk: Path) -> None:
    with suppress(OSError), (small_disk / "rest").open("wb") as rest:
        rest.write(bytes(2**20))
    with pytest.raises(UserError, match=r"the disk is full[.] Free"), faults_kept_in(small_disk / "error.log", "a job"):
        raise KeyError("patient-77")
