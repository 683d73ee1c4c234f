"""From a data set to a verified pack by the commands alone, with a real generator and the real gate."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import bagit
import nibabel as nib
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from test_synthetic_dicom import KNOWN_LINE

from flows.cli import launch

CONFIGS = Path(__file__).parents[1] / "configs"
CHEAP = {
    "gan.family": "dp-merf", "gan.num_images": 10000, "gan.generator_width": 16, "gan.discriminator_width": 16,
    "data.spatial_size": 32, "classifier.steps": 20, "classifier.seeds": 2, "verdict.bootstrap": 100,
    "synthesis.samples_per_class": 100, "anomaly.detectors": "[]",
    "arms": "[real, real+classical, real+classical+synthetic@1]",
}  # fmt: skip
STUDY = {
    "name": "shared",
    "data": {
        "source": {"kind": "phantom", "cysts": 120, "metastases": 120, "haemangiomas": 120},
        "classes": ["cyst", "metastasis", "haemangioma"], "positive": ["metastasis"], "window": [-60, 200],
        "crop": {"around": "mask", "size_mm": 40}, "split": {"kind": "holdout", "val": 0.15, "test": 0.35},
    },
    "gan": {"family": "dp-merf", "num_images": 10000, "generator_width": 16, "watch": {"checks": 0}},
    "classifier": {"network": "small_cnn", "steps": 20, "seeds": 2},
    "arms": ["real", "real+classical", "real+classical+synthetic@1"],
    "verdict": {"bootstrap": 100}, "anomaly": {"detectors": []},
    "privacy": {"attacks": ["distance", "calibrated-distance", "match", "embedding"]},
}  # fmt: skip


def read_by_other_tools(pack: Path, images: int) -> None:
    """The bag by bagit, the metadata and their rows by mlcroissant, every seventh DICOM file by dciodvfy."""
    assert bagit.Bag(str(pack)).is_valid()
    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed")
    found = mlcroissant.Dataset(jsonld=pack / "data" / "croissant.json")
    issues = found.metadata.ctx.issues
    assert not issues.errors and not issues.warnings
    assert len(list(found.records("images"))) == images
    for path in sorted(pack.rglob("*.dcm"))[::7] if shutil.which("dciodvfy") else ():
        said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False).stderr
        assert [one for one in said.splitlines() if one.startswith("Error") and KNOWN_LINE not in one] == []


def voxels_by_dcm2niix(series: Path, out: Path) -> np.ndarray:
    """Of a folder of slices; axes to right, anterior, superior."""
    out.mkdir()
    subprocess.run(["dcm2niix", "-f", "made", "-o", str(out), str(series)], capture_output=True, check=True)
    return np.asarray(nib.as_closest_canonical(nib.load(out / "made.nii")).dataobj)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("dims", "wanted"), [(2, ["--representation"]), (3, ["--format", "nifti", "dicom"])])
def test_a_study_becomes_a_pack(
    dims: int, wanted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """DP-MERF sees means over patients alone, so that the gate lets it pass; 360 phantoms, 180 of them members."""
    monkeypatch.setenv("RADAUG_CACHE", str(tmp_path / "cache"))
    config, run, pack = tmp_path / "study.yaml", tmp_path / "run", tmp_path / "pack"
    data = STUDY["data"] | {"spatial_dims": dims, "spatial_size": 16}  # type: ignore[operator]
    config.write_text(yaml.safe_dump(STUDY | {"data": data}), encoding="utf-8")
    assert launch(["run", str(config), "--out", str(run), "--engine", "direct"]) == 0
    assert launch(["audit", str(run)]) == 0
    assert launch(["release", str(run), "--out", str(pack), "--num-images", "20", *wanted]) == 0
    capsys.readouterr()
    assert launch(["verify", str(pack)]) == 0
    assert "60 synthetic images" in capsys.readouterr().out
    if dims == 2:
        assert load_file(pack / "data" / "features.safetensors")["features"].shape == (60, 1280)
        assert not list(pack.rglob("*.png"))
    else:
        volumes = [np.asarray(nib.load(path).dataobj) for path in sorted(pack.rglob("*.nii.gz"))]
        assert len(volumes) == 60 and all(one.shape == (16, 16, 16) for one in volumes)
        series = sorted({path.parent for path in pack.rglob("*.dcm")})
        assert len(series) == 60 and len(list(pack.rglob("*.dcm"))) == 60 * 16
        twins = {path.name.removesuffix(".nii.gz"): path for path in pack.rglob("*.nii.gz")}
        for number, one in enumerate(series[::20] if shutil.which("dcm2niix") else ()):
            twin = nib.as_closest_canonical(nib.load(twins[one.name]))
            np.testing.assert_array_equal(voxels_by_dcm2niix(one, tmp_path / f"by-{number}"), np.asarray(twin.dataobj))
        assert np.ptp(np.stack(volumes)) > 50, "Hounsfield units"
    read_by_other_tools(pack, 60)
    with (pack / "data" / "README.md").open("a") as handle:
        handle.write("!")
    assert launch(["verify", str(pack)]) == 3


def run_on_real_patients(config: str, pack: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    root = Path(os.environ.get("RADAUG_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (root / pack).is_dir():
        pytest.skip(f"the data pack {pack} is not here: set RADAUG_DATA to the folder that holds it")
    monkeypatch.setenv("RADAUG_DATA", str(root))
    monkeypatch.setenv("RADAUG_CACHE", str(run.parent / "cache"))
    settings = [token for name, value in CHEAP.items() for token in ("--set", f"{name}={value}")]
    return launch(["run", str(CONFIGS / config), "--out", str(run), "--engine", "direct", *settings])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_chest_x_rays_become_a_pack_that_other_tools_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, pack = tmp_path / "run", tmp_path / "pack"
    assert run_on_real_patients("nih-cxr.yaml", "nih-cxr-normal-vs-pneumonia-256", run, monkeypatch) == 0
    assert launch(["release", str(run), "--out", str(pack), "--num-images", "10", "--format", "png", "dicom"]) == 0
    assert launch(["verify", str(pack)]) == 0
    files = sorted(pack.rglob("*.dcm"))
    assert len(files) == 20 and len(list(pack.rglob("*.png"))) == 20
    read_by_other_tools(pack, 20)
    if shutil.which("dciodvfy"):
        said = subprocess.run(["dciodvfy", str(files[0])], capture_output=True, text=True, check=False).stderr
        assert "DXImageForPresentation" in said


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ct_of_fifty_patients_stays_in_the_house(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert run_on_real_patients("tcga-contrast.yaml", "tcga-luad-ct-contrast-dicom", run, monkeypatch) == 0
    capsys.readouterr()
    assert launch(["release", str(run), "--out", str(tmp_path / "pack")]) == 3
    assert "too few patients to exclude" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "pack").exists()
