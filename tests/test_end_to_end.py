"""Whole runs on small cohorts: what is made again after a change, and what a leak leaves behind."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny_run import TINY

from flows.cli import launch
from pipeline.adversarial.families import FAMILIES
from pipeline.core.files import read_json
from pipeline.core.records import load_record

pytestmark = pytest.mark.usefixtures("ready_children")


def write_study(folder: Path, leak: bool = False, patients: int = 60) -> Path:
    """A CSV of PNGs, 30 patients a class, two images each, with a split column; and its config."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(patients):
        split = ("train", "val", "test")[number // 2 % 3]
        for image in range(2):
            name = f"images/{number:02d}-{image}.png"
            pixels = random.integers(0, 150, (16, 16)) + 80 * (number % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
            rows.append([name, "ill" if number % 2 else "well", f"SECRET-{number:02d}", split])
    if leak:
        rows[-1][3] = "train" if rows[-1][3] != "train" else "test"
    with (folder / "labels.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([["path", "label", "patient_id", "split"], *rows])
    config = folder / "study.yaml"
    config.write_text(
        f"data:\n  source: {{kind: csv, path: {folder / 'labels.csv'}, columns: {{split: split}}}}\n"
        "  classes: [well, ill]\n  positive: [ill]\n  split: {kind: column}\n"
    )
    return config


def run(config: Path, out: Path, *changes: str, engine: str = "direct") -> int:
    settings = [token for change in (*TINY, *changes) for token in ("--set", change)]
    return launch(["run", str(config), "--out", str(out), "--engine", engine, *settings])


def stage_directories(out: Path) -> dict[str, str]:
    return {path.name: path.resolve().name for path in (out / "stages").iterdir()}


@pytest.fixture(scope="module")
def finished(ready_children: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The config of a study and the directory of its run. Other runs beside it find its stages in their cache."""
    root = tmp_path_factory.mktemp("finished")
    config, out = write_study(root / "study"), root / "runs" / "study"
    assert run(config, out) == 0
    return config, out


def test_only_what_a_change_can_reach_is_made_again(
    finished: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config, done = finished
    out = done.with_name("again")
    assert run(config, out) == 0
    first, decided = stage_directories(out), read_json(out / "verdict.json")["utility"]["decision"].replace("_", " ")
    assert first == stage_directories(done)
    assert run(config, out, "classifier.steps=3") == 0
    second = stage_directories(out)
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"downstream-fold-0", "downstream-fold-0-gan-0", "verdict"}

    path = config.parent / "images" / "00-0.png"  # a training image
    pixels = np.asarray(Image.open(path)).copy()
    pixels[0, 0] += 1
    Image.fromarray(pixels).save(path)
    assert run(config, out, "classifier.steps=3") == 0
    third = stage_directories(out)
    assert all(third[name] != second[name] for name in second)
    looks = pd.read_csv(out / "ledger.csv")
    assert looks["look"].tolist() == [1, 2, 3] and looks["shared"].tolist() == ["20 of 20"] * 3
    shown = capsys.readouterr().out
    said = f"This is look 3 at these test patients; earlier looks decided: {decided}, release not audited (study, "
    assert said in shown[shown.rindex("This is look") :] and shown.rindex("This is look") < shown.rindex("Utility:")
    assert read_json(out / "verdict.json")["looks"]["sentences"][0].startswith(said)
    page = (out / "report.html").read_text()
    assert 0 < page.index(said) < page.index("Does it help?")

    for name in ("config.yaml", "manifest.csv", "metrics.csv", "predictions.csv", "verdict.json", "report.html"):
        assert (out / name).is_file(), name
    assert load_record(out / "checkpoints" / "fold-0-gan-0").figures["train_images"] == 40
    metrics = pd.read_csv(out / "metrics.csv", dtype=str, keep_default_na=False)
    assert set(metrics["metric"]) >= {"auroc", "sensitivity", "specificity", "threshold", "control_rate"}
    assert launch(["run", str(config), "--out", str(out), "--set", "gan.nonsense=1"]) == 2


@pytest.mark.usefixtures("server")
def test_every_engine_and_number_of_workers_gives_the_same_run(tmp_path: Path) -> None:
    """Bit for bit at equal threads a fit: what runs beside what decides nothing."""
    config = write_study(tmp_path / "study")
    found = {}
    for engine, workers in (("direct", 1), ("prefect", 2)):
        out = tmp_path / engine / "study"
        changes = ["gan.gan_seeds=2", "compute.threads=1", f"compute.workers={workers}"]
        assert run(config, out, *changes, engine=engine) == 0
        names = ("predictions.csv", "metrics.csv", "manifest.csv", "verdict.json")
        files = [out / name for name in names] + sorted(out.glob("checkpoints/*/*.safetensors"))
        found[engine] = {path.relative_to(out).as_posix(): path.read_bytes() for path in files}
        record = load_record(out / "stages" / "downstream-fold-0-gan-1")
        assert record.threads == 1 and record.figures["threads_a_fit"] == [1]
    assert len(found["direct"]) == 4 + 2 * 2
    different = [name for name in found["direct"] if found["direct"][name] != found["prefect"][name]]
    assert found["direct"].keys() == found["prefect"].keys() and not different


def test_samples_leave_a_run_as_nifti_png_and_dicom(
    finished: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out = finished
    for file_format, ending in (("nifti", ".nii.gz"), ("png", ".png"), ("dicom", ".dcm")):
        folder = tmp_path / file_format
        command = ["sample", str(out), "--label", "ill", "--num", "2", "--out", str(folder), "--format", file_format]
        assert launch(command) == 0
        names = [f"not-released-synthetic-ill-0000{i}{ending}" for i in range(2)]  # so few patients clear nobody
        assert sorted(path.name for path in folder.iterdir()) == ["NOT-RELEASED.txt", *names]
    volume = nib.load(tmp_path / "nifti" / "not-released-synthetic-ill-00000.nii.gz")
    assert nib.aff2axcodes(volume.affine)[:2] == ("L", "P") and volume.shape == (16, 16, 1)
    assert launch(["sample", str(out), "--label", "worse", "--num", "1", "--out", str(tmp_path / "x")]) == 2
    assert "['well', 'ill']" in capsys.readouterr().err


def test_the_notebook_page_runs_as_it_stands(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every block of docs/notebook.md in order, in one namespace, as a kernel would; only the class is the study's."""
    config, done = finished
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RADAUG_CACHE", str(done.parent / ".cache"))
    (tmp_path / "study.yaml").write_bytes((done / "config.yaml").read_bytes())
    shutil.copytree(config.parent / "images", tmp_path / "new-images")
    shutil.copy(done / "predictions.csv", tmp_path / "predictions.csv")
    page = (Path(__file__).parents[1] / "docs" / "notebook.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block.replace('"pneumonia"', '"ill"'), "docs/notebook.md", "exec"), names)
    assert len(blocks) == 2 and names["run"].experiment.classifier.seeds == 5
    assert names["images"].shape == (16, 16, 16) and len(names["scores"]) == 120
    assert names["made"].images.shape == (16, 1, 16, 16) and len(names["real"].manifest) == 120


def test_a_planted_leak_is_refused_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = write_study(tmp_path / "study", leak=True), tmp_path / "runs" / "study"
    assert run(config, out) == 3
    shown = capsys.readouterr()
    assert "SECRET" not in shown.out + shown.err and "patient" in shown.err
    assert not list((tmp_path / "runs").rglob("*.safetensors")) and not list((tmp_path / "runs").rglob("*.pt"))
    assert not (out / "verdict.json").exists() and not (out / "report.html").exists()


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families") / "cache"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("config", ["demo", "demo-3d"])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_family_goes_through_the_whole_flow(
    tmp_path: Path, server: None, shared_cache: Path, monkeypatch: pytest.MonkeyPatch, family: str, config: str
) -> None:
    monkeypatch.setenv("RADAUG_CACHE", str(shared_cache))
    place = Path(__file__).parents[1] / "configs" / f"{config}.yaml"
    changes = [f"gan.family={family}", "gan.num_images=64", "classifier.steps=2", "verdict.bootstrap=100"]
    settings = [token for change in changes for token in ("--set", change)]
    assert launch(["run", str(place), "--out", str(tmp_path / "run"), *settings]) == 0
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    skipped = "Skipped: the family" in report
    assert skipped == (family == "vae")
    images = pd.read_csv(tmp_path / "run" / "synthetic" / "fold-0-gan-0" / "manifest.csv")
    assert set(images["label"]) == {"cyst", "metastasis", "haemangioma"}
