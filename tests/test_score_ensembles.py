"""New images scored by an ensemble: the numbers of the run's verdict, and ranks by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scored_run import finished, scored, table_of

from flows.cli import launch
from pipeline.anomaly.fitted import fitted_as_named
from pipeline.config.loading import load_experiment
from pipeline.core.errors import DataError
from pipeline.core.files import read_json, write_json
from pipeline.measures.ranks import mean_rank, share_below
from pipeline.verdict.detectors import detector_table
from pipeline.verdict.ensembles import with_ensembles

MEMBERS = ["pca", "ecod", "isolation-forest"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run on PNGs, one a patient, and the folder of its images."""
    folder, rows, random = tmp_path_factory.mktemp("pictures"), [], np.random.default_rng(0)
    for number in range(48):
        ill = number % 4 == 0
        image = np.linspace(60, 120, 20) + random.normal(0, 6, (24, 20))
        image[3:8, 12:17] += 30 * ill
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(folder / f"i{number:02d}.png")
        rows.append((f"i{number:02d}.png", "ill" if ill else "well", f"p{number:02d}"))
    data = {"source": table_of(folder, rows), "spatial_size": 16}
    return finished(folder, data, detectors=MEMBERS, ensembles={"three": MEMBERS, "two": MEMBERS[1:]}), folder


def verdict_rows(run: Path) -> pd.DataFrame:
    """The ensembles' rows as the verdict makes them; the supervised classifier is left out."""
    stages = {place.name: place for place in (run / "stages").iterdir()}
    columns = ["arm", "fold", "gan_seed", "seed", "split", "image_id", "patient_id", "label", "score_well", "score_ill"]
    table = detector_table(stages, pd.DataFrame(columns=columns), ("well",))
    return with_ensembles(table, {"three": MEMBERS, "two": MEMBERS[1:]})


@pytest.mark.parametrize("name", ["three", "two"])
def test_images_of_the_run_get_the_scores_of_the_runs_ensemble(
    pictures: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    run, folder = pictures
    own = verdict_rows(run).query(f"arm == 'ensemble {name}'").set_index("image_id")
    given = tmp_path / "given"
    given.mkdir()
    for patient in own.index:
        shutil.copy(folder / f"i{patient[-2:]}.png", given)
    table = scored(run, given, tmp_path / "out", "--detector", name, "--rate", "0.2").set_index("path")
    assert len(table) == len(own) and set(table["detector"]) == {f"ensemble {name}"}
    normal = own[(own["split"] == "val") & (own["label"] == "normal")]["score"].to_numpy()
    assert len(set(normal)) > 3
    for patient, row in own.iterrows():
        found = table.loc[f"i{str(patient)[-2:]}.png"]
        assert float(found["score"]) == pytest.approx(row["score"], rel=1e-5)
        p_value = (1 + (normal >= row["score"]).sum()) / (1 + len(normal))
        assert float(found["p_value"]) == pytest.approx(p_value, rel=1e-5)
        assert found["alarm"] == str(int(p_value <= 0.2))
    assert set(table["alarm"]) == {"0", "1"}


def test_an_ensemble_has_no_maps_and_unknown_names_are_told_what_there_is(
    pictures: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder = pictures
    for more, words in (
        (("--detector", "three", "--maps"), "ensemble three does not say where"),
        (("--detector", "four"), "It has: ecod, isolation-forest, pca, three, two."),
    ):
        assert launch(["score", str(run), str(folder / "i00.png"), "--out", str(tmp_path), *more]) == 2
        assert words in capsys.readouterr().err


def test_members_that_saw_other_validation_normals_are_refused(pictures: tuple[Path, Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(pictures[0], tmp_path / "run"))
    place = run / "stages" / "detect-ecod-fold-0" / "detector.json"
    description = read_json(place)
    description["calibration"]["patient"] = description["calibration"]["patient"][::-1]
    write_json(place, description)
    with pytest.raises(DataError, match="different validation normals"):
        fitted_as_named(run, load_experiment(run / "config.yaml"), "two")


def test_ranks_of_patients_with_several_images_by_hand() -> None:
    """Patient a has images 1 and 3, b has 2, c has 5: half of a, b, the other half of a, c."""
    reference, patients = np.array([3.0, 2.0, 5.0, 1.0]), np.array(["a", "b", "c", "a"])
    found = share_below(np.array([0.5, 1.0, 1.5, 2.5, 3.5, 9.0]), reference, patients)
    np.testing.assert_allclose(found, np.array([0, 0, 0.5, 1.5, 2.0, 3.0]) / 3)
    assert share_below(np.array([1.0]), np.array([]), np.array([], dtype=str)).tolist() == [0]
    one, two, three = np.array([0.1]), np.array([0.2]), np.array([0.6])
    assert mean_rank([one, two, three]) == mean_rank([three, one, two]) == 0.3
