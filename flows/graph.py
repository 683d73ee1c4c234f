"""The scheduler: jobs start when what they need is there and the machine has room, the longest chains first.

A job is a step, or one of the parts of a step that are made side by side. How it is run is the engine's affair (see
`flows.engines`). One that fails lets those run that do not need it.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flows.children import Work, job_name
from flows.forecast import Planned, levels, makespan
from flows.plan import MANIFEST_STEPS, TRAINS_GAN, Step
from flows.shares import Machine, Share, Size, size_of
from pipeline.config.experiment import Experiment
from pipeline.core.cache import Execution, find
from pipeline.core.errors import RadaugError
from pipeline.core.progress import PROGRESS
from pipeline.core.threads import speed_up

_LOOKS_UP_S = 1.0
_TELLING_S = 5.0
"""Jobs expected to be shorter say little of how fast this machine is: starting a process is much of them."""


@dataclass(frozen=True)
class Job:
    """A step, or one of its parts.

    Attributes:
        needs: names of the jobs that come before it.
    """

    step: Step
    part: str
    needs: frozenset[str]
    size: Size

    @property
    def name(self) -> str:
        return job_name(self.step, self.part)


class Start(Protocol):
    """Starts a piece of work and gives its future at once; `found` is its outcome where it lies in the cache."""

    def __call__(self, work: Work, found: Execution | None) -> Future[Execution | None]: ...


class Watcher(Protocol):
    """Is told, in the main thread, what becomes of jobs. A part, and only a part, ends without an execution."""

    def begins(self, steps: Sequence[Step], seconds: float) -> None:
        """Called before the first job that reads the source, and before the first one behind it: what is not found in
        the cache, and what it is expected to take together. It may refuse."""

    def started(self, job: Job, threads: int) -> None: ...

    def finished(self, job: Job, execution: Execution | None) -> None: ...

    def failed(self, job: Job, error: RadaugError) -> None: ...

    def waiting(self, jobs: int, seconds: float) -> None:
        """Called every second: how many jobs are not finished, and what they are expected to take together."""


class Graph:
    """Runs the steps of an experiment on a machine.

    Args:
        fault_log: takes the tracebacks of unexpected faults.
        start: the engine's.
    """

    def __init__(
        self,
        experiment: Experiment,
        steps: Sequence[Step],
        machine: Machine,
        cache: Path,
        fault_log: Path,
        start: Start,
        watcher: Watcher,
    ) -> None:
        self.experiment, self.machine, self.cache, self.fault_log = experiment, machine, cache, fault_log
        self.start, self.watcher = start, watcher
        self.directories: dict[str, Path] = {}
        self.failures: dict[str, RadaugError] = {}
        self._unseen = {step.name: step for step in steps}
        self._jobs = {job.name: job for step in steps for job in _jobs_of(step, experiment)}
        self._running: dict[str, tuple[Job, float]] = {}
        self._done: set[str] = set()
        self._begun: set[bool] = set()
        self._ended: queue.SimpleQueue[tuple[str, Future[Execution | None]]] = queue.SimpleQueue()
        self._pace = 1.0
        self._heard = Heard()
        self._gan_threads = self._choose_gan_threads()

    def run(self) -> dict[str, Path]:
        """Run all steps that can be run.

        Returns:
            Name of each step -> its directory.

        Raises:
            RadaugError: a step failed: the first one's error, which names it, after all others have ended.
        """
        with self._heard.listening():
            while True:
                self._look_into_the_cache()
                self._start_what_fits()
                if not self._running:
                    break
                try:
                    self._end(*self._ended.get(timeout=_LOOKS_UP_S))
                except queue.Empty:
                    self.watcher.waiting(*self._left())
        if self.failures:
            raise self._failure()
        return self.directories

    def _left(self) -> tuple[int, float]:
        planned = self._planned(self._gan_threads)
        return len(planned), self._pace * makespan(planned, self.machine.workers, self.machine.cores)

    def _look_into_the_cache(self) -> None:
        """Finish the steps that lie there, as soon as their inputs are known."""
        for name, step in list(self._unseen.items()):
            if not set(step.needs.values()) <= self.directories.keys():
                continue  # steps stand in an order in which each comes after those that it needs
            del self._unseen[name]
            found = find(step.stage(self.directories), self.cache)
            if found is not None:
                for part in step.parts:
                    del self._jobs[job_name(step, part)]
                job = self._jobs.pop(name)
                self.watcher.started(job, 0)
                self.start(self._work(job, Share(0, 0)), found).result()
                self._finish(job, found)

    def _start_what_fits(self) -> None:
        ready = [job for job in self._jobs.values() if job.needs <= self._done and job.step.name not in self._unseen]
        level = levels(self._planned(self._gan_threads)) if ready else {}
        for place, job in enumerate(sorted(ready, key=lambda job: -level[job.name])):
            trains = job.step.kind in TRAINS_GAN
            wanted = self._gan_threads if trains else self.machine.idle // (len(ready) - place)
            share = self.machine.share(job.size, wanted, self.experiment.compute.devices if trains else 1)
            if share is not None:
                self._begin(job, share)

    def _begin(self, job: Job, share: Share) -> None:
        reads_source = job.step.kind in MANIFEST_STEPS
        if reads_source not in self._begun:
            self._begun.add(reads_source)
            self.watcher.begins(
                list({one.step.name: one.step for one in self._jobs.values()}.values()), self._left()[1]
            )
        self.machine.running[job.name] = share
        self._running[job.name] = (self._jobs.pop(job.name), time.monotonic())
        self.watcher.started(job, share.threads)
        future = self.start(self._work(job, share), None)
        future.add_done_callback(lambda future: self._ended.put((job.name, future)))

    def _work(self, job: Job, share: Share) -> Work:
        needed = {name: self.directories[name] for name in job.step.needs.values()}
        return Work(job.step, job.part, needed, self.cache, self.fault_log, share.threads, share.gpus)

    def _end(self, name: str, future: Future[Execution | None]) -> None:
        job, began = self._running.pop(name)
        share = self.machine.running.pop(name)
        try:
            execution = future.result()
        except RadaugError as error:
            self.failures[name] = error
            self._give_up(job)
            self.watcher.failed(job, error)
            return
        expected = job.size.seconds / speed_up(share.threads, job.size.voxels)
        if expected > _TELLING_S:
            self._pace += ((time.monotonic() - began) / expected - self._pace) / 2
        self._finish(job, execution)

    def _finish(self, job: Job, execution: Execution | None) -> None:
        self._done.add(job.name)
        if execution is not None:
            self.directories[job.step.name] = execution.directory
        self.watcher.finished(job, execution)

    def _give_up(self, failed: Job) -> None:
        """Drop what cannot be made any more: what needs the job, at any distance."""
        lost = {failed.name}
        while more := {name for name, job in self._jobs.items() if job.needs & lost}:
            lost |= more
            self._jobs = {name: job for name, job in self._jobs.items() if name not in more}
        self._jobs = {name: job for name, job in self._jobs.items() if job.step.name != failed.step.name}

    def _failure(self) -> RadaugError:
        """The first failure, as an error that names its job and the others that failed."""
        (name, error), *others = self.failures.items()
        text = str(error) if str(error).startswith(name) else f"{name}: {error}"
        if others:
            text += f" {', '.join(name for name, _ in others)} failed too."
        named = type(error).__new__(type(error))
        named.args = (text,)
        return named

    def _choose_gan_threads(self) -> int:
        """Threads of every GAN: as many as make the whole end first."""
        if self.machine.threads is not None:
            return self.machine.threads
        choices = range(1, self.machine.free + 1)
        workers, cores = self.machine.workers, self.machine.cores
        return min(choices, key=lambda number: makespan(self._planned(number), workers, cores))

    def _planned(self, gan_threads: int) -> dict[str, Planned]:
        """All that is not finished, as a forecast wants it."""
        now, found = time.monotonic(), dict[str, Planned]()
        for name, (job, began) in self._running.items():
            threads = self.machine.running[name].threads
            faster = speed_up(threads, job.size.voxels)
            left = job.size.seconds - (now - began) / self._pace * faster
            if job.step.kind in TRAINS_GAN and (known := self._heard.left(name)) is not None:
                left = known / self._pace * faster
            found[name] = Planned(max(left, 0.0), threads, job.size.voxels)
        names = self._jobs.keys() | found.keys()
        for name, job in self._jobs.items():
            threads = gan_threads if job.step.kind in TRAINS_GAN else (self.machine.threads or 1)
            found[name] = Planned(job.size.seconds, threads, job.size.voxels, job.needs & names)
        return found


class Heard(logging.Handler):
    """How far jobs say that they are, from the progress that their processes log."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, list[tuple[float, float]]] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        logger = logging.getLogger(PROGRESS)
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        job = getattr(record, "job", None)
        if job is not None:
            done, total = record.done, record.total  # type: ignore[attr-defined]
            self._said.setdefault(job, []).append((time.monotonic(), done / total))

    def left(self, job: str) -> float | None:
        """Seconds that a job will still take at the pace since its first word (a resumed one begins in the middle);
        None before its second."""
        (first, began), (last, share) = (self._said.get(job, [(0.0, 0.0)])[end] for end in (0, -1))
        if share <= began:
            return None
        return max((last - first) * (1 - share) / (share - began) - (time.monotonic() - last), 0.0)


def _jobs_of(step: Step, experiment: Experiment) -> list[Job]:
    """The parts of a step, and the step itself, which comes after them."""
    needs = frozenset(step.needs.values())
    parts = [Job(step, part, needs, size_of(step, part, experiment)) for part in step.parts]
    return [*parts, Job(step, "", needs | {part.name for part in parts}, size_of(step, "", experiment))]
