"""Half-arrived studies wait for a later run: told by count, and never taken for withdrawn."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from arriving import arrive, leave, one_round, sides, study
from dicom_making import write_slice
from tiny_run import TINY

from flows.cli import launch
from pipeline.config.experiment import Experiment
from pipeline.config.loading import validate_experiment
from pipeline.core.errors import DataError
from pipeline.data import ingest
from pipeline.data.batches.dataset import read_table
from pipeline.data.cohort import arriving
from pipeline.data.cohort.register import read_register

SETTLE_S = 0.1


@pytest.fixture
def settle(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Called, it lets what was written so far settle; what is written later is young at the time of the next look."""
    moment = {"now": 0.0}
    monkeypatch.setattr(arriving, "time", SimpleNamespace(time=lambda: moment["now"]))

    def wait() -> None:
        time.sleep(3 * SETTLE_S)
        moment["now"] = time.time() + SETTLE_S / 2

    return wait


def counts(split: Path) -> tuple[int, int]:
    """Images that are used, and that wait."""
    fates = read_table(split / "manifest.csv")["fate"]
    return int((fates == "used").sum()), int(fates.str.contains("still arriving").sum())


def test_young_files_wait_are_counted_and_come_with_the_next_run(tmp_path: Path, settle: Any) -> None:
    experiment = study(tmp_path, settle_seconds=SETTLE_S, max_rejected=0.0)
    arrive(tmp_path, range(30))
    settle()
    arrive(tmp_path, range(30, 40))
    split = one_round(tmp_path, experiment)
    assert counts(split) == (30, 10)
    audit = read_table(split / "audit.csv").set_index("check")
    assert audit.loc["still arriving", "count"] == "10" and audit.loc["rejected", "count"] == "0"
    first = sides(split)
    settle()
    split = one_round(tmp_path, experiment)
    assert counts(split) == (40, 0) and first.items() <= sides(split).items()
    register = (tmp_path / "register.json").read_bytes()
    assert one_round(tmp_path, experiment) != split  # it was made from the register that the round before led to
    assert (tmp_path / "register.json").read_bytes() == register


def test_a_patient_whose_image_is_written_again_has_not_withdrawn(tmp_path: Path, settle: Any) -> None:
    experiment = study(tmp_path, settle_seconds=SETTLE_S)
    arrive(tmp_path, range(30))
    settle()
    one_round(tmp_path, experiment)
    leave(tmp_path, [5])
    arrive(tmp_path, [5])
    assert counts(one_round(tmp_path, experiment)) == (29, 1)
    assert not read_register(tmp_path / "register.json").withdrawn()


def test_all_young_or_a_young_table_is_an_error(tmp_path: Path, settle: Any) -> None:
    arrive(tmp_path, range(30))
    with pytest.raises(DataError, match="all 30 images changed less than"):
        one_round(tmp_path, study(tmp_path, settle_seconds=60))
    settle()
    lines = [f"source/{p.parent.name}/{p.name},{p.parent.name},{p.stem}" for p in (tmp_path / "source").rglob("*.png")]
    (tmp_path / "table.csv").write_text("\n".join(["path,label,patient_id", *lines]))
    source = {"kind": "csv", "path": str(tmp_path / "table.csv")}
    experiment = study(tmp_path, settle_seconds=SETTLE_S, source=source)
    with pytest.raises(DataError, match=r"table\.csv: changed less than data\.settle_seconds ago"):
        one_round(tmp_path, experiment)
    settle()
    assert counts(one_round(tmp_path, experiment)) == (30, 0)


def dicom_study(root: Path, unit: str = "file") -> Experiment:
    plain = {
        "source": {"kind": "dicom", "path": str(root / "tree"), "labels": str(root / "labels.csv"), "key": "patient",
                   "unit": unit},
        "classes": ["a", "b"], "positive": ["b"], "settle_seconds": SETTLE_S,
        "spatial_dims": 3 if unit == "series" else 2,
    }  # fmt: skip
    return validate_experiment({"name": "t", "data": plain}, "t")


def slices(root: Path, patient: str, numbers: range, folder: str = "") -> None:
    random = np.random.default_rng(sum(map(ord, patient)))
    for number in numbers:
        pixels = random.integers(-900, 900, (12, 12)).astype("<i2")
        digits = int(patient[1:])
        write_slice(
            root / "tree" / folder / f"{patient}-{number}.dcm", pixels, PatientID=patient, PatientName="X",
            StudyInstanceUID=f"1.2.{digits}", SeriesInstanceUID=f"1.2.{digits}.1", InstanceNumber=number,
            ImagePositionPatient=[0, 0, 2 * number],
        )  # fmt: skip


def ingested(root: Path, experiment: Experiment) -> dict[str, list[str]]:
    out = root / f"out-{time.monotonic_ns()}"
    out.mkdir()
    record = ingest.run(ingest.settled_config(experiment), {}, out)
    rejected = read_table(out / "rejected.csv")
    waiting = rejected[rejected["reason"] == arriving.ARRIVING]
    assert record.figures.get("arriving", 0) == len(waiting)
    return {
        "read": sorted(read_table(out / "manifest.csv")["path"]),
        "waits": sorted(waiting["path"]),
        "rejected": sorted(rejected[rejected["reason"] != arriving.ARRIVING]["path"]),
    }


def test_slices_of_one_study_wait_together_in_a_flat_folder(tmp_path: Path, settle: Any) -> None:
    (tmp_path / "labels.csv").write_text("patient_id,label\np1,a\np2,b\np3,b\n")
    for patient in ("p1", "p2", "p3"):
        slices(tmp_path, patient, range(2))
    settle()
    slices(tmp_path, "p2", range(2, 3))
    found = ingested(tmp_path, dicom_study(tmp_path))
    assert found == {
        "read": ["p1-0.dcm", "p1-1.dcm", "p3-0.dcm", "p3-1.dcm"],
        "waits": ["p2-0.dcm", "p2-1.dcm", "p2-2.dcm"],
        "rejected": [],
    }


def test_a_half_written_slice_holds_its_folder_back_and_is_not_rejected(tmp_path: Path, settle: Any) -> None:
    (tmp_path / "labels.csv").write_text("patient_id,label\np1,a\np2,b\np3,b\n")
    for patient in ("p1", "p2", "p3"):
        slices(tmp_path, patient, range(2), patient)
    settle()
    whole = (tmp_path / "tree" / "p2" / "p2-1.dcm").read_bytes()
    (tmp_path / "tree" / "p2" / "p2-2.dcm").write_bytes(whole[:200])
    (tmp_path / "tree" / "p2" / "p2-3.dcm").write_bytes(b"")
    found = ingested(tmp_path, dicom_study(tmp_path))
    assert found["read"] == ["p1/p1-0.dcm", "p1/p1-1.dcm", "p3/p3-0.dcm", "p3/p3-1.dcm"]
    assert found["waits"][:2] == ["p2/p2-0.dcm", "p2/p2-1.dcm"] and not found["rejected"]
    assert ingest.settled_config(dicom_study(tmp_path)).young == ("p2/p2-2.dcm", "p2/p2-3.dcm")


def test_a_volume_whose_last_slices_are_missing_waits(tmp_path: Path, settle: Any) -> None:
    (tmp_path / "labels.csv").write_text("patient_id,label\np1,a\np2,b\np3,b\n")
    for patient in ("p1", "p2", "p3"):
        slices(tmp_path, patient, range(9), patient)
    settle()
    slices(tmp_path, "p2", range(9, 10), "p2")
    found = ingested(tmp_path, dicom_study(tmp_path, "series"))
    assert found == {"read": ["p1", "p3"], "waits": ["p2"], "rejected": []}


def test_nothing_waits_unless_asked_for(tmp_path: Path) -> None:
    arrive(tmp_path, range(30))
    assert counts(one_round(tmp_path, study(tmp_path))) == (30, 0)
    assert ingest.settled_config(study(tmp_path)).young == ()


@pytest.mark.slow
def test_runs_on_a_folder_that_grows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a schedule fires them: an unchanged folder ends at once, a changed one is run, and nobody moves."""
    (tmp_path / "study.yaml").write_text(
        "data:\n  source: {kind: folders, path: source, patient_pattern: '(p\\d+)'}\n  classes: [a, b]\n"
        "  positive: [b]\n  patient_register: register.json\n"
    )
    overrides = [word for one in TINY for word in ("--set", one)]
    run = tmp_path / "runs" / "study"
    command = ["run", str(tmp_path / "study.yaml"), "--out", str(run), "--engine", "direct", *overrides]
    arrive(tmp_path, range(60))
    assert launch(command) == 0 and "Nothing has changed" not in capsys.readouterr().err
    first = sides(run / "stages" / "split")
    assert launch(command) == 0
    assert "Nothing has changed" in "".join(capsys.readouterr())
    arrive(tmp_path, range(60, 90))
    leave(tmp_path, [7])
    assert launch(command) == 0
    said = "".join(capsys.readouterr())
    assert "Nothing has changed" not in said and "1 patient(s) are no longer in the source" in said
    assert "were looked at before" in said
    now = sides(run / "stages" / "split")
    assert {key: side for key, side in first.items() if key[1] != "p007"}.items() <= now.items() and len(now) == 89
