"""`radaug audit` on a finished run, and the mark of samples that are not released."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from audits import CLASSES, of_a_healthy_generator, write_stages

from flows.audit import mark_of
from flows.cli import launch
from pipeline.config.loading import dump_experiment, validate_experiment
from pipeline.core.files import digest_file
from pipeline.core.records import Record, load_record

MakeInputs = Callable[..., dict[str, Path]]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    return of_a_healthy_generator(tmp_path_factory.mktemp("healthy"))


@pytest.fixture
def run_dir(healthy: list[Record], noise_inputs: MakeInputs, tmp_path: Path) -> Path:
    """What `radaug audit` reads of a finished run."""
    run, inputs = tmp_path / "run", noise_inputs(num=300)
    data = {"source": {"kind": "phantom"}, "classes": [*CLASSES], "positive": ["disease"]}
    run.mkdir()
    (run / "config.yaml").write_text(dump_experiment(validate_experiment({"name": "t", "data": data}, "t")))
    (run / "run.lock").touch()
    checkpoint = run / "checkpoints" / "fold-0-gan-0"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.json").write_text("{}")
    (checkpoint / "generator.safetensors").write_bytes(b"weights")
    write_stages(run, healthy, inputs, digest_file(checkpoint / "generator.safetensors"))
    return run


def test_audit_of_a_run_that_may_go(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch(["audit", str(run_dir)]) == 0
    assert capsys.readouterr().out.startswith("Release: release.\nBy distance, ")


def test_audit_of_swapped_weights_refuses(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_dir / "checkpoints" / "fold-0-gan-0" / "generator.safetensors").write_bytes(b"other")
    assert launch(["audit", str(run_dir)]) == 3
    said = capsys.readouterr()
    assert said.out.startswith("Release: refuse.\nThe generator's weights are not those that were audited")
    assert "may leave the building" in said.err


def test_audit_of_a_generator_that_was_trained_again_refuses(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = run_dir / "stages" / "fit-gan-fold-0-gan-0"
    replace(load_record(place), digest="later").save(place)
    assert launch(["audit", str(run_dir)]) == 3
    assert "of other weights than the generator has now, or older than these" in capsys.readouterr().out


def test_audit_of_a_member_that_counts_as_unseen_refuses(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run_dir / "stages" / "split" / "manifest.csv"
    manifest = pd.read_csv(path, dtype=str)
    manifest.loc[299, "patient_id"] = "p0"
    manifest.to_csv(path, index=False)
    assert launch(["audit", str(run_dir)]) == 3
    said = capsys.readouterr().out
    assert "A member counts as unseen: fold 0: 1 patient(s)" in said and "p0" not in said


def test_audit_of_a_run_without_attacks_is_no_release(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in (run_dir / "stages").glob("attack-*"):
        shutil.rmtree(place)
    assert launch(["audit", str(run_dir)]) == 3
    assert capsys.readouterr().out.startswith("Release: not_audited.\nThese attacks were not made: distance")


def test_samples_of_a_released_generator_bear_no_mark(run_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "samples"
    out.mkdir()
    assert mark_of(run_dir, out, 1.0) == "" and not list(out.iterdir())
    assert mark_of(run_dir, out, 0.5) == "not-released-"
    assert "The images of truncation 1 were audited, and not those of 0.5." in (out / "NOT-RELEASED.txt").read_text()


def test_samples_of_a_refused_generator_say_so(run_dir: Path, tmp_path: Path) -> None:
    (run_dir / "checkpoints" / "fold-0-gan-0" / "generator.safetensors").write_bytes(b"other")
    out = tmp_path / "samples"
    out.mkdir()
    assert mark_of(run_dir, out, 1.0) == "not-released-"
    assert "are not those that were audited" in (out / "NOT-RELEASED.txt").read_text()
