"""Work in several processes: results in order, the first error, and nobody left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import side_work
import torch
from ingesting import png
from side_work import Sleeping, Squared

from pipeline.config.loading import validate_experiment
from pipeline.core.errors import Killed, UnreadableImage
from pipeline.core.workers import side_by_side
from pipeline.data import ingest, many_images, prepare
from pipeline.data.cohort import split
from pipeline.data.writers import write_nifti


def taken(work: Squared, processes: int, count: int = 200) -> list[int]:
    found: list[int] = []
    with side_by_side(work, range(count), processes=processes, name_of=lambda number: f"{number}.png") as results:
        found.extend(results)
    return found


@pytest.mark.parametrize("processes", [1, 3])
def test_results_come_in_the_items_order(processes: int) -> None:
    assert taken(Squared(), processes) == [number**2 for number in range(200)]


@pytest.mark.parametrize("processes", [1, 2])
def test_the_first_error_in_order_is_the_one_that_is_raised(processes: int) -> None:
    with pytest.raises(UnreadableImage) as error:
        taken(Squared(unreadable=(150, 31, 199)), processes)
    assert (error.value.path, error.value.reason, str(error.value)) == ("31.png", "it is odd", "31.png: it is odd")


def test_a_killed_process_is_an_error_that_names_where() -> None:
    with pytest.raises(Killed, match=r"^0\.png: the process .* was ended"):
        taken(Squared(killed=(0,)), 2)


def test_processes_end_with_the_block(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path)
    gone(tmp_path)


def interrupted(folder: Path) -> None:
    with side_by_side(Sleeping(folder), range(3), processes=2, name_of=str) as results:
        assert next(results) == 0
        begun(folder, 1)
        raise KeyboardInterrupt


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_processes_end_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    parent = subprocess.Popen([sys.executable, side_work.__file__, str(tmp_path)])
    begun(tmp_path, 2)
    parent.send_signal(number)
    parent.wait()
    gone(tmp_path)


def begun(folder: Path, count: int) -> None:
    while len(list(folder.iterdir())) < count:
        time.sleep(0.05)


def gone(folder: Path) -> None:
    """Return when none of the processes is there any more; the test's own time limit says if one stays."""
    for path in folder.iterdir():
        while psutil.pid_exists(int(path.name)) and psutil.Process(int(path.name)).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.05)


def prepared(root: Path, cohort: Path, dims: int) -> None:
    """Run ingest, split and prepare of class folders into `root`."""
    source = {"kind": "folders", "path": str(cohort)}
    data = {"classes": ["a", "b"], "positive": ["b"], "spatial_dims": dims, "spatial_size": 8, "max_rejected": 0.5}
    experiment = validate_experiment({"name": "t", "data": data | {"source": source}}, "t")
    inputs = {name: root / name for name in ("ingest", "split", "prepare")}
    for folder in inputs.values():
        folder.mkdir(parents=True)
    ingest.run(ingest.ingest_config(experiment), {}, inputs["ingest"])
    split.run(split.split_config(experiment), inputs, inputs["split"])
    prepare.run(prepare.prepare_config(experiment), inputs, inputs["prepare"])


@pytest.mark.parametrize("dims", [2, 3])
def test_a_cohort_read_by_several_processes_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dims: int
) -> None:
    random = np.random.default_rng(0)
    for number in range(16):
        name = tmp_path / "cohort" / "ab"[number % 2] / f"p{number}"
        if dims == 2:
            png(name.with_suffix(".png"), number)
        else:
            name.parent.mkdir(parents=True, exist_ok=True)
            affine = np.diag([1.0, -1.0, 2.0, 1.0])
            write_nifti(name.with_suffix(".nii.gz"), random.integers(-1000, 200, (9, 7, 5)).astype(float), affine)
    (tmp_path / "cohort" / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    threads = torch.get_num_threads()
    prepared(tmp_path / "alone", tmp_path / "cohort", dims)
    monkeypatch.setattr(many_images, "WORTH_BYTES", 0)
    torch.set_num_threads(2)
    try:
        prepared(tmp_path / "together", tmp_path / "cohort", dims)
    finally:
        torch.set_num_threads(threads)
    names = sorted(path.relative_to(tmp_path / "alone") for path in (tmp_path / "alone").rglob("*") if path.is_file())
    assert Path("prepare/images.npy") in names and Path("ingest/rejected.csv") in names
    for name in names:
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "together" / name).read_bytes(), name
