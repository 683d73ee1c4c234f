"""What a cohort's numbers mean: stated by the file, told by the user or guessed, and the same for every image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from dicom_making import smooth_volume, write_slice, write_volume
from PIL import Image

from pipeline.config.loading import validate_experiment
from pipeline.core.errors import ConfigError, DataError
from pipeline.core.records import Record
from pipeline.data import ingest
from pipeline.data.batches.dataset import read_table

AIR, SOFT = (-1000, 1000), (-150, 250)


def ingested(root: Path, source: dict[str, Any], dims: int, **more: Any) -> tuple[pd.DataFrame, pd.DataFrame, Record]:
    """Manifest, audit and record of a source with classes a and b."""
    data = {"classes": ["a", "b"], "positive": ["b"], "spatial_dims": dims, "source": source} | more
    out = root / "ingested"
    out.mkdir(exist_ok=True)
    config = ingest.ingest_config(validate_experiment({"name": "t", "data": data}, "t"))
    record = ingest.run(config, {}, out)
    return read_table(out / "manifest.csv"), read_table(out / "audit.csv").set_index("check"), record


def table(root: Path, names: list[str], column: str = "", values: list[str] | None = None) -> dict[str, Any]:
    lines = [f"path,label,patient_id{column and f',{column}'}"]
    for number, name in enumerate(names):
        lines.append(f"{name},{'ab'[number % 2]},{number + 1}" + (f",{values[number]}" if values else ""))
    (root / "t.csv").write_text("\n".join(lines) + "\n")
    return {"kind": "csv", "path": "t.csv"}


def volumes(root: Path, ranges: list[tuple[int, int]]) -> list[str]:
    names = []
    for number, (low, high) in enumerate(ranges):
        array = np.random.default_rng(number).integers(low, high, (9, 9, 9)).astype(np.int16)
        nib.save(nib.Nifti1Image(array, np.diag([1, 1, 2, 1.0])), root / f"v{number}.nii.gz")
        names.append(f"v{number}.nii.gz")
    return names


def test_guess_that_leans_on_air_is_said_and_one_without_air_is_a_warning(root: Path) -> None:
    manifest, audit, record = ingested(root, table(root, volumes(root, [AIR] * 4)), 3)
    assert set(manifest["values"]) == {"HU"}
    assert audit.loc["unit guessed: HU", ["severity", "count"]].tolist() == ["info", "4"]
    manifest, audit, record = ingested(root, table(root, volumes(root, [SOFT] * 4)), 3)
    assert set(manifest["values"]) == {"other"}
    assert audit.loc["unit guessed: none", ["severity", "count"]].tolist() == ["warning", "4"]
    assert any("v0.nii.gz" in note and "data.source.unit_of_values" in note for note in record.notes)
    assert not {"unit_from", "sides_known"} & set(manifest)


def test_user_tells_the_unit_for_all_or_image_by_image(root: Path) -> None:
    names = volumes(root, [SOFT, AIR, SOFT, AIR])
    for source in (table(root, names) | {"unit_of_values": "HU"}, table(root, names, "modality", ["ct", "CT "] * 2)):
        manifest, audit, _ = ingested(root, source, 3)
        assert set(manifest["values"]) == {"HU"}
        assert not audit.index.str.startswith("unit guessed").any()
        assert "v0.nii.gz, v2.nii.gz" in audit.loc["CT without air", "detail"]
    assert set(manifest["modality"]) == {"CT"}
    for source in (table(root, names) | {"unit_of_values": "none"}, table(root, names, "modality", ["DX"] * 4)):
        assert set(ingested(root, source, 3)[0]["values"]) == {"other"}


def test_files_in_hu_among_others_are_named(root: Path) -> None:
    names = volumes(root, [AIR, AIR, AIR, SOFT])
    with pytest.raises(
        DataError, match=r"3 images are in HU and 1 are not; not in HU are v3\.nii\.gz\..*unit_of_values"
    ):
        ingested(root, table(root, names), 3)


def test_reasons_that_differ_in_figures_and_names_alone_are_counted_as_one(root: Path) -> None:
    names = []
    for number in range(6):
        write_slice(root / f"c{number}.dcm", np.arange(16, dtype="<i2").reshape(4, 4), PixelData=bytes(2 * number + 2))
        names.append(f"c{number}.dcm")
    with pytest.raises(DataError, match=r"Reasons: 6 x the pixel data is cut short \(2 of 32 bytes\)"):
        ingested(root, table(root, names), 2)


def test_slices_that_a_reason_names_are_listed_for_the_shareable_report(root: Path) -> None:
    for number in range(4):
        write_volume(root / f"case{number}", smooth_volume(4, number), PatientID=str(number))
    (root / "case3" / "s002.dcm").rename(root / "case3" / "DOE_JANE.dcm")
    (root / "case3" / "DOE_JANE.dcm").write_bytes((root / "case3" / "DOE_JANE.dcm").read_bytes()[:-20])
    _, audit, _ = ingested(root, table(root, [f"case{number}" for number in range(4)]), 3, max_rejected=0.5)
    rejected = read_table(root / "ingested" / "rejected.csv")
    assert "slice DOE_JANE.dcm: the pixel data is cut short" in rejected["reason"].iloc[0]
    assert list(rejected["files"]) == ["DOE_JANE.dcm"]
    assert "The first is case3: slice DOE_JANE.dcm" in audit.loc["rejected", "detail"]


def test_dicom_ct_among_grey_pictures_is_named(root: Path) -> None:
    names = []
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (12, 12), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"p{number}.png")
        names.append(f"p{number}.png")
    write_slice(root / "ct.dcm", np.random.default_rng(9).integers(-1000, 900, (12, 12)).astype("<i2"), PatientID="4")
    with pytest.raises(DataError, match=r"1 images are in HU and 3 are not; in HU are ct\.dcm\."):
        ingested(root, table(root, [*names, "ct.dcm"]), 2)


def test_unit_that_the_values_cannot_have_rejects_them_by_name(root: Path) -> None:
    names = volumes(root, [AIR] * 3)
    shifted = np.random.default_rng(5).integers(0, 1000, (9, 9, 9)).astype(np.uint16) + 60000
    nib.save(nib.Nifti1Image(shifted, np.diag([1, 1, 2, 1.0])), root / "signs.nii")
    with pytest.raises(DataError, match=r"1 of 4 images.*impossible as Hounsfield units.*signs\.nii"):
        ingested(root, table(root, [*names, "signs.nii"]) | {"unit_of_values": "HU"}, 3)
    for number in range(2):
        Image.fromarray(np.arange(144, dtype=np.uint8).reshape(12, 12) + number).save(root / f"p{number}.png")
    with pytest.raises(DataError, match="a PNG or JPEG holds no negative numbers"):
        ingested(root, table(root, ["p0.png", "p1.png"]) | {"unit_of_values": "HU"}, 2)


def test_arrays_and_folders_take_the_key_too(root: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(4):
        place = root / "tree" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        np.save(place / f"{number}.npy", random.integers(-150, 250, (12, 12)).astype(np.int16))
    source = {"kind": "folders", "path": "tree"}
    assert set(ingested(root, source, 2)[0]["values"]) == {"other"}
    assert set(ingested(root, source | {"unit_of_values": "HU"}, 2)[0]["values"]) == {"HU"}
    arrays = {"train_images": random.integers(-900, 900, (6, 9, 9)), "train_labels": [[0], [1]] * 3}
    np.savez(root / "m.npz", **arrays)
    source = {"kind": "npz", "path": "m.npz", "unit_of_values": "HU"}
    assert set(ingested(root, source, 2)[0]["values"]) == {"HU"}
    with pytest.raises(ConfigError, match="unit_of_values"):
        validate_experiment({"name": "t", "data": {"source": {"kind": "phantom", "unit_of_values": "HU"}}}, "t")


@pytest.mark.parametrize(("airless", "severity"), [({2}, "warning"), ({0, 2}, "warning"), ({0, 1, 2}, "info")])
def test_ct_files_without_air_are_named_where_most_others_have_some(
    root: Path, airless: set[int], severity: str
) -> None:
    """Where most have none, as around a lesion, the few that show a piece of lung are no news."""
    names = []
    for number in range(4):
        low, high = (0, 255) if number in airless else AIR
        pixels = np.random.default_rng(number).integers(low, high, (12, 12)).astype("<i2")
        write_slice(root / f"c{number}.dcm", pixels, PatientID=str(number + 1))
        names.append(f"c{number}.dcm")
    _, audit, record = ingested(root, table(root, names), 2)
    assert audit.loc["CT without air", ["severity", "count"]].tolist() == [severity, str(len(airless))]
    told = [note for note in record.notes if f"{len(airless)} of 4 CT images" in note and "c2.dcm" in note]
    assert len(told) == (severity == "warning")


def test_volumes_that_do_not_say_left_from_right_are_named(root: Path) -> None:
    names = volumes(root, [AIR] * 3)
    image = nib.Nifti1Image(np.random.default_rng(8).integers(*AIR, (9, 9, 9)).astype(np.int16), None)
    image.header["pixdim"][1:4] = [1, 1, 2]
    (root / "sideless.nii").write_bytes(image.to_bytes())
    _, audit, _ = ingested(root, table(root, [*names, "sideless.nii"]), 3)
    assert audit.loc["volumes without left and right", ["severity", "count"]].tolist() == ["warning", "1"]
    assert "sideless.nii" in audit.loc["volumes without left and right", "detail"]


def test_grey_levels_of_two_depths_are_named(root: Path) -> None:
    names = []
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (12, 12))
        deep = number in (1, 3)
        Image.fromarray((pixels * 200).astype(np.uint16) if deep else pixels.astype(np.uint8)).save(
            root / f"p{number}.png"
        )
        names.append(f"p{number}.png")
    _, audit, _ = ingested(root, table(root, names), 2)
    assert audit.loc["grey levels of two depths", ["severity", "count"]].tolist() == ["warning", "2"]
    assert "p1.png, p3.png" in audit.loc["grey levels of two depths", "detail"]
    _, audit, _ = ingested(root, table(root, ["p1.png", "p3.png"]), 2)
    assert "grey levels of two depths" not in audit.index
