"""`radaug sample` exports the generator that `release:` names, and a copied run says what it lacks."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
import yaml
from fake_run import Case, build, leave_out_curves
from PIL import Image

from flows.cli import launch
from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.families.sngan import SnganConfig
from pipeline.adversarial.weights import save_nets
from pipeline.core.errors import UserError
from pipeline.core.files import link
from pipeline.core.records import Record
from pipeline.nets.sizes import ImageShape
from pipeline.report.page import write_report
from pipeline.report.pictures import all_pictures
from pipeline.report.reading import read_run
from pipeline.synthesis.sample import sample_run

MakeInputs = Callable[..., dict[str, Path]]
LEVELS = {(0, 0): 40, (0, 1): 90, (1, 0): 160, (1, 1): 220}
"""The one grey value that each planted generator makes."""


def finished(
    root: Path, inputs: dict[str, Path], release: tuple[int, int], classes: tuple[str, str] = ("normal", "disease")
) -> Path:
    """A run of two folds and two GAN seeds whose stages are in a cache beside it."""
    run = root / "runs" / "study"
    for name, directory in inputs.items():
        link(directory, run / "stages" / name)
    Record("split").save(inputs["split"])
    shutil.copy(inputs["split"] / "manifest.csv", inputs["prepare"] / "manifest.csv")
    manifest = (inputs["prepare"] / "manifest.csv").read_text().splitlines()
    lines = [f"{line},{'spacing' if place == 0 else '1x1'}" for place, line in enumerate(manifest)]
    (inputs["prepare"] / "manifest.csv").write_text("\n".join(lines) + "\n")
    for (fold, gan_seed), level in LEVELS.items():
        name = f"fold-{fold}-gan-{gan_seed}"
        place = root / "runs" / ".cache" / f"fit-gan-{name}-0123"
        write_generator(place, fold, gan_seed, level, classes)
        link(place, run / "checkpoints" / name)
    data = {
        "source": {"kind": "csv", "path": "labels.csv"}, "classes": ["normal", "disease"], "positive": ["disease"],
        "split": {"kind": "kfold", "folds": 2}, "spatial_size": 16,
    }  # fmt: skip
    named = {"fold": release[0], "gan_seed": release[1]}
    config = {"name": "study", "data": data, "gan": {"gan_seeds": 2}, "release": named}
    (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (run / "run.lock").touch()
    return run


def write_generator(place: Path, fold: int, gan_seed: int, level: int, classes: tuple[str, str]) -> None:
    """A generator that gives the grey value `level` for everything: all its weights are 0 but the last bias."""
    gan = SnganConfig(generator_width=4, discriminator_width=4, latent_dim=6)
    nets, _ = FAMILIES["sngan"].build(gan, ImageShape((16, 16), 1, 2, 0, (1,)))
    parameters = list(nets["generator"].parameters())
    with torch.no_grad():
        for one in parameters:
            one.zero_()
        parameters[-1].fill_(math.atanh(2 * level / 255 - 1))
    place.mkdir(parents=True)
    description = {
        "gan": gan.model_dump(mode="json"), "classes": list(classes), "positive": [classes[1]], "channels": 1,
        "scaling": {"scale": 1.0, "offset": 0.0, "unit": "none", "window": [0.0, 255.0], "dtype": "uint8"},
        "spatial_size": [16, 16], "fold": fold, "gan_seed": gan_seed,
    }  # fmt: skip
    save_nets(place, {"generator": nets["generator"]}, description)
    Record("fit-gan", seed=3, fold=fold, gan_seed=gan_seed).save(place)


@pytest.mark.parametrize("release", list(LEVELS))
def test_the_generator_that_release_names_is_sampled(
    noise_inputs: MakeInputs, tmp_path: Path, release: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = finished(tmp_path, noise_inputs((16, 16)), release), tmp_path / "samples"
    words = ["--label", "disease", "--num", "2", "--format", "png"]
    assert launch(["sample", str(run), "--out", str(out), *words]) == 0
    said = capsys.readouterr().out
    assert f"fold {release[0]}, GAN seed {release[1]}" in said and "NOT RELEASED" in said
    for path in out.glob("*.png"):
        assert np.abs(np.asarray(Image.open(path)).astype(int) - LEVELS[release]).max() <= 1
    assert len(list(out.glob("*.png"))) == 2


def test_samples_are_asked_by_several_labels_and_a_seed_and_are_never_overwritten(
    noise_inputs: MakeInputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = finished(tmp_path, noise_inputs((16, 16)), (0, 0)), tmp_path / "samples"
    words = ["sample", str(run), "--num", "1", "--format", "png", "--out", str(out)]
    assert launch([*words, "--label", "normal", "illness"]) == 2
    assert "did you mean" not in capsys.readouterr().err and not list(out.iterdir())
    assert launch([*words, "--label", "normal", "diseases"]) == 2
    assert "did you mean disease?" in capsys.readouterr().err and not list(out.iterdir())
    assert launch([*words, "--label", "normal", "disease"]) == 0
    assert "2 images of the generator" in capsys.readouterr().out
    kept = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert launch([*words, "--label", "disease", "--seed", "1"]) == 2
    assert "1 synthetic image(s) of disease already" in capsys.readouterr().err
    assert kept == {path: path.stat().st_mtime_ns for path in out.iterdir()}


def test_another_seed_is_another_latent(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    run = finished(tmp_path, noise_inputs((16, 16)), (0, 0))
    ids = []
    for seed in (0, 0, 1):
        (path,) = sample_run(run, "disease", 1, tmp_path / f"s{len(ids)}", file_format="dicom", seed=seed)
        ids.append(str(pydicom.dcmread(path).PatientID))
    assert ids[0] == ids[1] != ids[2]


def test_a_dicom_sample_that_is_not_released_says_so_in_its_header(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    run, out = finished(tmp_path, noise_inputs((16, 16)), (0, 0)), tmp_path / "samples"
    words = ["--label", "disease", "--num", "1", "--format", "dicom"]
    assert launch(["sample", str(run), "--out", str(out), *words]) == 0
    header = pydicom.dcmread(out / "not-released-synthetic-disease-00000.dcm")
    for said in (header.StudyDescription, header.SeriesDescription, header.PatientComments, header.ImageComments):
        assert said.startswith("NOT RELEASED SYNTHETIC")
    assert header.SyntheticData == "YES" and header.SOPClassUID == "1.2.840.10008.5.1.4.1.1.1.1"
    manifest = run / "stages" / "prepare" / "manifest.csv"
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False).assign(modality="CT")
    table.to_csv(manifest, index=False)  # CT slices as PNG, which have no HU: neither CT nor X-ray to DICOM
    (path,) = sample_run(run, "disease", 1, tmp_path / "ct", file_format="dicom")
    assert pydicom.dcmread(path).SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"


def test_what_a_copied_or_unfinished_run_lacks_is_named(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    run = finished(tmp_path, noise_inputs((16, 16)), (1, 1))
    copy, whole = tmp_path / "elsewhere" / "study", tmp_path / "deep" / "study"
    shutil.copytree(run, copy, symlinks=True)
    shutil.copytree(run, whole)
    with pytest.raises(UserError, match=r"checkpoints/fold-1-gan-1 is a link that leads to nothing.*radaug export"):
        sample_run(copy, "normal", 1, tmp_path / "out")
    assert len(sample_run(whole, "normal", 1, tmp_path / "out")) == 1
    shutil.rmtree(whole / "stages" / "split")
    (whole / "stages" / "split").symlink_to("../../gone")
    with pytest.raises(UserError, match=r"stages/split is a link that leads to nothing"):
        sample_run(whole, "normal", 1, tmp_path / "out")
    (run / "checkpoints" / "fold-1-gan-1").unlink()
    with pytest.raises(UserError, match=r"holds no checkpoints/fold-1-gan-1/model.json.*finish first"):
        sample_run(run, "normal", 1, tmp_path / "out")
    (run / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"holds no config\.yaml"):
        sample_run(run, "normal", 1, tmp_path / "out")


def test_every_picture_of_the_report_is_of_the_released_generator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out_curves(monkeypatch, "histogram")
    run = read_run(build(tmp_path / "run", Case(folds=2, gan_seeds=2, release=(1, 1))))
    pictures = all_pictures(run, shareable=False)
    for name in ("samples", "closest-pairs", "anomaly"):
        assert "fold 1, GAN seed 1" in pictures[name].caption, name
    assert next(name for name in pictures if name.startswith("film-strip")) == "film-strip-fold-1-gan-1"


def test_a_copied_runs_report_says_that_its_links_lead_nowhere(tmp_path: Path) -> None:
    run = build(tmp_path / "run", Case())
    shutil.move(run / "stages" / "prepare", tmp_path / "gone")
    (run / "stages" / "prepare").symlink_to("../../nowhere")
    with pytest.raises(UserError, match=r"stages/prepare/record.json: the run's link leads to nothing"):
        write_report(run)


@pytest.mark.parametrize(
    "classes", [("BI-RADS 4/5", "BI-RADS 4-5"), ("../../up", "..\\up"), ("grade 2.5", "grade 2.7"), ("CON", "x" * 300)]
)
def test_class_names_become_safe_and_different_file_names(
    noise_inputs: MakeInputs, tmp_path: Path, classes: tuple[str, str]
) -> None:
    run, out = finished(tmp_path, noise_inputs((16, 16)), (0, 0), classes), tmp_path / "samples"
    for name in classes:
        assert launch(["sample", str(run), "--out", str(out), "--label", name, "--num", "2", "--format", "png"]) == 0
    assert (out / "NOT-RELEASED.txt").is_file()
    written = [path for path in out.iterdir() if path.suffix != ".txt"]
    assert len(written) == 4
    assert all(
        path.suffix == ".png" and path.stem.startswith("not-released-synthetic-") and path.stem.isascii()
        for path in written
    )
    assert not [path for path in tmp_path.rglob("*.png") if path.parent != out]
