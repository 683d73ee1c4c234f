"""A run, whatever engine its jobs are started by: the graph, the run directory, the look at test patients."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from flows.engines import Engine
from flows.enrolment import enrol, require_register
from flows.faults import faults_kept_in
from flows.graph import Graph, Job
from flows.kept_report import bring_report
from flows.ledger import LOOKING, Look, begin_look, finish_look, read_ledger, settings_of
from flows.needs import count_images, in_gib, needs_of, require_room
from flows.notify import tell_change
from flows.plan import Step, check_configs, plan_experiment
from flows.progress import WHOLE_RUN
from flows.run_directory import cache_of, link_stage, open_run, publish_results
from flows.shares import machine_of
from flows.standing import Standing, ledger_table, looks_json, standings
from flows.telemetry import spans_of
from pipeline.config.experiment import Experiment
from pipeline.core.cache import Execution
from pipeline.core.decisions import Verdicts
from pipeline.core.errors import RadaugError
from pipeline.core.files import clear_disk_errors, read_json
from pipeline.core.layout import FAULT_LOG, LEDGER, VERDICT
from pipeline.core.progress import in_minutes
from pipeline.core.records import load_record
from pipeline.data.batches.dataset import write_table
from pipeline.report.page import write_report

logger = logging.getLogger(__name__)
whole_run = logging.getLogger(WHOLE_RUN)
_SHOWN_FIGURES = 4
_WHOLE_RUN_EVERY_S = 10.0


def run_experiment(
    experiment: Experiment,
    place: Path,
    engine: Engine,
    *,
    yes: bool = False,
    waits: bool = False,
    publish: Callable[[Path], None] | None = None,
) -> Verdicts:
    """Run an experiment into the directory `place`; finished stages come from the cache.

    Links, tables and report are written into `place`, stages into the cache.

    Args:
        yes: start, though disk or memory will hardly be enough.
        waits: until no other process runs into `place`, which else is refused.
        publish: shows the finished run elsewhere, before the next one may begin in `place`.

    Returns:
        The run's verdict.json.

    Raises:
        UserError: disk or memory will not be enough, or other input is wrong.
        RadaugError: a stage refused or could not go on; those that do not need it have ended.
    """
    with open_run(place, experiment, waits=waits):
        with faults_kept_in(place / FAULT_LOG, "run"), clear_disk_errors(place):
            verdicts = _run_into(place, experiment, engine, yes)
        if publish is not None:
            publish(place)
    return verdicts


def _run_into(place: Path, experiment: Experiment, engine: Engine, yes: bool) -> Verdicts:
    """The run, in a directory that this process holds."""
    cache = cache_of(place)
    require_register(experiment, cache)
    read_ledger(cache)  # a ledger that cannot be read is told before anything is trained
    watcher = _RunWatcher(experiment, place, yes=yes)
    directories = run_steps(experiment, plan_experiment(experiment), place, engine, watcher)
    looked = _looked(cache, experiment, directories)
    write_table(place / LEDGER, ledger_table(looked))
    publish_results(place, directories, looks_json(looked))
    with faults_kept_in(place / FAULT_LOG, "report"):
        bring_report(place, write_report)
    verdicts: Verdicts = read_json(place / VERDICT)
    if not watcher.made:
        when = load_record(directories["verdict"]).finished
        logger.info("Nothing has changed since %s: every stage was there, and nothing was trained.", when)
    tell_change(experiment.notify.webhook, experiment.name, place, verdicts)
    return verdicts


def run_steps(
    experiment: Experiment, steps: Sequence[Step], place: Path, engine: Engine, watcher: StepWatcher
) -> dict[str, Path]:
    """Run `steps` on this machine; gives the directory of each.

    Raises:
        RadaugError: as of `Graph.run`.
    """
    check_configs(steps)
    machine = machine_of(experiment.compute)
    with engine(machine) as start, spans_of(watcher) as told:
        return Graph(experiment, steps, machine, cache_of(place), place / FAULT_LOG, start, told).run()


class StepWatcher:
    """Refuses what has no room on this machine, notes the look at test patients before the first job opens their
    images, puts a split's patients into the study's register, and says what runs and what has ended.

    Args:
        what, settings: of the look.
        prefix: of every line.
        yes: refuse nothing for want of room.
    """

    def __init__(
        self, experiment: Experiment, cache: Path, what: str, settings: str, *, prefix: str = "", yes: bool = False
    ) -> None:
        self.experiment, self.cache = experiment, cache
        self.what, self.settings, self.prefix, self.yes = what, settings, prefix, yes
        self.directories: dict[str, Path] = {}
        self._running: dict[str, int] = {}
        self._looking, self._said = False, time.monotonic()

    def begins(self, steps: Sequence[Step], seconds: float) -> None:
        split = self.directories.get("split")
        needs = needs_of(steps, self.experiment, count_images(split) if split else 0)
        if not self.yes:
            require_room(needs, self.cache)
        if split:
            disk, memory = in_gib(needs.disk_mib), in_gib(needs.memory_mib)
            asked = "%swhat is not there yet takes about %s, %s of disk and %s of memory a process"
            told = {"event": "what is ahead", "jobs": len(steps), "seconds": round(seconds)}
            whole_run.info(asked, self.prefix, in_minutes(seconds), disk, memory, extra=told)

    def started(self, job: Job, threads: int) -> None:
        self._running[job.name] = threads
        if job.step.kind in LOOKING and not self._looking:
            begin_look(self.cache, self.directories["split"], self.experiment, self.what, self.settings)
            self._looking = True

    def finished(self, job: Job, execution: Execution | None) -> None:
        del self._running[job.name]
        if execution is None:
            logger.info("%s%s", self.prefix, job.name, extra={"job": job.name, "event": "part made"})
            return
        self.directories[job.step.name] = execution.directory
        if job.step.kind == "split":
            enrol(self.experiment, job.step, execution, self.directories, self.cache)
        told = {"event": "stage cached" if execution.cached else "stage made", "seconds": execution.record.wall_s}
        logger.info("%s%s", self.prefix, describe_execution(job.name, execution), extra=told | {"job": job.name})

    def failed(self, job: Job, error: RadaugError) -> None:
        del self._running[job.name]
        told = {"job": job.name, "event": "stage failed"}
        logger.error("%s%s failed; what does not need it goes on", self.prefix, job.name, extra=told)

    def waiting(self, jobs: int, seconds: float) -> None:
        if time.monotonic() - self._said >= _WHOLE_RUN_EVERY_S:
            self._said = time.monotonic()
            names = ", ".join(f"{name} ({number})" if number > 1 else name for name, number in self._running.items())
            line = "%swhole run: %d jobs left, about %s; running now: %s"
            told = {"event": "whole run", "jobs": jobs, "seconds": round(seconds)}
            whole_run.info(line, self.prefix, jobs, in_minutes(seconds), names, extra=told)


class _RunWatcher(StepWatcher):
    """Links finished stages into the run directory too."""

    def __init__(self, experiment: Experiment, place: Path, *, yes: bool) -> None:
        super().__init__(experiment, cache_of(place), "run", settings_of(experiment), yes=yes)
        self.place = place
        self.made = 0
        """Stages that did not lie in the cache."""

    def finished(self, job: Job, execution: Execution | None) -> None:
        if execution is not None:
            self.made += not execution.cached
            link_stage(self.place, execution.record, execution.directory)
        super().finished(job, execution)


def _looked(cache: Path, settings: Experiment, directories: Mapping[str, Path]) -> list[Standing]:
    """Put the finished run into the ledger, and say where its look stands."""
    verdict, key = directories["verdict"], settings_of(settings)
    record, decided = load_record(verdict), read_json(verdict / VERDICT)

    def look(when: str, sets: dict[str, str]) -> Look:
        utility, release = (str(decided[part]["decision"]) for part in ("utility", "release"))
        return Look(when, settings.name, "run", key, record.fingerprint, record.digest, utility, release, sets)

    return standings(*finish_look(cache, directories["split"], settings, look))


def describe_execution(name: str, execution: Execution) -> str:
    """A finished stage in one line: its name, `cached` or its seconds, and its first figures."""
    took = "cached" if execution.cached else f"{execution.record.wall_s:.1f} s"
    numbers = [
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in execution.record.figures.items()
        if isinstance(value, (int, float, str))
    ]
    return "  ".join([f"{name:<28}", f"{took:>9}", ", ".join(numbers[:_SHOWN_FIGURES])]).rstrip()
