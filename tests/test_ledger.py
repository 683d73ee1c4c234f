"""The ledger: a run is one look, whoever was seen before is known again, and earlier decisions stand."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path

import pandas as pd
import pytest

from flows.ledger import UNFINISHED, Ledger, Look, begin_look, finish_look, note_readers, read_ledger, settings_of
from flows.standing import Standing, ledger_table, looks_json, standings
from pipeline.config.experiment import Experiment
from pipeline.config.loading import validate_experiment
from pipeline.core.errors import UserError
from pipeline.core.files import digest_text

Sides = dict[str, dict[str, list[str]]]
"""Side -> patient -> pixels of its images."""


def experiment(name: str = "study", seed: int = 0) -> Experiment:
    source = {"kind": "csv", "path": "labels.csv"}
    return validate_experiment(
        {"name": name, "seed": seed, "data": {"source": source, "classes": ["a", "b"], "positive": ["b"]}}, "t"
    )


def split_of(root: Path, **sides: dict[str, list[str]]) -> Path:
    """A split stage's directory with these patients on these sides."""
    rows = [
        (f"{side}-{patient}-{place}", patient, pixels, side)
        for side, patients in sides.items()
        for patient, images in patients.items()
        for place, pixels in enumerate(images)
    ]
    table = pd.DataFrame(rows, columns=["image_id", "patient_id", "pixel_digest", "split"])
    root.mkdir(parents=True, exist_ok=True)
    table.to_csv(root / "manifest.csv", index=False)
    table[["image_id", "split"]].assign(fold="0").to_csv(root / "splits.csv", index=False)
    return root


def pixels(prefix: str, name: str, place: int) -> str:
    return digest_text(f"{prefix} {name} {place}")


def people(*names: str, images: int = 2, prefix: str = "px") -> dict[str, list[str]]:
    return {name: [pixels(prefix, name, place) for place in range(images)] for name in names}


def looked(
    cache: Path, split: Path, config: Experiment, result: str, utility: str = "inconclusive"
) -> tuple[Standing, list[Standing]]:
    """A finished run: its look at the test set, and all of them."""

    def look(when: str, sets: dict[str, str]) -> Look:
        return Look(when, config.name, "run", settings_of(config), f"f-{result}", result, utility, "not_audited", sets)

    begin_look(cache, split, config, "run", settings_of(config))
    found = standings(*finish_look(cache, split, config, look))
    return found[0], found


def test_a_run_is_one_look_and_the_same_result_is_no_further_one(tmp_path: Path) -> None:
    split = split_of(tmp_path / "s", test=people("P-anna", "P-bert"), external=people("E-1x", prefix="ext"))
    first, both = looked(tmp_path / "cache", split, experiment(), "r1")
    assert [one.number for one in both] == [1, 1] and [one.side for one in both] == ["test", "external"]
    assert first.sentences() == []
    again, _ = looked(tmp_path / "cache", split, experiment("renamed"), "r1")
    assert again.number == 1 and len(read_ledger(tmp_path / "cache").looks) == 1


def test_from_the_second_look_on_the_earlier_decisions_are_told(tmp_path: Path) -> None:
    cache, split = tmp_path / "cache", split_of(tmp_path / "s", test=people("P-anna", "P-bert"))
    looked(cache, split, experiment("one"), "r1", "helps")
    looked(cache, split, experiment("two", seed=1), "r2", "no_benefit")
    third, found = looked(cache, split, experiment("three", seed=2), "r3")
    day = read_ledger(cache).looks[0].when[:10]
    assert third.sentences() == [
        "This is look 3 at these test patients; earlier looks decided: helps, release not audited "
        f"(one, {day}); no benefit, release not audited (two, {day}). What is chosen after several looks is too good: "
        "confirm it on patients who were never looked at."
    ]
    facts = looks_json(found)
    assert facts["look"] == 3 and facts["sentences"] == third.sentences()
    told = [{name: one[name] for name in ("run", "utility", "fingerprint")} for one in facts["sets"][0]["earlier"]]
    assert told == [
        {"run": "one", "utility": "helps", "fingerprint": "f-r1"},
        {"run": "two", "utility": "no_benefit", "fingerprint": "f-r2"},
    ]
    table = ledger_table(found)
    assert table["look"].tolist() == ["1", "2", "3"] and table["shared"].tolist() == ["2 of 2"] * 3
    first, _ = looked(cache, split, experiment("one"), "r1", "helps")  # from the cache once more
    assert first.number == 1
    assert first.sentences()[0].startswith("These test patients were looked at 2 times since this look")


def test_images_that_people_saw_were_looked_at(tmp_path: Path) -> None:
    cache, split = tmp_path / "cache", split_of(tmp_path / "s", test=people("P-anna", "P-bert", "P-carl"))
    shown = ["test-P-anna-0", "test-P-bert-0", "test-P-bert-1"]
    assert [note_readers(cache, split, experiment("one"), "study-1", shown) for _ in range(2)] == [2, 2]
    found, _ = looked(cache, split, experiment("two"), "r2")
    day = read_ledger(cache).looks[0].when[:10]
    told = (
        "This is look 2 at test patients of whom 2 of 3 were looked at before; earlier looks decided: shown to readers"
    )
    assert found.sentences()[0].startswith(f"{told} (readers one, {day}).")


@pytest.mark.parametrize(
    ("then", "again", "by_id"),
    [
        (people("P-anna", "P-bert", images=3), 2, 0),  # one image more
        (people("P-anna", "P-bert", images=1), 2, 0),  # one image less
        (people("P-bert", "P-carl", "P-dora"), 1, 0),  # another division of the patients
        (people("P-anna", "P-carl", prefix="other"), 1, 1),  # other images of a patient
        (people("P-carl", "P-dora"), 0, 0),  # nobody of them
        ({"P-renamed": [pixels("px", "P-anna", 1)]}, 1, 0),  # the same image under another name
    ],
)
def test_overlapping_test_sets_are_seen(tmp_path: Path, then: dict[str, list[str]], again: int, by_id: int) -> None:
    cache = tmp_path / "cache"
    looked(cache, split_of(tmp_path / "a", test=people("P-anna", "P-bert")), experiment("one"), "r1", "helps")
    found, _ = looked(cache, split_of(tmp_path / "b", test=then), experiment("two"), "r2")
    assert (found.again, found.by_id, found.number) == (again, by_id, 2 if again else 1)
    said = " ".join(found.sentences())
    if 0 < again < len(then):
        assert f"look 2 at test patients of whom {again} of {len(then)} were looked at before" in said
    assert ("helps, release not audited (one" in said) == bool(again)
    assert ("by their patient id alone" in said) == bool(by_id)
    text = (cache / "ledger.json").read_text()
    assert not any(name in text for name in ("anna", "bert", "carl", "dora"))


def test_numbers_and_simulated_names_tell_nobody(tmp_path: Path) -> None:
    """Patient 7 of one hospital is not patient 7 of another; every simulated cohort has the same names."""
    cache = tmp_path / "cache"
    looked(cache, split_of(tmp_path / "a", test=people("7", "0012")), experiment("one"), "r1")
    found, _ = looked(
        cache, split_of(tmp_path / "b", test=people("7", "0012", prefix="other")), experiment("two"), "r2"
    )
    assert found.number == 1
    phantoms = validate_experiment(
        {
            "name": "p",
            "data": {"source": {"kind": "phantom"}, "classes": ["cyst", "metastasis"], "positive": ["metastasis"]},
        },
        "t",
    )
    looked(cache, split_of(tmp_path / "c", test=people("phantom-0001")), phantoms, "r3")
    found, _ = looked(cache, split_of(tmp_path / "d", test=people("phantom-0001", prefix="other")), phantoms, "r4")
    assert found.number == 1


def test_an_external_site_is_counted_by_itself_and_known_as_a_former_test_set(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    looked(cache, split_of(tmp_path / "a", test=people("E-1x")), experiment("elsewhere"), "r1")
    split = split_of(tmp_path / "b", test=people("P-anna"), external=people("E-1x"))
    _, found = looked(cache, split, experiment("ours"), "r2", "helps")
    assert [(one.side, one.number) for one in found] == [("test", 1), ("external", 2)]
    assert found[1].sentences()[0].startswith("This is look 2 at these patients of the external site; earlier looks")


def test_a_run_that_fails_has_looked_and_stays_one_look_when_it_goes_on(tmp_path: Path) -> None:
    cache, split = tmp_path / "cache", split_of(tmp_path / "s", test=people("P-anna"))
    begin_look(cache, split, experiment("one"), "run", settings_of(experiment("one")))
    assert [look.utility for look in read_ledger(cache).looks] == [UNFINISHED]
    other, _ = looked(cache, split, experiment("two", seed=5), "r2")
    assert other.number == 2 and "unfinished" in other.sentences()[0]
    mine, _ = looked(cache, split, experiment("one"), "r1")
    assert (mine.number, len(read_ledger(cache).looks)) == (2, 2)


def _look_alone(cache: Path, split: Path, number: int) -> None:
    looked(cache, split, experiment(f"run-{number}", seed=number), f"r{number}")


def test_runs_at_one_time_are_all_counted(tmp_path: Path) -> None:
    cache, split = tmp_path / "cache", split_of(tmp_path / "s", test=people("P-anna"))
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=_look_alone, args=(cache, split, number)) for number in range(4)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
    ledger = read_ledger(cache)
    assert sorted(look.run for look in ledger.looks) == [f"run-{number}" for number in range(4)]
    assert [standings(ledger, place)[0].number for place in range(4)] == [1, 2, 3, 4]


def test_a_moved_cache_keeps_its_looks(tmp_path: Path) -> None:
    split = split_of(tmp_path / "s", test=people("P-anna"))
    looked(tmp_path / "cache", split, experiment("one"), "r1")
    shutil.move(tmp_path / "cache", tmp_path / "moved")
    found, _ = looked(tmp_path / "moved", split, experiment("two", seed=1), "r2")
    assert found.number == 2


OLD = """\
test_set,when,run,stage,fingerprint,look
{set},2025-01-02T03:04:05+00:00,old,anomaly-fold-0-gan-0,a1,1
{set},2025-01-02T03:04:05+00:00,old,privacy-fold-0-gan-0,b1,2
{set},2025-01-02T03:04:05+00:00,old,verdict,c1,3
{set},2025-01-03T03:04:05+00:00,old,verdict,c2,4
{set},2025-01-04T03:04:05+00:00,old,"curve, 4 a class",d1,5
{set},2025-01-04T03:04:06+00:00,old,"curve, 8 a class",d2,6
"""


def test_a_ledger_of_an_older_version_counts_its_runs(tmp_path: Path) -> None:
    """Two runs and a curve were six rows; what they decided was not kept then."""
    from flows.ledger import digest_of_images, tested_images

    cache, split = tmp_path / "cache", split_of(tmp_path / "s", test=people("P-anna"))
    cache.mkdir()
    (cache / "ledger.csv").write_text(OLD.format(set=digest_of_images(tested_images(split, "test"))))
    found, _ = looked(cache, split, experiment("new"), "r1")
    assert found.number == 4
    assert "not kept, release not kept (old, 2025-01-02)" in found.sentences()[0]
    assert [one.look.what for one in found.earlier] == ["run", "run", "curve"]
    again, _ = looked(cache, split, experiment("newer", seed=1), "r2")
    assert again.number == 5


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("ledger.json", '{"version": 2, "looks": [{"when"', "damaged or cut short"),
        ("ledger.json", '{"version": 3, "looks": [], "sets": {}}', "version 3, and this radaug reads version 2"),
        ("ledger.json", '{"version": 2, "looks": [{"who": 1}], "sets": {}}', "damaged or cut short"),
        ("ledger.csv", "test_set,when\nabc,now\n", "has no column run, stage, fingerprint"),
        ("ledger.csv", "", "is damaged"),
    ],
)
def test_a_ledger_that_cannot_be_read_is_named_and_left_alone(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said) as error:
        begin_look(tmp_path, split_of(tmp_path / "s", test=people("P-anna")), experiment(), "run", "key")
    assert str(tmp_path / name) in str(error.value) and "move it away" in str(error.value)
    assert (tmp_path / name).read_text() == text


def test_many_earlier_looks_are_counted_by_decision(tmp_path: Path) -> None:
    cache, split = tmp_path / "cache", split_of(tmp_path / "s", test=people("P-anna"))
    for number in range(8):
        found, _ = looked(cache, split, experiment(f"run-{number}", seed=number), f"r{number}")
    (said,) = found.sentences()
    assert said.startswith("This is look 8") and "2 looks before these (2 inconclusive); inconclusive" in said
    assert "run-1" not in said and "run-2" in said


def test_the_ledger_keeps_no_set_that_no_look_names(tmp_path: Path) -> None:
    cache, split = tmp_path / "cache", split_of(tmp_path / "s", test=people("P-anna"))
    looked(cache, split, experiment(), "r1")
    value = json.loads((cache / "ledger.json").read_text())
    assert set(value["sets"]) == {value["looks"][0]["sets"]["test"]}
    assert read_ledger(tmp_path / "nowhere") == Ledger()
