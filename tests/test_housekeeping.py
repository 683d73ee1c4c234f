"""`radaug status` and `radaug clean`: what runs left, and what of the cache may go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from graph_stages import Doing, make

from flows.clean import DAY_S, clean_cache
from flows.cli import launch
from flows.lease import holder_of, lease
from flows.run_directory import open_run
from flows.status import status_of
from pipeline.config.experiment import Experiment
from pipeline.config.loading import validate_experiment
from pipeline.core.cache import Stage, execute, find
from pipeline.core.errors import UserError
from pipeline.core.files import link, write_json
from pipeline.core.layout import FAULT_LOG, HOLDER, LOCK, STAGES, VERDICT


@pytest.fixture
def experiment() -> Experiment:
    data = {"source": {"kind": "phantom"}, "classes": ["a", "b"], "positive": ["b"]}
    return validate_experiment({"name": "nightly", "data": data}, "a test")


def stage(seed: int) -> Stage[Doing]:
    return replace(make("prepare", Doing()), seed=seed)


def made(cache: Path, seed: int, days: float) -> Path:
    """A stage of its own in the cache, last used so many days ago."""
    place = execute(stage(seed), cache).directory
    unused_for(place, days)
    return place


def unused_for(place: Path, days: float) -> None:
    then = time.time() - days * DAY_S
    for path in (*place.iterdir(), place):
        os.utime(path, (then, then))


def ended(experiment: Experiment, out: Path) -> None:
    with open_run(out, experiment):
        pass


def test_only_what_no_run_links_to_and_nobody_used_goes(experiment: Experiment, tmp_path: Path) -> None:
    cache = tmp_path / ".cache"
    linked, beside, old, young = (made(cache, seed, days) for seed, days in enumerate((90, 90, 90, 10)))
    ended(experiment, tmp_path / "study" / "nested" / "run")  # it notes itself in its own cache, not in this one
    for run, target in ((tmp_path / "run", linked), (tmp_path / "study" / "other", beside)):
        run.mkdir(parents=True)
        (run / LOCK).touch()
        link(target, run / STAGES / "prepare")
    said = clean_cache(cache, 30, None, really=False)
    assert [entry.place for entry in said.removed] == [old] and old.is_dir()
    done = clean_cache(cache, 30, None, really=True)
    assert done == said
    assert not old.exists() and linked.is_dir() and beside.is_dir() and young.is_dir()
    assert not list(cache.glob(".removed-*"))


def test_a_run_elsewhere_is_known_by_the_cache(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "scratch" / "cache"
    monkeypatch.setenv("RADAUG_CACHE", str(cache))
    ended(experiment, tmp_path / "far" / "away" / "run")
    kept = made(cache, 0, 90)
    link(kept, tmp_path / "far" / "away" / "run" / STAGES / "prepare")
    assert clean_cache(cache, 30, 0.0, really=True).removed == ()
    assert kept.is_dir()


def test_a_size_takes_the_oldest_first_and_never_the_last_day(tmp_path: Path) -> None:
    places = [made(tmp_path, seed, days) for seed, days in enumerate((3, 5, 0.5))]
    size = sum(path.stat().st_size for path in places[0].iterdir())
    found = clean_cache(tmp_path, 30, 2.5 * size / 2**30, really=True)
    assert [entry.place for entry in found.removed] == [places[1]]
    found = clean_cache(tmp_path, 30, 0.0, really=True)
    assert [entry.place for entry in found.removed] == [places[0]]
    assert places[2].is_dir()


def test_what_is_found_is_used(tmp_path: Path) -> None:
    place = made(tmp_path, 0, 90)
    assert find(stage(0), tmp_path) is not None
    assert clean_cache(tmp_path, 30, None, really=True).removed == ()
    assert place.is_dir()


def test_a_stage_that_is_being_made_stays(tmp_path: Path) -> None:
    place = made(tmp_path, 0, 90)
    partial = tmp_path / f".partial-{place.name}"
    partial.mkdir()
    (partial / "checkpoint").write_bytes(b"half")
    unused_for(partial, 90)
    with FileLock(tmp_path / f".lock-{place.name}"):
        assert clean_cache(tmp_path, 30, None, really=True).removed == ()
    assert {entry.place for entry in clean_cache(tmp_path, 30, None, really=True).removed} == {place, partial}


def test_a_removed_stage_is_made_again(tmp_path: Path) -> None:
    made(tmp_path, 0, 90)
    assert len(clean_cache(tmp_path, 30, None, really=True).removed) == 1
    again = execute(stage(0), tmp_path)
    assert not again.cached and again.directory.is_dir()


def test_a_cache_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="no cache to clean"):
        clean_cache(tmp_path / "nowhere", 30, None, really=True)
    assert launch(["clean", str(tmp_path / "nowhere")]) == 2
    assert "no cache to clean" in capsys.readouterr().err


def test_the_command_says_before_it_removes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = made(tmp_path / ".cache", 0, 90)
    assert launch(["clean", str(tmp_path)]) == 0
    assert place.name in capsys.readouterr().out and place.is_dir()
    assert launch(["clean", str(tmp_path), "--yes"]) == 0
    assert not place.exists()


def test_states_of_runs(experiment: Experiment, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with open_run(run, experiment):
        assert status_of(run).state == "running"
    assert holder_of(run) is None
    assert status_of(run).state == "stopped"
    (run / FAULT_LOG).write_text("a traceback")
    assert status_of(run).state == "failed"
    write_json(run / VERDICT, {"utility": {"decision": "helps"}, "release": {"decision": "refuse"}})
    found = status_of(run)
    assert (found.state, found.utility, found.release) == ("finished", "helps", "refuse")
    with lease(run):
        told = json.loads((run / HOLDER).read_text())
    write_json(run / HOLDER, told | {"host": "another"})
    assert status_of(run).state == "running on another"
    write_json(run / HOLDER, told | {"process_start": told["process_start"] - 1000})  # its number was given again
    assert status_of(run).state == "killed"


def test_a_killed_run_says_so(experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys, time; from pathlib import Path; from flows.run_directory import open_run\n"
        "from pipeline.config.loading import load_experiment\n"
        "with open_run(Path(sys.argv[1]) / 'run', load_experiment(Path(sys.argv[1]) / 'c.yaml')):\n"
        "    print('here', flush=True); time.sleep(60)\n"
    )
    (tmp_path / "c.yaml").write_text("data: {source: {kind: phantom}, classes: [a, b], positive: [b]}\n")
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline()
    assert status_of(tmp_path / "run").state == "running"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert launch(["status", str(tmp_path), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["state"], row["stages"]) == ("killed", 0)
    assert launch(["status", str(tmp_path)]) == 0
    assert "killed" in capsys.readouterr().out
    ended(experiment, tmp_path / "run")  # and the lock is free
    assert status_of(tmp_path / "run").state == "stopped"


def test_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch(["status", str(tmp_path)]) == 0
    assert "No run" in capsys.readouterr().out
    assert launch(["status", str(tmp_path / "nowhere")]) == 2
