"""The stage cache: what makes a stage stale, and that a half-written directory is never taken for whole."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config.section import Section
from pipeline.core.cache import Stage, execute, fingerprint
from pipeline.core.errors import DataError, UserError
from pipeline.core.files import atomic_path, digest_tree, forget_unfinished
from pipeline.core.layout import TIMED_LOG
from pipeline.core.records import Record, load_record, records_of


class Settings(Section):
    text: str = "hello"


def write(config: Settings, inputs: Mapping[str, Path], out_dir: Path) -> Record:
    before = "".join((path / "text.txt").read_text() for path in inputs.values())
    (out_dir / "text.txt").write_text(before + config.text)
    return Record(kind="write", figures={"length": len(config.text)})


def stage(text: str = "hello", **changes: object) -> Stage:
    return replace(Stage("write", write, Settings(text=text)), **changes)  # type: ignore[arg-type]


def test_the_second_execution_is_taken_from_the_cache(tmp_path: Path) -> None:
    first, second = execute(stage(), tmp_path), execute(stage(), tmp_path)
    assert (first.cached, second.cached) == (False, True)
    assert first.directory == second.directory == tmp_path / f"write-{fingerprint(stage())}"
    assert second.record.figures == {"length": 5} and set(second.record.versions) >= {"torch", "monai", "numpy"}


@pytest.mark.parametrize(
    "changed",
    [{"config": Settings(text="bye")}, {"seed": 1}, {"device": "cuda"}, {"precision": "bf16"}, {"kind": "other"},
     {"fold": 1}, {"fold": 0, "gan_seed": 1},
     {"external": {"source": "changed"}}],
)  # fmt: skip
def test_whatever_can_change_a_result_makes_a_stage_stale(changed: dict[str, object]) -> None:
    assert fingerprint(stage()) != fingerprint(stage(**changed))


def test_the_record_says_what_the_stage_is_whatever_its_function_fills_in(tmp_path: Path) -> None:
    made = execute(stage(kind="downstream", fold=3, gan_seed=1), tmp_path)
    record = load_record(made.directory)
    assert (record.kind, record.fold, record.gan_seed, record.name) == ("downstream", 3, 1, "downstream-fold-3-gan-1")
    assert record == replace(made.record, outputs=record.outputs)


def test_evidence_is_found_by_the_record_and_not_by_a_name(tmp_path: Path) -> None:
    kinds = {"privacy-fold-0": ("downstream", 0), "x": ("downstream", 10), "downstream": ("downstream-audit", None)}
    for folder, (kind, fold) in kinds.items():
        (tmp_path / folder).mkdir()
        Record(kind, fold=fold).save(tmp_path / folder)
    found = [(record.fold, place.name) for record, place in records_of(tmp_path.iterdir(), "downstream")]
    assert found == [(0, "privacy-fold-0"), (10, "x")]


def test_a_record_of_another_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "verdict").mkdir()
    (tmp_path / "verdict" / "record.json").write_text('{"stage": "verdict", "notes": [], "outputs": {}}')
    with pytest.raises(
        DataError, match=r"verdict/record.json: is damaged, or another version .* Do `radaug run` again"
    ):
        load_record(tmp_path / "verdict")


def test_inputs_count_by_their_contents(tmp_path: Path) -> None:
    same = [execute(stage("a", seed=seed), tmp_path).directory for seed in (0, 1)]
    other = execute(stage("b"), tmp_path).directory
    keys = [fingerprint(stage("c", inputs={"before": path})) for path in (*same, other)]
    assert keys[0] == keys[1] != keys[2]


def test_a_killed_stage_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    def dies(config: Settings, inputs: Mapping[str, Path], out_dir: Path) -> Record:
        write(config, inputs, out_dir)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(stage(run=dies), tmp_path)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []
    assert not execute(stage(), tmp_path).cached


def test_only_a_resumable_stage_finds_its_half_written_files(tmp_path: Path) -> None:
    seen: list[bool] = []

    def resumes(config: Settings, inputs: Mapping[str, Path], out_dir: Path) -> Record:
        seen.append((out_dir / "half.txt").exists())
        (out_dir / "half.txt").write_text("half")
        if len(seen) % 2:
            raise KeyboardInterrupt
        return Record(kind="resumes")

    for resumable in (True, False):
        for _ in range(2):
            try:
                execute(stage(run=resumes, resumable=resumable, seed=int(resumable)), tmp_path)
            except KeyboardInterrupt:
                continue
    assert seen == [False, True, False, False]


def test_what_a_killed_process_was_writing_is_no_part_of_the_stage(tmp_path: Path) -> None:
    """A process is killed in the middle of a checkpoint: the stage that goes on is that of a run that nobody killed."""
    halfway = """
import os, signal, sys
from pathlib import Path
from pipeline.core.files import atomic_path, whole_folder
with whole_folder(Path(sys.argv[1]) / "snapshot") as folder, atomic_path(Path(sys.argv[1]) / "resume.pt") as file:
    (folder / "nets").write_text("ha")
    file.write_text("ha")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed: list[int] = []

    def resumes(config: Settings, inputs: Mapping[str, Path], out_dir: Path) -> Record:
        write(config, inputs, out_dir)
        if not killed:
            killed.append(subprocess.run([sys.executable, "-c", halfway, out_dir], check=False).returncode)
            assert {path.suffix for path in out_dir.iterdir()} == {".txt", ".partial"}
            raise KeyboardInterrupt
        return Record(kind="resumes")

    with pytest.raises(KeyboardInterrupt):
        execute(stage(run=resumes, resumable=True), tmp_path / "hit")
    hit = execute(stage(run=resumes, resumable=True), tmp_path / "hit")
    whole = execute(stage(run=resumes, resumable=True), tmp_path / "whole")
    assert killed == [-signal.SIGKILL]
    assert hit.record.digest == whole.record.digest
    assert sorted(path.name for path in hit.directory.iterdir()) == ["record.json", "text.txt"]


def test_what_another_process_is_writing_stays_and_does_not_count(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "resume.pt") as file:
        file.write_text("ha")
        forget_unfinished(tmp_path)
        assert file.is_file() and not digest_tree(tmp_path)
    assert list(digest_tree(tmp_path)) == ["resume.pt"]


@pytest.mark.parametrize("damage", ["cut", "gone", "record"])
def test_a_damaged_directory_is_made_again(tmp_path: Path, damage: str) -> None:
    place = execute(stage(), tmp_path).directory
    if damage == "cut":
        (place / "text.txt").write_text("hel")
    elif damage == "gone":
        (place / "text.txt").unlink()
    else:
        (place / "record.json").write_text('{"kind": "wri')
    again = execute(stage(), tmp_path)
    assert not again.cached and (again.directory / "text.txt").read_text() == "hello"


def test_a_full_disk_says_so_and_what_to_do(tmp_path: Path) -> None:
    def full(config: Settings, inputs: Mapping[str, Path], out_dir: Path) -> Record:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match=r"the disk is full.*run again"):
        execute(stage(run=full), tmp_path)


def test_times_do_not_enter_the_digest(tmp_path: Path) -> None:
    def logs(config: Settings, inputs: Mapping[str, Path], out_dir: Path) -> Record:
        (out_dir / TIMED_LOG).write_text(config.text)
        return Record(kind="logs")

    digests = {load_record(execute(stage(text, run=logs), tmp_path).directory).digest for text in ("1 s", "2 s")}
    assert len(digests) == 1
