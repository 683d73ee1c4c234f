"""New images scored by the detectors of a run: same preparation, p-values, maps where the source has its voxels."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from detecting import BUDGET, tiny_gan
from dicom_making import write_slice, write_volume
from PIL import Image
from scored_run import finished, scored, table_of

from flows.cli import launch
from pipeline.anomaly import detect
from pipeline.anomaly.fitted import fitted_detector
from pipeline.config.loading import validate_experiment
from pipeline.core.errors import DataError, UserError
from pipeline.core.files import digest_tree, read_json
from pipeline.core.records import Record
from pipeline.data.geometry import Item, Placed, geometry
from pipeline.data.source_grid import on_source_grid


def flat(seed: int, *, spot: bool = False) -> np.ndarray:
    random = np.random.default_rng(seed)
    image = np.linspace(60, 120, 20) + random.normal(0, 6, (24, 20))
    if spot:
        image[3:8, 12:17] += 100
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run on PNGs, and the folder of its images."""
    folder = tmp_path_factory.mktemp("pictures")
    rows = []
    for number in range(40):
        ill = number % 4 == 0
        Image.fromarray(flat(number, spot=ill)).save(folder / f"i{number:02d}.png")
        rows.append((f"i{number:02d}.png", "ill" if ill else "well", f"p{number:02d}"))
    return finished(folder, {"source": table_of(folder, rows), "spatial_size": 16}), folder


def own_rows(run: Path) -> pd.DataFrame:
    table = pd.read_csv(run / "stages" / "detect-pca-fold-0" / "anomaly.csv", dtype=str)
    return table.set_index("image_id")


def test_images_of_the_run_get_the_scores_that_the_run_gave_them(pictures: tuple[Path, Path], tmp_path: Path) -> None:
    """From a folder, a table and a single file; p-values are counted here once more from the validation normals."""
    run, folder = pictures
    given = tmp_path / "given"
    given.mkdir()
    own = own_rows(run)
    for name in own.index:
        shutil.copy(folder / f"{name}.png", given)
    table = scored(run, given, tmp_path / "a").set_index("path")
    assert table["score"].to_dict() == {f"{name}.png": score for name, score in own["anomaly_score"].items()}
    assert table["p_value"].to_dict() == {f"{name}.png": p_value for name, p_value in own["p_value"].items()}
    calibration = own[(own["split"] == "val") & (own["normal"] == "1")]["anomaly_score"].astype(float).to_numpy()
    for row in table.itertuples():
        p_value = (1 + (calibration >= float(row.score)).sum()) / (1 + len(calibration))
        assert float(row.p_value) == pytest.approx(p_value, abs=1e-5) and row.alarm == str(int(p_value <= 0.05))
    assert set(table["detector"]) == {"pca"} and (tmp_path / "a" / "refused.csv").read_text() == "path,reason\n"

    first, second = list(own.index[:2])
    (given / "some.csv").write_text(f"path,label\n{second}.png,?\n{first}.png,?\n", encoding="utf-8")
    listed = scored(run, given / "some.csv", tmp_path / "b", "--rate", "0.999")
    assert listed["path"].tolist() == [f"{second}.png", f"{first}.png"]
    assert listed["score"].tolist() == own.loc[[second, first], "anomaly_score"].tolist()
    assert listed["alarm"].tolist() == [str(int(float(p) <= 0.999)) for p in listed["p_value"]]
    alone = scored(run, given / f"{first}.png", tmp_path / "c")
    assert alone["score"].tolist() == [own.loc[first, "anomaly_score"]]


def test_another_scanner_is_told_beside_the_scores(
    pictures: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images of the run's kind and brighter ones, each a patient of its own; a single one is too few to tell."""
    run, _ = pictures
    for name, brighter in (("alike", 0), ("brighter", 30)):
        folder = tmp_path / name
        folder.mkdir()
        for number in range(20):
            pixels = flat(500 + number).astype(int) + brighter
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    assert set(scored(run, tmp_path / "alike", tmp_path / "a")["shift"]) == {"0"}
    assert "No shift is told" in capsys.readouterr().out
    assert set(scored(run, tmp_path / "brighter", tmp_path / "b")["shift"]) == {"1"}
    assert "may mean the scanner" in capsys.readouterr().out
    assert scored(run, tmp_path / "brighter" / "0.png", tmp_path / "c")["shift"].isna().all()
    assert "too few to tell" in capsys.readouterr().out


def test_what_is_not_as_in_training_is_refused_by_name(
    pictures: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = pictures
    given = tmp_path / "given"
    given.mkdir()
    Image.fromarray(flat(1)).save(given / "good.png")
    Image.fromarray(flat(2).astype(np.uint16) * 100).save(given / "deep.png")
    Image.fromarray(np.full((20, 20), 7, np.uint8)).save(given / "even.png")
    (given / "cut.png").write_bytes((given / "good.png").read_bytes()[:60])
    (given / "notes.txt").write_text("nothing to see", encoding="utf-8")
    nib.save(nib.Nifti1Image(np.random.default_rng(0).normal(size=(9, 8, 7)), np.eye(4)), given / "volume.nii.gz")
    write_slice(given / "ct.dcm", np.random.default_rng(0).integers(-900, 900, (20, 20)).astype("<i2"))
    write_slice(given / "mr.dcm", np.random.default_rng(1).integers(0, 200, (20, 20)).astype("<u2"), Modality="MR")
    assert scored(run, given, tmp_path / "out")["path"].tolist() == ["good.png"]
    refused = pd.read_csv(tmp_path / "out" / "refused.csv").set_index("path")["reason"].to_dict()
    expected = {
        "deep.png": "have no known unit, and the run's images hold grey levels from 0 to 255", "even.png": "constant",
        "cut.png": "cut short", "notes.txt": "plain text", "ct.dcm": "are HU", "mr.dcm": "wrong modality (MR)",
        "volume.nii.gz": "this is a volume (shape (9, 8, 7)), but the run's images have 2 dimensions",
    }  # fmt: skip
    assert refused.keys() == expected.keys()
    assert all(words in refused[name] for name, words in expected.items()), refused
    assert "7 images were refused" in capsys.readouterr().out

    reasons = scored(run, given / "mr.dcm", tmp_path / "none", code=2)
    assert reasons["path"].tolist() == ["mr.dcm"] and not (tmp_path / "none" / "scores.csv").exists()
    assert "all 1 images were refused" in capsys.readouterr().err
    (given / "bad.csv").write_text("file\ngood.png\n", encoding="utf-8")
    for wrong, words in ((given / "nowhere", "no such file"), (given / "bad.csv", "has no column path")):
        assert launch(["score", str(run), str(wrong), "--out", str(tmp_path / "wrong")]) == 2
        assert words in capsys.readouterr().err


def test_pictures_of_maps_and_a_worklist(pictures: tuple[Path, Path], tmp_path: Path) -> None:
    run, folder = pictures
    scored(run, folder / "i00.png", tmp_path, "--maps")
    with Image.open(tmp_path / "maps" / "i00.png") as picture:
        assert picture.width > 600 and np.ptp(np.asarray(picture.convert("RGB")), axis=2).max() > 100  # in colour
    assert not list(tmp_path.rglob("*.nii*")) and not list(tmp_path.glob(".prepared*"))
    stage = run / "stages" / "detect-pca-fold-0"
    work, own = pd.read_csv(stage / "worklist.csv", dtype=str), own_rows(run)
    tested = own[own["split"] == "test"].assign(number=lambda rows: rows["anomaly_score"].astype(float))
    expected = tested.sort_values("number", ascending=False)[:4]
    assert work["rank"].tolist() == ["1", "2", "3", "4"] and work["image_id"].tolist() == list(expected.index)
    assert work["score"].tolist() == expected["anomaly_score"].tolist() and work["label"].tolist()[0] == "ill"
    assert (stage / "worklist.png").is_file()
    scale = read_json(stage / "detector.json")["map_scale"]
    assert 0 < scale["median"] < scale["high"]


def test_other_detectors_and_rates_are_refused(
    pictures: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder = pictures
    assert launch(["score", str(run), str(folder), "--out", str(folder / "in")]) == 2
    assert "maps would be scored next time" in capsys.readouterr().err
    for more, words in ((("--detector", "padim"), "It has: pca."), (("--rate", "5"), "between 0 and 1")):
        assert launch(["score", str(run), str(folder / "i00.png"), "--out", str(tmp_path), *more]) == 2
        assert words in capsys.readouterr().err
    scored(run, folder / "i00.png", tmp_path, "--rate", "0.01")
    assert "No alarm can be raised at this rate" in capsys.readouterr().out


TURNED = np.array([[0, -1.5, 0, 40], [2.0, 0, 0, -30], [0, 0, -3.0, 90], [0, 0, 0, 1]])
"""Axes to anterior, left and inferior, with three voxel sizes."""
LESION = (17, 6, 4)


def volume(seed: int, *, lesion: bool = False) -> np.ndarray:
    """[24, 20, 12] in HU with air at one end."""
    random = np.random.default_rng(seed)
    array = np.linspace(-800, 200, 24)[:, None, None] + random.normal(0, 20, (24, 20, 12))
    if lesion:
        x, y, z = LESION
        array[x - 2 : x + 3, y - 2 : y + 3, z - 1 : z + 2] += 500
    return np.rint(array).astype(np.int16)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rows = tmp_path_factory.mktemp("volumes"), []
    for number in range(24):
        ill = number % 4 == 0
        image = nib.Nifti1Image(volume(number, lesion=ill), TURNED)
        nib.save(image, folder / f"v{number}.nii.gz")
        rows.append((f"v{number}.nii.gz", "ill" if ill else "well", f"p{number}"))
    source = table_of(folder, rows)
    return finished(
        folder,
        {
            "source": source, "spatial_dims": 3, "spatial_size": 16, "spacing": 2.0,
            "crop": {"around": "centre", "size_mm": 36.0},
        },
    )  # fmt: skip


def test_the_map_of_a_volume_is_brightest_where_the_lesion_lies(volumes: Path, tmp_path: Path) -> None:
    """In mm, as any viewer would place it: through crop, spacing and orientation back to the source's voxels."""
    image = nib.Nifti1Image(volume(99, lesion=True), TURNED)
    nib.save(image, tmp_path / "new.nii.gz")
    scored(volumes, tmp_path / "new.nii.gz", tmp_path / "out", "--maps")
    found = nib.load(tmp_path / "out" / "maps" / "new.nii.gz")
    values = np.asarray(found.dataobj)
    assert values.shape == (24, 20, 12)
    np.testing.assert_allclose(found.affine, TURNED)
    brightest = found.affine @ [*np.unravel_index(values.argmax(), values.shape), 1]
    planted = TURNED @ [*LESION, 1]
    reach = np.abs(TURNED[:3, :3]) @ [2, 2, 1] + 2.25  # the lesion's half sides and a prepared voxel, mm
    assert (np.abs(brightest - planted)[:3] <= reach).all(), (brightest, planted)
    x, y, z = LESION
    inside = values[x - 1 : x + 2, y - 1 : y + 2, z].mean()
    assert inside > 5 * np.median(values[values > 0])
    assert (tmp_path / "out" / "maps" / "new.png").is_file()


def test_dicom_series_in_a_folder_are_volumes(volumes: Path, tmp_path: Path) -> None:
    """Two series side by side and one alone; a modality that the run knows not is refused by its folder."""
    planes = volume(7)[..., None].transpose(3, 2, 1, 0)[0]  # slices, rows, columns
    write_volume(tmp_path / "in" / "a", planes, SeriesInstanceUID="1.2.3")
    for name, uid in (("b", "1.2.4"), ("c", "1.2.5")):
        for path in write_volume(tmp_path / name, planes, SeriesInstanceUID=uid).iterdir():
            (tmp_path / "in" / "both").mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / "in" / "both" / f"{name}-{path.name}")
    table = scored(volumes, tmp_path / "in", tmp_path / "out", "--maps")
    assert table["path"].tolist() == ["a", "both#1.2.4", "both#1.2.5"]
    assert table["score"].nunique() == 1
    found = nib.load(tmp_path / "out" / "maps" / "a.nii.gz")
    assert found.shape == (24, 20, 12)  # columns, rows, slices
    np.testing.assert_allclose(found.affine, np.diag([-1, -1, 2, 1]))
    assert scored(volumes, tmp_path / "in" / "a", tmp_path / "alone")["score"].tolist() == table["score"].tolist()[:1]
    Image.fromarray(flat(0)).save(tmp_path / "flat.png")
    refused = scored(volumes, tmp_path / "flat.png", tmp_path / "flat", code=2)
    assert "is flat, but the run's images have 3 dimensions" in refused["reason"][0]


@pytest.mark.parametrize("options", [{}, {"spacing": (1.0, 1.0, 1.0)}, {"fit": "stretch"}])
def test_the_way_back_finds_every_voxel(options: dict[str, Any]) -> None:
    """A linear function of the place in mm is the same function on the source's grid, away from the borders."""
    slopes = np.array([0.3, -0.2, 0.5])
    index = np.stack(np.meshgrid(*map(np.arange, (24, 20, 12)), indexing="ij"), axis=-1)
    expected = (index @ TURNED[:3, :3].T + TURNED[:3, 3]) @ slopes
    source = Placed(np.zeros((1, 24, 20, 12), np.float32), TURNED)
    step = geometry((10, 10, 10), **({"spacing": None, "crop": None, "fit": "pad"} | options))
    prepared = step(Item("v", source)).image
    own = np.stack(np.meshgrid(*map(np.arange, (10, 10, 10)), indexing="ij"), axis=-1)
    values = (own @ prepared.affine[:3, :3].T + prepared.affine[:3, 3]) @ slopes
    back = on_source_grid(Placed(values[None].astype(np.float32), prepared.affine), source)[0]
    inner = (slice(3, -3),) * 3
    np.testing.assert_allclose(back[inner], expected[inner], atol=1e-3)
    finer = geometry((48, 48, 48), spacing=None, crop=None, fit="stretch")(Item("v", source)).image
    ones = Placed(np.ones_like(finer.array), finer.affine)
    np.testing.assert_allclose(on_source_grid(ones, source), 1, atol=1e-5)


def test_a_flat_map_goes_back_to_rows_and_columns() -> None:
    source = Placed(np.zeros((1, 30, 40), np.float32), np.eye(4))
    prepared = geometry((20, 20), spacing=None, crop=None, fit="pad")(Item("i", source)).image
    assert prepared.affine[0, 0] == 2.0  # 40 columns as 20 pixels
    values = np.zeros((1, 20, 20), np.float32)
    values[0, 8, 15] = 1.0
    back = on_source_grid(Placed(values, prepared.affine), source)[0]
    assert back.shape == (30, 40)
    row, column = np.unravel_index(back.argmax(), back.shape)
    # pixel 8 of 20 over 40 mm, of which 5 above are padding: its middle is at 8.5 * 2 - 5 - 0.5 = row 11.5
    assert row in (11, 12) and column in (30, 31)


def gan_and_its_detector(run: Path, inputs: dict[str, Path]) -> Path:
    gan, stage = run / "stages" / "fit-gan-fold-0-gan-0", run / "stages" / "detect-x"
    tiny_gan(gan, 2)
    config = detect.DetectConfig(
        detector="discriminator-logit@run", anomaly=BUDGET, classes=("normal", "disease"), positive=("disease",),
        normal=("normal",), fold=0, gan_seed=0, seed=1, device="cpu", precision="float32",
    )  # fmt: skip
    Record("fit-gan", fold=0, gan_seed=0, digest="the GAN", outputs=digest_tree(gan)).save(gan)
    stage.mkdir()
    detect.run(config, inputs | {"gan": gan}, stage)
    Record(
        "detect", fold=0, gan_seed=0, variant=config.detector, config=config.model_dump(mode="json"),
        inputs={"gan": "the GAN"},
    ).save(stage)  # fmt: skip
    return gan


def test_a_detector_looks_through_its_own_gan_alone(noise_inputs: Any, tmp_path: Path) -> None:
    data = {"source": {"kind": "phantom"}, "classes": ["normal", "disease"], "positive": ["disease"]}
    values = {"name": "t", "data": data, "compute": {"device": "cpu"}}
    experiment, run = validate_experiment(values, "t"), tmp_path / "run"
    (run / "stages").mkdir(parents=True)
    gan = gan_and_its_detector(run, noise_inputs((16, 16)))
    fitted = fitted_detector(run, experiment)
    assert fitted.name == "discriminator-logit@run" and fitted.map_scale is None
    weights = gan / "discriminator.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(DataError, match=r"discriminator\.safetensors: is not what discriminator-logit@run was fitted"):
        fitted_detector(run, experiment)
    weights.write_bytes(before)
    Record("fit-gan", fold=0, gan_seed=0, digest="another").save(gan)
    with pytest.raises(DataError, match="is not the GAN that discriminator-logit@run was fitted with"):
        fitted_detector(run, experiment)
    shutil.rmtree(gan)
    with pytest.raises(DataError, match="not in the run"):
        fitted_detector(run, experiment)
    with pytest.raises(UserError, match=r"It has: discriminator-logit@run"):
        fitted_detector(run, experiment, "pca")
