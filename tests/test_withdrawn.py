"""What was made from patients who withdrew is stale: `status` says so, and nothing of it is released or verified."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from packs import released_run

from flows.cli import launch
from flows.withdrawn import why_stale
from pipeline.core.records import load_record
from pipeline.data.cohort.register import Enrolled, Register, read_register


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released_run(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def run_dir(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A released run whose split was made with `register.json`, which holds its patients."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    split = run / "stages" / "split"
    replace(load_record(split), config={"register_path": str(tmp_path / "register.json")}).save(split)
    table = pd.read_csv(split / "manifest.csv", dtype=str, keep_default_na=False)
    table.assign(fate="used").to_csv(split / "manifest.csv", index=False)
    patients = {name: Enrolled(("train",), {"1": ("x",)}) for name in table["patient_id"]}
    Register({"split": "holdout"}, 1, patients).write(tmp_path / "register.json")
    return run


def withdraw(place: Path, number: int) -> None:
    register = read_register(place)
    gone = {name: replace(one, withdrawn=2) for name, one in list(register.patients.items())[:number]}
    replace(register, round=2, patients={**register.patients, **gone}).write(place)


def test_a_run_is_stale_once_a_patient_has_withdrawn(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, out = run_dir.parent / "register.json", run_dir.parent / "pack"
    assert why_stale(run_dir) == ""
    withdraw(place, 2)
    assert launch(["status", str(run_dir.parent), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["stale"].startswith("Stale: 2 of its patients have withdrawn since.")
    assert launch(["audit", str(run_dir)]) == 3 and "2 of its patients" in capsys.readouterr().out
    assert launch(["release", str(run_dir), "--out", str(out)]) == 3 and not out.exists()
    assert "Do `radaug run` again" in capsys.readouterr().err
    place.unlink()
    assert launch(["release", str(run_dir), "--out", str(out)]) == 3
    assert "register.json is not there. Bring it back" in capsys.readouterr().err


def test_a_pack_is_stale_once_a_patient_has_withdrawn(
    run_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, pack = run_dir.parent / "register.json", run_dir.parent / "pack"
    assert launch(["release", str(run_dir), "--out", str(pack), "--num-images", "3"]) == 0
    assert launch(["verify", str(pack)]) == 0
    digest = capsys.readouterr().out.split("Its digest is ")[-1][:64]
    (line,) = read_register(place).packs
    assert (line["digest"], len(line["patients"])) == (digest, 300)

    withdraw(place, 1)
    assert launch(["verify", str(pack)]) == 3
    assert "1 of the patients behind it have withdrawn" in capsys.readouterr().err
    assert launch(["status", str(run_dir)]) == 0 and f"Pack {digest}: stale" in capsys.readouterr().out
    monkeypatch.setenv("XDG_CACHE_HOME", str(run_dir.parent / "receiver"))  # who has neither note nor register
    assert launch(["verify", str(pack)]) == 0
    assert launch(["verify", str(pack), "--register", str(place)]) == 3
    Register({"split": "holdout"}, 1).write(run_dir.parent / "other.json")
    assert launch(["verify", str(pack), "--register", str(run_dir.parent / "other.json")]) == 3
    assert "was not made by a study with the register" in capsys.readouterr().err


def test_a_withdrawn_patient_of_another_run_makes_nothing_stale(run_dir: Path) -> None:
    place = run_dir.parent / "register.json"
    register = read_register(place)
    stranger = {"stranger": Enrolled(("train",), {"1": ("y",)}, withdrawn=2)}
    replace(register, patients={**register.patients, **stranger}).write(place)
    assert why_stale(run_dir) == ""


def test_a_run_that_began_with_a_stale_runs_generator_is_stale(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Path(shutil.copytree(run_dir, tmp_path / "first"))
    gan = first / "checkpoints" / "fold-0-gan-0"
    weights = json.loads((gan / "model.json").read_text())["weights"]
    place = run_dir / "stages" / "fit-gan-fold-0-gan-0"
    begun = {"start": {"place": str(gan), "split": str(first / "stages" / "split"), "weights": weights}}
    replace(load_record(place), config=begun).save(place)
    split = run_dir / "stages" / "split"
    replace(load_record(split), config={}).save(split)  # this run has a register no more
    assert why_stale(run_dir) == ""
    withdraw(tmp_path / "register.json", 1)
    assert why_stale(run_dir).startswith("Stale, as is the run whose generator its GAN began with. Stale: 1 of its")
    assert launch(["audit", str(run_dir)]) == 3
    table = pd.read_csv(first / "stages" / "split" / "manifest.csv", dtype=str)
    table.iloc[:0].to_csv(first / "stages" / "split" / "manifest.csv", index=False)  # it was run again, without them
    assert why_stale(run_dir) == ""
    described = json.loads((gan / "model.json").read_text())
    (gan / "model.json").write_text(json.dumps({**described, "weights": {"generator": "other"}}))
    assert "was made anew since" in why_stale(run_dir)
