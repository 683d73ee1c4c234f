"""The graph: what runs beside what, what is left of it when a step fails or a process dies, and that nothing stays."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing import forkserver
from pathlib import Path

import pytest
from graph_stages import step

from flows.children import Work, in_child
from flows.engines import direct_engine
from flows.forecast import Planned, levels, makespan
from flows.graph import Graph, Heard, Job
from flows.plan import Step, plan_experiment
from flows.shares import Machine, Share, Size, size_of
from pipeline.config.experiment import Experiment
from pipeline.config.loading import load_experiment
from pipeline.core.cache import Execution
from pipeline.core.errors import DataError, Killed, RadaugError, UserError
from pipeline.core.progress import PROGRESS
from pipeline.core.records import Record, load_record

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "configs" / "demo.yaml"


class Notes:
    """What became of jobs."""

    def __init__(self) -> None:
        self.started_with: dict[str, int] = {}
        self.ended: list[str] = []
        self.lost: list[str] = []

    def begins(self, steps: Sequence[Step], seconds: float) -> None: ...

    def started(self, job: Job, threads: int) -> None:
        self.started_with[job.name] = threads

    def finished(self, job: Job, execution: Execution | None) -> None:
        self.ended.append(job.name)

    def failed(self, job: Job, error: RadaugError) -> None:
        self.lost.append(job.name)

    def waiting(self, jobs: int, seconds: float) -> None: ...


@pytest.fixture(scope="module")
def demo() -> Experiment:
    return load_experiment(DEMO, ["compute.device=cpu"])


def run_graph(demo: Experiment, place: Path, steps: list[Step], notes: Notes, workers: int = 2) -> dict[str, Path]:
    machine = Machine(workers, workers, workers, 1e6)
    with direct_engine(machine) as start:
        return Graph(demo, steps, machine, place / "cache", place / "error.log", start, notes).run()


def record(directory: Path) -> Record:
    return load_record(directory)


def overlap(one: Record, other: Record) -> bool:
    return bool(one.figures["began"] < other.figures["ended"] and other.figures["began"] < one.figures["ended"])


def test_steps_run_side_by_side_each_in_a_process_of_its_own(demo: Experiment, tmp_path: Path) -> None:
    notes = Notes()
    sides = [step(name, "first", what="meet") for name in ("left", "right")]  # each ends when the other has begun
    steps = [step("first"), *sides, step("last", "left", "right")]
    made = {name: record(at) for name, at in run_graph(demo, tmp_path, steps, notes).items()}
    pids = {one.figures["pid"] for one in made.values()}
    assert len(pids) == 4 and os.getpid() not in pids
    assert overlap(made["left"], made["right"])
    assert not overlap(made["first"], made["left"]) and not overlap(made["last"], made["right"])
    assert notes.ended[0] == "first" and notes.ended[-1] == "last"
    assert notes.started_with == {"first": 2, "left": 1, "right": 1, "last": 2}
    assert [made[name].threads for name in ("first", "left", "last")] == [2, 1, 2]

    again = Notes()
    assert run_graph(demo, tmp_path, steps, again).keys() == made.keys()
    assert set(again.started_with.values()) == {0}  # found in the cache: no process was started


def test_parts_are_made_before_their_step_and_by_it_where_they_are_not(demo: Experiment, tmp_path: Path) -> None:
    notes = Notes()
    made = run_graph(demo, tmp_path, [step("whole", parts=("a", "b", "c"))], notes)
    assert (made["whole"] / "made.txt").read_text() == "a b c"
    assert sorted(notes.ended[:3]) == ["whole: a", "whole: b", "whole: c"] and notes.ended[3] == "whole"


def test_a_failed_step_names_itself_and_lets_independent_ones_finish(demo: Experiment, tmp_path: Path) -> None:
    notes = Notes()
    steps = [step("bad", what="fail"), step("after", "bad"), step("good"), step("more", "good")]
    with pytest.raises(DataError, match=r"^bad: labels.csv: a label is missing\.$"):
        run_graph(demo, tmp_path, steps, notes)
    assert notes.ended == ["good", "more"] and notes.lost == ["bad"]
    assert not list((tmp_path / "cache").glob("after-*"))


def test_two_failures_are_both_named_and_a_fault_tells_no_patient(demo: Experiment, tmp_path: Path) -> None:
    with pytest.raises(RadaugError) as caught:
        run_graph(demo, tmp_path, [step("bad", what="fail"), step("worse", what="crash")], Notes())
    assert "bad" in str(caught.value) and "worse" in str(caught.value)
    assert "patient-77" not in str(caught.value)
    assert "patient-77" in (tmp_path / "error.log").read_text()


def test_a_killed_child_is_told_and_the_parts_that_are_made_are_kept(demo: Experiment, tmp_path: Path) -> None:
    notes = Notes()
    with pytest.raises(Killed, match=r"^whole: b: its process was killed, most often because memory ran out") as caught:
        run_graph(demo, tmp_path, [step("whole", parts=("a", "b"), what="die"), step("good")], notes)
    assert "Run the same command again" in str(caught.value) and caught.value.exit_code == 1
    assert set(notes.ended) == {"whole: a", "good"}
    (kept,) = (tmp_path / "cache").glob(".partial-whole-*/a")
    assert kept.read_text() == "a"


def test_memory_that_is_not_there_is_told_as_the_users_to_mend(demo: Experiment, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^big: .*memory.*smaller"):
        run_graph(demo, tmp_path, [step("big", what="hog")], Notes())


SLEEPER = """
import sys
from pathlib import Path
import flows.children
from graph_stages import step
from test_graph import DEMO, Notes, run_graph
from pipeline.config.loading import load_experiment

flows.children._READY.clear()  # these stages need no libraries
if __name__ == "__main__":
    steps = [step("one", what="sleep"), step("two", what="sleep")]
    run_graph(load_experiment(DEMO, ["compute.device=cpu"]), Path(sys.argv[1]), steps, Notes())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_child_outlives_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "sleeper.py"
    handlers = "signal.signal(2, signal.default_int_handler)\nsignal.signal(15, lambda *_: sys.exit(143))\n"
    script.write_text(SLEEPER.replace("import sys\n", f"import signal, sys\n{handlers}"))  # even if they were ignored
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    ) as parent:
        try:
            children = wait_for_children(tmp_path / "cache", 2)
            parent.send_signal(number)
            assert parent.wait(200) != 0
        finally:
            parent.kill()
    end = time.monotonic() + 60
    while any(map(is_running, children)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(is_running, children))


def wait_for_children(cache: Path, number: int) -> list[int]:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        found = [int(path.name.removeprefix("pid-")) for path in cache.glob("pid-*")]
        if len(found) == number:
            return found
        time.sleep(0.05)
    raise AssertionError("the children did not start")


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_share_keeps_threads_memory_and_gpus_within_the_machine() -> None:
    machine = Machine(workers=3, cores=4, free=3, mib=1000, gpus=(0, 1))
    small, large = Size(1, 300, on_device=True), Size(1, 800, on_device=False)
    assert machine.share(small, 4) == Share(3, 300, (0,))  # no more threads than are free
    machine.running["a"] = Share(3, 300, (0,))
    assert machine.share(large, 1) is None  # 300 + 800 MiB
    assert machine.share(small, 2, devices=2) is None  # one GPU is left
    assert machine.share(small, 2) == Share(1, 300, (1,))
    machine.running["b"] = Share(1, 300, (1,))
    assert machine.share(Size(1, 10, on_device=False), 1) is None  # no core is left
    assert Machine(2, 2, 2, 100).share(large, 1) == Share(1, 800, None)  # alone, it is tried all the same
    assert Machine(2, 2, 2, 1e6, threads=4).share(small, 1) == Share(4, 300, None)


def test_a_forecast_plays_the_schedule_through() -> None:
    after = frozenset({"gan"})
    jobs = {name: Planned(seconds, 1, 64 * 64) for name, seconds in (("gan", 10), ("real", 4), ("more", 4))}
    jobs["synthetic"] = Planned(3, 1, 64 * 64, after)
    assert levels(jobs) == {"gan": 13, "real": 4, "more": 4, "synthetic": 3}
    assert makespan(jobs, workers=2, cores=2) == 13  # real and more beside the GAN
    assert makespan(jobs, workers=1, cores=2) == 21
    wide = jobs | {"gan": Planned(10, 2, 64 * 64)}
    assert makespan(wide, 2, 2) == pytest.approx(10 / 2**0.6 + 4 + 3)  # then real and more, then synthetic


def test_what_is_left_of_a_job_goes_by_its_own_words_and_a_resumed_one_begins_in_the_middle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, heard = [0.0], Heard()
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with heard.listening():
        for now, done in ((100.0, 60), (110.0, 70)):  # resumed at 50; a unit a second
            clock[0] = now
            logging.getLogger(PROGRESS).error("", extra={"job": "fit-gan", "done": done, "total": 100})
        assert heard.left("fit-gan") == pytest.approx(30)
        clock[0] = 114.0
        assert heard.left("fit-gan") == pytest.approx(26)
        clock[0] = 300.0
        assert heard.left("fit-gan") == 0
    assert heard.left("downstream") is None


def test_a_lone_gan_gets_all_cores_where_they_help_and_two_share_them(demo: Experiment, tmp_path: Path) -> None:
    def threads(experiment: Experiment, free: int, cores: int) -> int:
        graph = Graph(
            experiment, plan_experiment(experiment), Machine(cores, cores, free, 1e6), tmp_path, tmp_path,
            lambda work, found: pytest.fail("nothing is started"), Notes(),
        )  # fmt: skip
        return graph._gan_threads

    large = load_experiment(DEMO, ["compute.device=cpu", "data.spatial_size=64"])
    two = large.model_copy(update={"gan": large.gan.model_copy(update={"gan_seeds": 2})})
    assert threads(large, 2, 2) == 2 and threads(two, 2, 2) == 1
    assert threads(large, 1, 2) == 1  # another process has the second core
    assert threads(two, 8, 8) == 4
    assert threads(demo, 2, 2) == 1  # at 32 x 32 a second thread gains less than classifiers on the second core


def test_the_size_of_a_job_is_where_the_work_is(demo: Experiment) -> None:
    steps = {one.name: one for one in plan_experiment(demo)}
    gan = size_of(steps["fit-gan-fold-0-gan-0"], "", demo)
    fit = size_of(steps["downstream-fold-0"], "real seed 0", demo)
    assert gan.seconds > 10 * fit.seconds > 10 * size_of(steps["downstream-fold-0"], "", demo).seconds
    with_detectors = demo.model_copy(update={"anomaly": demo.anomaly.model_copy(update={"detectors": ("ae", "pca")})})
    steps |= {step.name: step for step in plan_experiment(with_detectors)}
    learnt, plain = (size_of(steps[f"detect-{name}-fold-0"], "", with_detectors) for name in ("ae", "pca"))
    assert learnt.seconds > 2 * plain.seconds
    assert gan.on_device and not size_of(steps["verdict"], "", demo).on_device
    larger = load_experiment(DEMO, ["compute.device=cpu", "data.spatial_size=256", "gan.batch_size=64"])
    assert size_of(steps["fit-gan-fold-0-gan-0"], "", larger).mib > gan.mib + 1000


def test_a_child_starts_though_the_server_that_forks_it_was_killed(tmp_path: Path, ready_children: None) -> None:
    """It dies with the request in its hands: stopped, asked, and killed half a second later."""
    forkserver.ensure_running()
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    os.kill(server, signal.SIGSTOP)
    threading.Timer(0.5, os.kill, (server, signal.SIGKILL)).start()
    made = in_child(Work(step("a"), "", {}, tmp_path / "cache", tmp_path / "error.log", 1))
    assert made is not None and made.record.kind == "a"
    assert forkserver._forkserver._forkserver_pid != server  # type: ignore[attr-defined]
