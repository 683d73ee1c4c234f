"""Single DICOM slices scored by a run: their place in the patient, their modality and their unit."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from dicom_making import write_slice
from scored_run import finished, scored, table_of

from pipeline.data.writers import write_nifti

PLACE = {"PixelSpacing": [2, 1.5], "ImagePositionPatient": [-20, 35, 100]}
SPOT = (7, 14)


def ct(seed: int, *, spot: bool = False) -> np.ndarray:
    """[24, 20] HU without air: a crop inside the body."""
    random = np.random.default_rng(seed)
    image = np.linspace(-60, 80, 24)[:, None] + random.normal(0, 6, (24, 20))
    if spot:
        row, column = SPOT
        image[row - 2 : row + 3, column - 2 : column + 3] += 150
    return np.rint(image).astype("<i2")


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rows = tmp_path_factory.mktemp("slices"), []
    for number in range(24):
        write_slice(folder / f"s{number}.dcm", ct(number, spot=number % 4 == 0), PatientID=f"p{number}", **PLACE)
        rows.append((f"s{number}.dcm", "well" if number % 4 else "ill", f"p{number}"))
    data = {"source": table_of(folder, rows), "spatial_size": 16, "window": [-150, 250]}
    return finished(folder, data)


def test_the_map_of_a_slice_lies_where_its_header_says(slices: Path, tmp_path: Path) -> None:
    write_slice(tmp_path / "new.dcm", ct(99, spot=True), **PLACE)
    table = scored(slices, tmp_path / "new.dcm", tmp_path / "out", "--maps")
    found = nib.load(tmp_path / "out" / "maps" / "new.nii.gz")
    values = np.asarray(found.dataobj)
    assert values.shape == (20, 24, 1)  # columns, rows
    brightest = found.affine @ [*np.unravel_index(values.argmax(), values.shape), 1]
    (row, column), (x, y, z) = SPOT, PLACE["ImagePositionPatient"]
    planted = np.array([-(x + 1.5 * column), -(y + 2 * row), z])  # RAS mm
    # two pixels of the spot to each side, and one prepared pixel of 3 mm
    assert (np.abs(brightest[:3] - planted) <= [2 * 1.5 + 3, 2 * 2 + 3, 0.01]).all(), (brightest, planted)
    inside = scored(slices, tmp_path / "new.dcm", tmp_path / "again")["score"]
    assert inside.tolist() == table["score"].tolist()


def test_another_modality_and_unstated_units_are_refused(slices: Path, tmp_path: Path) -> None:
    """A NIfTI file states no unit: without air it is not taken for HU, unless the table says that it is CT."""
    given = tmp_path / "given"
    write_slice(
        given / "chest.dcm", ct(5).clip(0).astype("<u2"), Modality="DX", SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1"
    )
    write_slice(given / "slice.dcm", ct(6), **PLACE)
    as_displayed = np.array([[0, -1.5, 0, 20], [-2, 0, 0, -35], [0, 0, 1, 100], [0, 0, 0, 1]])
    write_nifti(given / "slice.nii.gz", ct(6), as_displayed)
    assert scored(slices, given, tmp_path / "a")["path"].tolist() == ["slice.dcm"]
    reasons = pd.read_csv(tmp_path / "a" / "refused.csv").set_index("path")["reason"]
    assert reasons["chest.dcm"].startswith("modality DX: the run's images are CT")
    assert "the run's images hold HU" in reasons["slice.nii.gz"] and "a column modality" in reasons["slice.nii.gz"]
    (given / "all.csv").write_text("path,modality\nslice.dcm,CT\nslice.nii.gz,CT\n", encoding="utf-8")
    table = scored(slices, given / "all.csv", tmp_path / "b")
    assert table["path"].tolist() == ["slice.dcm", "slice.nii.gz"] and table["score"].nunique() == 1


def test_a_crop_around_a_point_takes_it_from_the_table(tmp_path: Path) -> None:
    """Points are LPS mm, under the run's own names; an image without one is refused."""
    rows = []
    for number in range(24):
        write_slice(tmp_path / f"s{number}.dcm", ct(number, spot=number % 4 == 0), PatientID=f"p{number}", **PLACE)
        point = (-20 + 1.5 * (5 + number % 9), 35 + 2.0 * (5 + number % 7))
        rows.append((f"s{number}.dcm", "well" if number % 4 else "ill", f"p{number}", *point))
    pd.DataFrame(rows, columns=["path", "label", "patient_id", "x", "y"]).to_csv(tmp_path / "t.csv", index=False)
    source = {"kind": "csv", "path": str(tmp_path / "t.csv"), "columns": {"point": ["x", "y"]}}
    crop = {"around": "point", "size_mm": 16.0}
    run = finished(tmp_path, {"source": source, "spatial_size": 8, "window": [-150, 250], "crop": crop})
    own = pd.read_csv(run / "stages" / "detect-pca-fold-0" / "anomaly.csv", dtype=str).set_index("image_id")
    table = scored(run, tmp_path / "t.csv", tmp_path / "out").set_index("path")["score"]
    assert all(table[f"{name}.dcm"] == score for name, score in own["anomaly_score"].items())
    refused = scored(run, tmp_path / "s0.dcm", tmp_path / "none", code=2)
    assert "has no point" in refused["reason"][0]
