"""Patients who arrive later move nobody; patients who go are told; a register that cannot be trusted is refused."""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
from arriving import arrive, leave, one_round, sides, study
from ingesting import png

from pipeline.core.errors import DataError, LeakageError, RefusedError, UserError
from pipeline.core.files import digest_json
from pipeline.data.batches.dataset import read_table
from pipeline.data.cohort.register import read_register


def entry(root: Path, patient: str) -> dict[str, object]:
    return dict(json.loads((root / "register.json").read_text())["patients"][patient])


@pytest.mark.parametrize("kind", ["holdout", "kfold"])
def test_patients_of_three_rounds_keep_their_sides(tmp_path: Path, kind: str) -> None:
    experiment = study(tmp_path, kind)
    before: dict[tuple[str, str], str] = {}
    for first, last in ((0, 40), (40, 75), (75, 130)):
        arrive(tmp_path, range(first, last))
        found = sides(one_round(tmp_path, experiment))
        assert before.items() <= found.items()
        before = found
    assert len({patient for _, patient in before}) == 130
    for fold in {fold for fold, _ in before}:
        counts = Counter(side for (number, _), side in before.items() if number == fold)
        wanted = {"train": 65, "val": 26, "test": 39} if kind == "holdout" else {"val": 26, "test": 130 / 3}
        assert all(counts[side] == pytest.approx(number, abs=4) for side, number in wanted.items())
    assert [line["new"] for line in read_register(tmp_path / "register.json").history] == [40, 35, 55]


def test_without_a_register_patients_do_move(tmp_path: Path) -> None:
    """What the register is for: otherwise the test above could not fail."""
    experiment = study(tmp_path, patient_register=None)
    arrive(tmp_path, range(40))
    before = sides(one_round(tmp_path, experiment))
    arrive(tmp_path, range(40, 75))
    assert not before.items() <= sides(one_round(tmp_path, experiment)).items()


@pytest.mark.parametrize("draws", [1, 3])
def test_low_data_draws_and_validation_cuts_keep_their_images(tmp_path: Path, draws: int) -> None:
    experiment = study(tmp_path, split={"kind": "holdout", "draws": draws}, train_per_class=4)
    before: set[tuple[str, ...]] = set()
    for image, last in enumerate((60, 90, 130)):
        arrive(tmp_path, range(last), image)  # old patients have new images too
        table = read_table(one_round(tmp_path, experiment) / "splits.csv")
        found = set(table[table["split"] != "unused"].itertuples(index=False, name=None))
        assert before <= {row for row in found if row[2] != "test"}
        before = {row for row in found if row[2] != "test"}
        assert Counter(row[2] for row in before if row[0] == "0") == {"train": 8, "val": 8}


def test_a_run_that_follows_finds_its_split_in_the_cache(tmp_path: Path) -> None:
    experiment = study(tmp_path)
    arrive(tmp_path, range(30))
    first = one_round(tmp_path, experiment)
    register = (tmp_path / "register.json").read_bytes()
    stages = sorted(path.name for path in (tmp_path / "cache").glob("split-*"))
    assert sides(one_round(tmp_path, experiment)) == sides(first)
    assert sorted(path.name for path in (tmp_path / "cache").glob("split-*")) == stages
    assert (tmp_path / "register.json").read_bytes() == register


def test_killed_between_split_and_register_nothing_is_lost(tmp_path: Path) -> None:
    experiment = study(tmp_path)
    arrive(tmp_path, range(30))
    split = one_round(tmp_path, experiment, killed=True)
    assert not (tmp_path / "register.json").exists()
    assert sides(one_round(tmp_path, experiment)) == sides(split)
    arrive(tmp_path, range(30, 60))
    split = one_round(tmp_path, experiment, killed=True)
    assert len(read_register(tmp_path / "register.json").patients) == 30
    assert sides(one_round(tmp_path, experiment)) == sides(split)
    assert len(read_register(tmp_path / "register.json").patients) == 60


def test_a_split_that_fails_enrols_nobody(tmp_path: Path) -> None:
    arrive(tmp_path, range(4))
    with pytest.raises(DataError, match="too few patients"):
        one_round(tmp_path, study(tmp_path))
    assert not (tmp_path / "register.json").exists()


def test_a_register_that_another_run_changed_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    experiment = study(tmp_path)
    arrive(tmp_path, range(30))
    split = one_round(tmp_path, experiment, killed=True)
    arrive(tmp_path, range(30, 60))
    one_round(tmp_path, experiment)
    from flows.enrolment import enrol
    from flows.plan import plan_experiment
    from pipeline.core.cache import Execution
    from pipeline.core.records import load_record

    late = Execution(split, load_record(split), cached=False)
    with pytest.raises(UserError, match="another run has changed the register"):
        enrol(experiment, plan_experiment(experiment)[1], late, {}, tmp_path / "cache")
    assert len(read_register(tmp_path / "register.json").patients) == 60


def test_withdrawn_patients_are_told_and_come_back_to_their_side(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = study(tmp_path)
    arrive(tmp_path, range(40))
    first = sides(one_round(tmp_path, experiment))
    leave(tmp_path, [3, 4])
    split = one_round(tmp_path, experiment)
    audit = read_table(split / "audit.csv").set_index("check")
    assert tuple(audit.loc["withdrawn patients", ["severity", "count"]]) == ("warning", "2")
    assert "2 patient(s) are no longer in the source" in caplog.text and "p003" not in caplog.text
    assert read_register(tmp_path / "register.json").withdrawn() == {"p003", "p004"}
    assert sides(split).items() <= first.items()
    arrive(tmp_path, [3])
    assert sides(one_round(tmp_path, experiment))["0", "p003"] == first["0", "p003"]
    assert read_register(tmp_path / "register.json").withdrawn() == {"p004"}


def test_a_patient_whose_image_cannot_be_read_has_not_withdrawn(tmp_path: Path) -> None:
    experiment = study(tmp_path)
    arrive(tmp_path, range(40))
    first = sides(one_round(tmp_path, experiment))
    (tmp_path / "source" / "b" / "p003_0.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    split = one_round(tmp_path, experiment)
    assert sides(split).items() < first.items()
    assert not read_register(tmp_path / "register.json").withdrawn()


@pytest.mark.parametrize("how", ["empty", "gone", "half"])
def test_a_source_that_is_not_mounted_withdraws_nobody(tmp_path: Path, how: str) -> None:
    experiment = study(tmp_path)
    arrive(tmp_path, range(40))
    one_round(tmp_path, experiment)
    register = (tmp_path / "register.json").read_bytes()
    shutil.rmtree(tmp_path / "source")
    if how == "empty":
        (tmp_path / "source").mkdir()
    if how == "half":
        arrive(tmp_path, range(20))
    with pytest.raises(DataError, match="20 of 40 patients are gone" if how == "half" else "source"):
        one_round(tmp_path, experiment)
    assert (tmp_path / "register.json").read_bytes() == register
    if how == "half":
        one_round(tmp_path, study(tmp_path, max_withdrawn=0.5))
        assert len(read_register(tmp_path / "register.json").withdrawn()) == 20


@pytest.mark.parametrize("hand", ["side", "byte", "cut", "version"])
def test_a_register_that_was_tampered_with_is_refused(tmp_path: Path, hand: str) -> None:
    experiment = study(tmp_path)
    arrive(tmp_path, range(30))
    one_round(tmp_path, experiment)
    place = tmp_path / "register.json"
    content = json.loads(place.read_text())
    if hand == "side":
        content["patients"]["p003"]["sides"] = ["train" if entry(tmp_path, "p003")["sides"] != ["train"] else "test"]
    if hand == "version":
        content["version"] = 99
    if hand in ("side", "version"):
        place.write_text(json.dumps(content))
    else:
        place.write_bytes(place.read_bytes()[:-40] if hand == "cut" else place.read_bytes() + b"}")
    with pytest.raises(RefusedError, match=r"register\.json"):
        one_round(tmp_path, experiment)


def test_the_register_of_another_study_is_refused(tmp_path: Path) -> None:
    arrive(tmp_path, range(30))
    one_round(tmp_path, study(tmp_path))
    with pytest.raises(RefusedError, match="of another study: split holdout, folds 1; here split kfold, folds 3"):
        one_round(tmp_path, study(tmp_path, "kfold"))
    other = tmp_path / "other"
    for number in range(30):  # the same numbers are other people
        png(other / "source" / "ab"[number % 2] / f"ward_p{number:03d}.png", number)
    shutil.copy(tmp_path / "register.json", other)
    with pytest.raises(RefusedError, match="none of the images of its 30 patients"):
        one_round(other, study(other))
    shutil.rmtree(other / "source")
    arrive(other, range(100, 130))
    with pytest.raises(RefusedError, match="none of its 30 patients"):
        one_round(other, study(other))


def test_a_register_that_is_gone_is_not_begun_anew(tmp_path: Path) -> None:
    experiment = study(tmp_path)
    arrive(tmp_path, range(30))
    split = one_round(tmp_path, experiment)
    (tmp_path / "register.json").unlink()
    with pytest.raises(RefusedError, match=r"stages/split/register\.json"):
        one_round(tmp_path, experiment)
    shutil.copy(split / "register.json", tmp_path)
    assert sides(one_round(tmp_path, experiment)) == sides(split)


def test_a_register_needs_patient_ids_in_one_spelling(tmp_path: Path) -> None:
    arrive(tmp_path, range(30))
    source = {"kind": "folders", "path": str(tmp_path / "source")}
    with pytest.raises(DataError, match="30 of 30 images have no patient id"):
        one_round(tmp_path, study(tmp_path, source=source))
    one_round(tmp_path, study(tmp_path))
    (tmp_path / "source" / "b" / "p003_0.png").rename(tmp_path / "source" / "b" / "p3_0.png")
    with pytest.raises(DataError, match="differ from the register's only in leading zeros"):
        one_round(tmp_path, study(tmp_path))


def test_a_split_column_may_not_move_a_known_patient(tmp_path: Path) -> None:
    def table(moved: str = "") -> None:
        lines = ["path,label,patient_id,split"]
        for path in sorted((tmp_path / "source").rglob("*.png")):
            number = int(path.name[1:4])
            side = "test" if number % 3 == 0 or path.name[:4] == moved else "train"
            lines.append(f"{path.relative_to(tmp_path)},{path.parent.name},{path.name[:4]},{side}")
        (tmp_path / "table.csv").write_text("\n".join(lines))

    experiment = study(tmp_path, "column", source={"kind": "csv", "path": str(tmp_path / "table.csv")})
    arrive(tmp_path, range(40))
    table()
    first = sides(one_round(tmp_path, experiment))
    arrive(tmp_path, range(40, 90))
    table()
    assert first.items() <= sides(one_round(tmp_path, experiment)).items()  # the cut of val, too
    table(moved="p001")
    with pytest.raises(LeakageError, match="1 patient"):
        one_round(tmp_path, experiment)


def test_a_register_holds_no_more_than_ids_and_digests(tmp_path: Path) -> None:
    arrive(tmp_path, range(30))
    one_round(tmp_path, study(tmp_path))
    content = json.loads((tmp_path / "register.json").read_text())
    assert set(content) == {"version", "study", "round", "patients", "history", "packs", "digest"}
    assert content["digest"] == digest_json({name: value for name, value in content.items() if name != "digest"})
    assert set(entry(tmp_path, "p003")) == {"sides", "images", "withdrawn"}
    assert "png" not in (tmp_path / "register.json").read_text()


@pytest.mark.slow
def test_sigkill_at_any_moment_moves_nobody(tmp_path: Path) -> None:
    """A second round is killed 20 times at random moments of it, and then made: all are where they would have been."""
    arrive(tmp_path, range(40))
    first = sides(one_round(tmp_path, study(tmp_path)))
    arrive(tmp_path, range(40, 75))
    shutil.copytree(tmp_path, tmp_path / "undisturbed")
    undisturbed = study(tmp_path, patient_register=str(tmp_path / "undisturbed" / "register.json"))
    began = time.monotonic()
    wanted = sides(one_round(tmp_path / "undisturbed", undisturbed))
    took, moments, killed = time.monotonic() - began, random.Random(0), 0
    before = [(tmp_path / "register.json").read_bytes(), sorted((tmp_path / "cache").rglob("*"))]
    for _ in range(20):
        child = multiprocessing.get_context("fork").Process(target=one_round, args=(tmp_path, study(tmp_path)))
        child.start()
        child.join(moments.random() * took)
        child.kill()
        child.join()
        killed += child.exitcode == -9
        names = set(read_register(tmp_path / "register.json").patients)  # whole at any moment
        assert names in ({patient for _, patient in first}, {patient for _, patient in wanted})
        if len(names) == 75:  # back to before the round
            (tmp_path / "register.json").write_bytes(before[0])
            for path in set((tmp_path / "cache").glob("*")) - set(before[1]):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert killed >= 10 and first.items() <= wanted.items()
    assert sides(one_round(tmp_path, study(tmp_path))) == wanted
